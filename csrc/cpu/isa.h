// Which instruction set runs: detection, forcing, and the table of kernels of the one in force.
#pragma once

#include "cpu/half.h"
#include "cpu/operators.h"
#include "cpu/optim.h"
#include "cpu/packed.h"

namespace pycnn::cpu {

struct Kernels {
    const char* name;
    int vector_bytes;
    Operators<float> f32;
    Operators<double> f64;
    // The first `count` words of a stream.
    void (*philox_uint32)(const PhiloxStream& stream, int64_t count, std::uint32_t* words);
    HalfOperators half;
    OptimOperators optim;
    PackedOperators packed;
};

template <typename T>
const Operators<T>& operators(const Kernels& kernels) {
    if constexpr (sizeof(T) == 4) {
        return kernels.f32;
    } else {
        return kernels.f64;
    }
}

const Kernels& kernels();              // the table in force: forced by set_isa, else the best
bool set_isa(const char* name);        // "auto" is the best; false if unknown or not runnable here
bool isa_supported(const char* name);  // known and able to run here

}  // namespace pycnn::cpu
