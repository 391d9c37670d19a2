// Between arrays and the packed layout.  Of NCHW, squares of one vector of channels by one vector of pixels are
// transposed in registers, so that both sides are read and written in whole vectors; channels-last pixels are cut.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/masked.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/packed_tile.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

// body(row of `from`, row of `to`, channels) for every row of every block of channels.
template <typename Body>
void for_rows(int64_t images, const PackedView& from, const PackedView& to, const Body& body) {
    const int64_t blocks = ceil_div(to.channels, kBlock);
    parallel(images * blocks * to.height, images * to.channels * to.height * to.width, [&](int64_t task) {
        const int64_t row = task % to.height;
        const int64_t block = task / to.height % blocks;
        const int64_t n = task / to.height / blocks;
        body(from.data + n * from.image + block * from.block + row * from.row,
             to.data + n * to.image + block * to.block + row * to.row, least(kBlock, to.channels - block * kBlock));
    });
}

}  // namespace

void packed_pack(int64_t images, const PackedView& from, const PackedView& to) {
    for_rows(images, from, to, [&](const float* x, float* y, int64_t channels) {
        if (from.lane == 1) {
            const Lanes<float> lanes = lanes_within<float>(0, channels);
            for (int64_t q = 0; q < to.width; q++) store(y + q * kBlock, load_lanes(x + q * from.pixel, lanes));
            return;
        }
        for (int64_t q = 0; q < to.width; q += kBlock) {
            const Lanes<float> lanes = lanes_within<float>(0, to.width - q);
            Vec<float> square[kBlock];
#pragma GCC unroll 16
            for (int c = 0; c < kBlock; c++) {
                square[c] = c < channels ? load_lanes(x + c * from.lane + q, lanes) : Vec<float>{};
            }
            transpose<float>(square);
            const int64_t width = least(kBlock, to.width - q);
            for (int64_t i = 0; i < width; i++) store(y + (q + i) * kBlock, square[i]);
        }
    });
}

void packed_unpack(int64_t images, const PackedView& from, const PackedView& to) {
    for_rows(images, from, to, [&](const float* x, float* y, int64_t channels) {
        if (to.lane == 1) {
            const Lanes<float> lanes = lanes_within<float>(0, channels);
            for (int64_t q = 0; q < to.width; q++) store_lanes(y + q * to.pixel, load(x + q * kBlock), lanes);
            return;
        }
        for (int64_t q = 0; q < to.width; q += kBlock) {
            const Lanes<float> lanes = lanes_within<float>(0, to.width - q);
            const int64_t width = least(kBlock, to.width - q);
            Vec<float> square[kBlock];
#pragma GCC unroll 16
            for (int i = 0; i < kBlock; i++) square[i] = i < width ? load(x + (q + i) * kBlock) : Vec<float>{};
            transpose<float>(square);
            for (int64_t c = 0; c < channels; c++) store_lanes(y + c * to.lane + q, square[c], lanes);
        }
    });
}

void packed_clear(int64_t images, const PackedView& x) {
    const int64_t blocks = ceil_div(x.channels, kBlock);
    parallel(images * blocks, images * x.channels * x.height * x.width, [&](int64_t task) {
        float* plane = x.data + task / blocks * x.image + task % blocks * x.block;
        for (int64_t h = 0; h < x.height; h++) fill(plane + h * x.row, 0.0f, x.width * kBlock);
    });
}

void packed_rows(int64_t rows, int64_t columns, const float* from, float* to) {
    parallel(ceil_div(rows, kBlock), rows * columns, [&](int64_t block) {
        const int64_t height = least(kBlock, rows - block * kBlock);
        float* at = to + block * columns * kBlock;
        if (height < kBlock) fill(at, 0.0f, columns * kBlock);
        copy_transposed(from + block * kBlock * columns, columns, height, columns, at, kBlock);
    });
}

void packed_filters(int64_t K, int64_t C, int64_t taps, const float* from, float* to) {
    if (taps == 1 && (C % kBlock == 0 || C < kBlock)) return packed_rows(K, C, from, to);
    const int64_t blocks = ceil_div(C, kBlock);
    const int64_t depth = least(kBlock, C);
    parallel(ceil_div(K, kBlock) * blocks, K * C * taps, [&](int64_t task) {
        const int64_t k = task / blocks * kBlock;
        const int64_t c = task % blocks * kBlock;
        const int64_t filters = least(kBlock, K - k);
        const int64_t channels = least(kBlock, C - c);
        const Scratch<float> turned(static_cast<std::size_t>(channels * taps * kBlock));
        if (filters < kBlock) fill(turned.get(), 0.0f, channels * taps * kBlock);
        copy_transposed(from + (k * C + c) * taps, C * taps, filters, channels * taps, turned.get(), kBlock);
        float* at = to + task * taps * depth * kBlock;
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t i = 0; i < depth; i++, at += kBlock) {
                store(at, i < channels ? load(turned.get() + (i * taps + tap) * kBlock) : Vec<float>{});
            }
        }
    });
}

void packed_turned_filters(int64_t K, int64_t C, int64_t taps, const float* from, const int64_t* place,
                           const int64_t* output, const int64_t* input, float* to) {
    const int64_t blocks = ceil_div(C, kBlock);
    const int64_t depth = least(kBlock, K);
    parallel(blocks * ceil_div(K, kBlock), K * C * taps, [&](int64_t task) {
        const int64_t block = task % blocks;
        const int64_t group = task / blocks;
        const int64_t channels = least(kBlock, C - block * kBlock);
        if (taps == 1) {  // the channels lie side by side
            const Lanes<float> lanes = lanes_within<float>(0, channels);
            for (int64_t i = 0; i < depth; i++) {
                const int64_t k = group * kBlock + i;
                const float* filter = from + k * C + block * kBlock;
                store(to + place[0] + block * output[0] + group * input[0] + i * kBlock,
                      k < K ? load_lanes(filter, lanes) : Vec<float>{});
            }
            return;
        }
        const Scratch<float> turned(static_cast<std::size_t>(taps * kBlock));
        if (channels < kBlock) fill(turned.get(), 0.0f, taps * kBlock);
        for (int64_t i = 0; i < depth; i++) {
            const int64_t k = group * kBlock + i;
            if (k < K) {
                copy_transposed(from + (k * C + block * kBlock) * taps, taps, channels, taps, turned.get(), kBlock);
            }
            for (int64_t tap = 0; tap < taps; tap++) {
                store(to + place[tap] + block * output[tap] + group * input[tap] + i * kBlock,
                      k < K ? load(turned.get() + tap * kBlock) : Vec<float>{});
            }
        }
    });
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
