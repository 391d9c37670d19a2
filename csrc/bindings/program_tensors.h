// What the steps of a program read and write: packed tensors and dense arrays, in the arena or outside it.
#pragma once

#include <cstdint>
#include <variant>

#include "cpu/isa.h"
#include "cpu/packed.h"
#include "cpu/program.h"

namespace pycnn::program {

using std::int64_t;

constexpr int64_t kLargest = int64_t{1} << 40;

// Floats in a vector of the instruction set in force: channels of a block.
inline int64_t lanes() {
    return cpu::kernels().vector_bytes / static_cast<int64_t>(sizeof(float));
}

inline int64_t blocks_of(int64_t channels, int64_t lanes) {
    return (channels + lanes - 1) / lanes;
}

// A packed tensor in the arena; see cpu/packed.h.
struct View {
    int64_t offset, channels, height, width, image, block, row;
    int64_t pixel = lanes();

    cpu::PackedView in(const cpu::Frame& frame) const {
        return {frame.arena + offset, channels, height, width, image, block, row, pixel, 1};
    }
};

// A dense array in C order: `at` is an offset into the arena, or the number of an input or output.
struct Plain {
    enum Space { kArena, kInput, kOutput } space;
    int64_t at;

    const float* from(const cpu::Frame& frame) const {
        return space == kArena ? frame.arena + at : space == kInput ? frame.inputs[at] : frame.outputs[at];
    }
    float* to(const cpu::Frame& frame) const { return space == kArena ? frame.arena + at : frame.outputs[at]; }
};

// An array in NCHW or channels-last, as it lies.
struct Images {
    Plain array;
    int64_t channels, height, width;
    bool channels_last;
    int64_t lanes = program::lanes();

    cpu::PackedView of(float* data) const {
        const int64_t plane = height * width;
        cpu::PackedView view = {data, channels, height, width, channels * plane, lanes * plane, width, 1, plane};
        if (channels_last) {
            view.block = lanes;
            view.row = width * channels;
            view.pixel = channels;
            view.lane = 1;
        }
        return view;
    }
    cpu::PackedView from(const cpu::Frame& frame) const { return of(const_cast<float*>(array.from(frame))); }
    cpu::PackedView to(const cpu::Frame& frame) const { return of(array.to(frame)); }
};

using Tensor = std::variant<View, Images>;

inline cpu::PackedView source(const Tensor& x, const cpu::Frame& frame) {
    const View* view = std::get_if<View>(&x);
    return view != nullptr ? view->in(frame) : std::get<Images>(x).from(frame);
}

inline cpu::PackedView target(const Tensor& y, const cpu::Frame& frame) {
    const View* view = std::get_if<View>(&y);
    return view != nullptr ? view->in(frame) : std::get<Images>(y).to(frame);
}

// Whether the pixels of a tensor consist of whole vectors of channels.
inline bool has_vectors(const Tensor& tensor) {
    const Images* images = std::get_if<Images>(&tensor);
    return images == nullptr || (images->channels_last && images->channels % images->lanes == 0);
}

// Whether Winograd's transforms can take the tensor as it lies.
inline bool has_tiles(const Tensor& tensor, bool dilated) {
    const Images* images = std::get_if<Images>(&tensor);
    return images == nullptr || (!dilated && (!images->channels_last || has_vectors(tensor)));
}

struct Sizes {
    int64_t channels, height, width;
};

inline Sizes sizes_of(const Tensor& tensor) {
    return std::visit([](const auto& of) { return Sizes{of.channels, of.height, of.width}; }, tensor);
}

}  // namespace pycnn::program
