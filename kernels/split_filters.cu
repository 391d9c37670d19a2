// split_filters: filters in two parts of 11 bits each, for products on tensor cores with float32's accuracy.
//
//     halves = 0    high = tf32(w),     low = tf32(w - high)              two arrays of float32
//     halves = 1    high = float16(w),  low = float16(2^11 (w - high))    one of words, high below low
//
// All are rounded to nearest; what is left out is at most 2^-22 |w|.  What has no low part, infinities for one, is all
// high: see split_tf32 and split_float16.  They are written in the order in which the products read them, rows padded
// with zeros to whole chunks of 16 bytes:
//
//     inner = 1     out[part][k][r][s][c]      c < channels, padded to `pitch`       channels-last, and every dgrad
//     inner = 0     out[part][k][c][r][s]      padded to `pitch` a filter
//
// Who owns what   thread i of the grid owns element i of each part; a block owns warps * 32 neighbours.
// Launch          one thread for each element of a part; past 2^31 - 1 blocks the grid goes on along y.
// Shared          none.
// Determinism     nothing is summed.
// Limit           bandwidth: 12 bytes an element; once a call, for filters that NPQ / tile rows then read.
// Reference       Ootomo & Yokota, "Recovering single precision accuracy from tensor cores while surpassing the FP32
//                 theoretical peak performance", IJHPCA 36(4), 2022, equations 3 and 4.
#include "tensor_gemm.cuh"

namespace pycnn {

struct SplitTile {
    int warps;  // of a block

    constexpr int threads() const { return warps * 32; }
};

struct SplitFilters {
    int64 size;                            // of a part
    int64 pitch, inner, halves;            // see above
    int64 channels, R, S;                  // of a filter
    int64 from_k, from_c, from_r, from_s;  // distances in w
};

template <SplitTile T>
__global__ void __launch_bounds__(T.threads())
    split_filters(const SplitFilters filters, const float* __restrict__ w, float* __restrict__ out) {
    const int64 block = static_cast<int64>(blockIdx.y) * gridDim.x + blockIdx.x;
    const int64 i = block * T.threads() + threadIdx.x;
    if (i >= filters.size) return;
    const int64 column = i % filters.pitch, row = i / filters.pitch, taps = filters.R * filters.S;
    const int64 k = filters.inner ? row / taps : row;
    const int64 c = filters.inner ? column : column / taps, tap = filters.inner ? row % taps : column % taps;
    uint32 high = 0, low = 0;
    if (c < filters.channels) {
        const int64 at = k * filters.from_k + c * filters.from_c + tap / filters.S * filters.from_r +
                         tap % filters.S * filters.from_s;
        high = static_cast<uint32>(__float_as_int(w[at]));
        if (filters.halves) {
            split_float16(high, low, high, 0u);
            high |= low << 16;
        } else {
            split_tf32(high, low);
        }
    }
    out[i] = __int_as_float(static_cast<int>(high));
    if (!filters.halves) out[filters.size + i] = __int_as_float(static_cast<int>(low));
}

}  // namespace pycnn
