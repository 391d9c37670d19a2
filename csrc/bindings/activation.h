// The family of activations by the names that Python has for them.
#pragma once

#include <string>

#include "cpu/activation.h"

namespace pycnn {

// Raises std::invalid_argument where there is no function of this name.
cpu::ActivationFunction function_of(const std::string& name, double a, double b, double c);

}  // namespace pycnn
