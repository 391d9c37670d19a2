#include "identity.h"

namespace pycnn {

const char* const engine = PYCNN_ENGINE;

}  // namespace pycnn
