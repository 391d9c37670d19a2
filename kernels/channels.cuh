// Arrays (N, C, L) seen by channel: the walk over one channel's elements that reductions take, and the channel of every
// element of a stretch, for maps.  L is the product of the trailing axes.
//
// A reduction cuts each channel into slices, so many samples by so many columns; their number is a function of the
// shape.  Two layouts:
//
//   planes (L > 1)   a block owns a slice of one channel.  Its threads are `across` columns, the power of two that
//                    covers L, by threads / across samples:
//
//                        l ->  | thread 0 | 1 | 2 | ...     (four or eight columns each where 128 bits may be)
//                      n       | thread `across` | ...
//                      |
//                      v
//
//   columns (L = 1)  neighbours in memory are neighbouring channels: a block owns a slice of 32 channels, lane l of
//                    each warp channel l, warp w the samples w, w + warps, ...
//
// Either way a thread asks for several accesses, `ahead`, before it uses the first.
#pragma once

#include "reduce.cuh"
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ChannelTile {
    int type;     // of the arrays, as StorageOf has it
    int columns;  // 1: L = 1
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
    constexpr RowLayout layout() const { return columns ? RowLayout{32, warps} : RowLayout{1, warps * 32}; }
};

// How the channels are cut.  Passed by value; pycnn/backends/cuda/reduce.py packs the same fields in the same order.
struct ChannelSlices {
    int64 N, C, L;
    int64 samples, columns;  // of a slice
    int64 column_slices;     // slices side by side; slice = sample_slice * column_slices + column_slice
    int64 across;            // threads side by side
};

// A slice: samples [n, n_end), columns [l, l_end).
struct ChannelSlice {
    int64 n, n_end, l, l_end;
};

__device__ __forceinline__ ChannelSlice slice_of(const ChannelSlices& s, int number) {
    const int of_samples = number / static_cast<int>(s.column_slices);
    const int of_columns = number - of_samples * static_cast<int>(s.column_slices);
    const int64 n = of_samples * s.samples, l = of_columns * s.columns;
    return {n, n + s.samples < s.N ? n + s.samples : s.N, l, l + s.columns < s.L ? l + s.columns : s.L};
}

// The channel that the calling thread reduces, below C or past it.
template <ChannelTile T>
__device__ __forceinline__ int64 reduced_channel() {
    const int64 tile = static_cast<int64>(blockIdx.z) * gridDim.x + blockIdx.x;
    return T.columns ? tile * 32 + threadIdx.x % 32 : tile;
}

// Accesses of `width` elements that a thread asks for before it uses the first.
__device__ constexpr int ahead(int width) {
    return width == 1 ? 8 : 16 / width;
}

// What a thread visits at once: values[0 .. count) of each array; the others are zero.
template <int arrays, int width>
struct Visited {
    float value[arrays][ahead(width) * width];
    int count;
};

// visit(Visited) for the calling thread's share of its block's slice of `channel`, `width` columns at a time: along the
// columns of a sample, then on in the next of its samples.
template <ChannelTile T, int arrays, int width, typename Visit>
__device__ __forceinline__ void walk(const ChannelSlices& s, int64 channel, const Stored<T>* const (&from)[arrays],
                                     const Visit& visit) {
    const ChannelSlice slice = slice_of(s, static_cast<int>(blockIdx.y));
    const int thread = static_cast<int>(threadIdx.x);
    const int across = T.columns ? 32 : static_cast<int>(s.across), down = T.threads() / across;
    const int64 first = T.columns ? 0 : slice.l + thread % across * width;
    const int64 end = T.columns ? 1 : slice.l_end;
    const int64 sample = s.C * s.L;  // elements from one sample to the next
    int64 n = slice.n + thread / across, l = first;
    if (first >= end) return;
#pragma unroll 1
    while (n < slice.n_end) {
        Visited<arrays, width> visited;
        visited.count = 0;
#pragma unroll
        for (int i = 0; i < ahead(width) * width; i += width) {
            const bool exists = n < slice.n_end;
            const int64 place = n * sample + channel * s.L + l;
#pragma unroll
            for (int a = 0; a < arrays; ++a) {
                float part[width] = {};
                if (exists) read_vector(from[a] + place, part);
#pragma unroll
                for (int v = 0; v < width; ++v) visited.value[a][i + v] = part[v];
            }
            if (exists) visited.count += width;
            l += across * width;
            if (l >= end) {
                l = first;
                n += down;
            }
        }
        visit(visited);
    }
}

// The walk by 128-bit accesses where they may be: planes that are whole vectors, arrays that begin at multiples of 16
// bytes.  In 16 bits planes of four, such as 14 x 14, go by 64.  The order of a sum is that of the walk, so a view that
// starts between vectors may round otherwise than a copy of it.
template <ChannelTile T, int arrays, typename Visit>
__device__ __forceinline__ void walk_channel(const ChannelSlices& s, int64 channel,
                                             const Stored<T>* const (&from)[arrays], const Visit& visit) {
    constexpr int width = vector_width<Stored<T>>();
    bool vectors = !T.columns && s.L % 4 == 0;
    for (int a = 0; a < arrays; ++a) vectors = vectors && aligned16(from[a]);
    if (vectors && s.L % width == 0) {
        walk<T, arrays, width>(s, channel, from, visit);
    } else if (width > 4 && vectors) {
        walk<T, arrays, 4>(s, channel, from, visit);
    } else {
        walk<T, arrays, 1>(s, channel, from, visit);
    }
}

// Where a partial result of the calling thread's channel goes: partial[slice][C]; only row 0 of the layout writes.
template <ChannelTile T>
__device__ __forceinline__ bool writes_partial() {
    return threadIdx.x < (T.columns ? 32u : 1u);
}

// ---------------------------------------------------------------------------------------------------------------------
// Maps

// The constants of one instance; instances.toml lists those that exist.
struct ChannelMapTile {
    int type;     // of the large arrays, as StorageOf has it
    int wide;     // 1: 64-bit indices; 0: 32-bit ones
    int finish;   // 1: a residual and a ReLU may follow
    int vectors;  // of 128 bits, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

// An array by its size and the axes that say which channel an element is in.
struct ChannelGrid {
    int64 size;
    Divisor C, L;
};

// The channel of an element, and of those that follow it one by one.
template <int wide>
struct ChannelCursor {
    using Index = typename IndexOf<wide>::type;
    Index channel, column;

    __device__ __forceinline__ ChannelCursor(int64 place, const ChannelGrid& grid) {
        Index rest = static_cast<Index>(place);
        column = take_digit(rest, grid.L);
        channel = take_digit(rest, grid.C);
    }

    // To the next element; whether that is in another channel.
    __device__ __forceinline__ bool advance(const ChannelGrid& grid) {
        if (++column < static_cast<Index>(grid.L.value)) return false;
        column = 0;
        if (++channel == static_cast<Index>(grid.C.value)) channel = 0;
        return true;
    }
};

}  // namespace pycnn
