// 16-bit floats to float32 and back: the entries of the operator table.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

enum class Half { kFloat16, kBfloat16 };

struct HalfOperators {
    void (*widen)(Half kind, int64_t count, const std::uint16_t* x, float* y);   // exact
    void (*narrow)(Half kind, int64_t count, const float* x, std::uint16_t* y);  // to the nearest, ties to even
};

}  // namespace pycnn::cpu
