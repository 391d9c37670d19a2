// What a step must satisfy before a program takes it: whatever it reads or writes lies where it says.
#include <algorithm>
#include <cstddef>

#include "bindings/program.h"

namespace pycnn::program {

void Program::sizes(std::initializer_list<int64_t> values) {
    int64_t product = 1;
    for (const int64_t value : values) {
        require(value >= 0 && value <= kLargest, "program: a size below 0 or over 2**40");
        if (value > 1) require(!__builtin_mul_overflow(product, value, &product), "program: sizes too large");
    }
}

void Program::steps(const Pair& stride, const Pair& dilation) {
    for (int i = 0; i < 2; i++) {
        require(stride[i] >= 1 && stride[i] <= kLargest && dilation[i] >= 1 && dilation[i] <= kLargest >> 10,
                "program: stride and dilation must be at least 1");
    }
}

void Program::window(const Sizes& x, const Sizes& y, const Pair& taps, const Pair& stride, const Pair& padding,
                     const Pair& dilation) const {
    sizes({images_, x.channels, x.height, x.width});
    sizes({images_, y.channels, y.height, y.width});
    sizes({padding[0], padding[1]});
    steps(stride, dilation);
    for (int i = 0; i < 2; i++) {
        require(taps[i] <= kLargest >> 20 && (i == 0 ? y.height : y.width) <= kLargest / stride[i],
                "program: sizes too large");
    }
}

void Program::fits(const Filters& filters, Filters::Kind kind, int64_t K, int64_t C) const {
    require(filters.kind == kind, "program: filters packed for another step");
    require(filters.lanes == lanes_, "program: filters packed for another instruction set");
    require(filters.shape[0] == K && filters.shape[1] == C, "program: filters and channels disagree");
}

void Program::same(const Sizes& a, const Sizes& b) {
    require(a.channels == b.channels && a.height == b.height && a.width == b.width,
            "program: two tensors must have one shape");
}

// Lanes beyond the last channel hold zeros, and go through it as the others do.
cpu::Clamp Program::clamp_of(const Bounds& bounds) {
    if (!bounds) return {};
    const auto [low, high] = *bounds;
    require(low <= 0 && high >= 0, "program: a clamp at the end of a step must keep zero");
    return {.low = static_cast<float>(low), .high = static_cast<float>(high)};
}

void Program::inside(const View& v) const {
    require(v.pixel == lanes_, "program: a tensor of another instruction set");
    sizes({images_, v.channels, v.height, v.width});
    sizes({v.offset});
    for (const int64_t step : {v.image, v.block, v.row}) sizes({step});
    if (images_ * v.channels * v.height * v.width == 0) return;
    require(v.row <= arena() && v.block <= arena() && v.image <= arena() && std::max(v.height, v.width) <= arena(),
            "program: a tensor does not lie in the arena");
    const __int128 last = static_cast<__int128>(v.offset) + static_cast<__int128>(images_ - 1) * v.image +
                          static_cast<__int128>(blocks_of(v.channels, lanes_) - 1) * v.block +
                          static_cast<__int128>(v.height - 1) * v.row + static_cast<__int128>(v.width) * v.pixel;
    require(last <= arena(), "program: a tensor does not lie in the arena");
}

void Program::reads(const Tensor& x) {
    if (const View* view = std::get_if<View>(&x)) return inside(*view);
    const Images& array = std::get<Images>(x);
    require(array.lanes == lanes_, "program: a tensor of another instruction set");
    sizes({images_, array.channels, array.height, array.width});
    reads(array.array, images_ * array.channels * array.height * array.width);
}

void Program::reads(const Plain& x, int64_t count) {
    if (x.space == Plain::kOutput) {
        require(static_cast<std::size_t>(x.at) < outputs_.size() && outputs_[static_cast<std::size_t>(x.at)] >= count,
                "program: an output is read before it is written");
        return;
    }
    touches(x, count, inputs_);
}

void Program::writes(const Tensor& y) {
    if (const View* view = std::get_if<View>(&y)) return inside(*view);
    const Images& array = std::get<Images>(y);
    require(array.lanes == lanes_, "program: a tensor of another instruction set");
    sizes({images_, array.channels, array.height, array.width});
    writes(array.array, images_ * array.channels * array.height * array.width);
}

void Program::writes(const Plain& y, int64_t count) {
    require(y.space != Plain::kInput, "program: inputs are not written");
    touches(y, count, outputs_);
}

void Program::touches(const Plain& array, int64_t count, std::vector<int64_t>& outside) const {
    require(count >= 0, "program: sizes too large");
    if (array.space == Plain::kArena) {
        require(array.at <= arena() && count <= arena() - array.at, "program: an array does not lie in the arena");
        return;
    }
    require(array.at < 1024, "program: at most 1024 inputs and outputs");
    const auto index = static_cast<std::size_t>(array.at);
    if (outside.size() <= index) outside.resize(index + 1);
    outside[index] = std::max(outside[index], count);
}

}  // namespace pycnn::program
