// The parameters of a network as its program's steps read them: filters, and values for every channel.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/program_tensors.h"
#include "cpu/conv_packed.h"

namespace pycnn::program {

using Floats = Array<float>;
using Memory = std::shared_ptr<float>;

Memory memory(int64_t floats);

// Filters in the order their kernels read them, shared by all the programs of a network.
struct Filters {
    enum Kind { kConv, kDepthwise, kLinear } kind;
    std::array<int64_t, 4> shape;  // K, C, R, S as in NCHW; (out, in, 1, 1) of a linear layer
    int64_t lanes;
    Memory data;
    std::mutex mutex;
    std::map<int64_t, Memory> transformed;  // by Winograd tile

    Filters(Kind kind, const std::array<int64_t, 4>& shape)
        : kind(kind), shape(shape), lanes(program::lanes()), data(memory(floats())) {}

    // In whole vectors of the instruction set that they were made for.
    int64_t padded(int64_t channels) const { return (channels + lanes - 1) / lanes * lanes; }

    // A single block of channels is only as deep as there are channels.
    int64_t depth() const { return kind == kConv && shape[1] > lanes ? padded(shape[1]) : shape[1]; }

    int64_t taps() const { return shape[2] * shape[3]; }

    int64_t floats() const { return padded(shape[0]) * depth() * taps(); }

    // Where w[k][c][tap] lies.
    int64_t place(int64_t k, int64_t c, int64_t tap) const {
        const int64_t row = k / lanes * depth() * taps();  // in vectors, as all of these
        const int64_t block = std::min(lanes, depth());
        const int64_t vector = kind == kConv ? (c / lanes * taps() + tap) * block + c % lanes : c * taps() + tap;
        return (row + vector) * lanes + k % lanes;
    }
};

using SharedFilters = std::shared_ptr<Filters>;

// The filters that Winograd's F(tile x tile) multiplies with, kept from the first call on.
Memory winograd_filters(const cpu::PackedOperators& run, Filters& filters, int64_t tile);

// Values for whole vectors, zeros where there are none.
Memory padded(const std::optional<Floats>& values, int64_t count, int64_t lanes, float otherwise = 0.0f);

void bind_filters(py::module_& m);

}  // namespace pycnn::program
