// What the convolution kernels on tensor cores share: how operands come, and how results go out.
//
// Arrays lie in memory as they like: every one comes with its strides.  They are read in one of two ways, by a tile's
// `vectors`:
//
//     1   channels-last: neighbouring channels are neighbours in memory, eight (of 32 bits four) are a chunk of 16 bytes
//         that begins at a multiple of it.  A chunk is one pixel at one tap, copied at once by cp.async.  What lies
//         along k is counted in the order (r, s, c), by chunks.
//     0   any strides (NCHW): the elements of a chunk are read one by one, by way of registers where they have 16 bits,
//         and neighbouring threads serve neighbouring pixels.  The order along k is (c, r, s).
//
// Results: a warp's sums pass through shared memory, 16 rows at a time, so that neighbouring threads store what lies
// side by side, by 16 bytes where that is possible.
//
// The filters of a split product (3xtf32, 3xfp16) have been split by split_filters, in the order in which they are read.
#pragma once

#include "epilogue.cuh"
#include "places.cuh"
#include "tensor_gemm.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct TensorConvTile {
    int arithmetic;              // see tensor_gemm.cuh
    int vectors;                 // 1: channels-last, 16 bytes at a time; 0: any strides
    int wide;                    // 1: 64-bit coordinates and offsets; 0: 32-bit ones
    int tile_m, tile_n, tile_k;  // of a block
    int warps, warps_m;          // in a block, and how many of them one above another
    int stages;                  // tiles of k in shared memory
    int blocks;                  // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * 32; }
    constexpr TensorTile gemm() const { return {arithmetic, tile_m, tile_n, tile_k, warps, warps_m, stages}; }
};

template <TensorConvTile T>
using ElementOf = typename Arithmetic<T.arithmetic>::Element;
template <TensorConvTile T>
using TensorIndex = typename IndexOf<T.wide>::type;

// One type or the other.
template <int first, typename First, typename Second>
struct Either {
    using type = First;
};
template <typename First, typename Second>
struct Either<0, First, Second> {
    using type = Second;
};

// Distances in elements: between images (of filters: filters), channels, rows and columns.
struct Strides {
    int64 n, c, h, w;
};

// How a block index and the coordinates of a product fall apart, and where the arrays have what.
struct TensorGrid {
    int64 k_slice;                             // of gemm_k, in one slice: a multiple of tile_k
    int64 slice;                               // elements of a slice of the result
    Divisor tiles_c, tiles_p, groups;          // of the block index: of channels (or filters), of pixels (or taps)
    Divisor classes_w, classes_h;              // and of it: parity classes, in dgrad
    Divisor pixels, columns;                   // of a pixel: n*pixels + i*columns + j
    Divisor channels, taps_w, taps_h;          // of a tap, in the order that `vectors` says
    Divisor step_w, step_h;                    // between the taps of a parity class
    Strides image, filters, gradient, result;  // x or dy; w; dy of wgrad; y, dx or dw
    int64 part;                                // from the high parts of the filters to the low parts
    int64 chunks;                              // whether the filters' chunks are contiguous and whole
    int64 way;                                 // that results may go out: see Way
};

// ---------------------------------------------------------------------------------------------------------------------
// Operands

enum Access {
    kVectors,   // chunks of 16 bytes: a thread serves one column of chunks
    kElements,  // one by one: a thread serves one row
    kAtOnce     // one by one, and no sooner than they are needed: a thread serves one column of chunks
};

// Brings one operand's tiles.  where(tile, row, column) is where an element of the tile lies, counted from `from`, or
// negative where there is none and it is zero; of a chunk the first is asked for.
template <Access access, typename Tile, int parts, int threads, typename Index, typename Where>
class Loader {
    using Element = typename Tile::Type;

  public:
    // `part` is the distance between the parts of an operand that came split.
    __device__ __forceinline__ Loader(const Element* from, const Where& where, int64 part = 0)
        : from_(from), where_(where), part_(part) {}

    __device__ __forceinline__ void fetch(Index tile, Tile (&to)[parts]) {
        if constexpr (access == kElements)
            fetch_elements(tile, to);
        else
            fetch_chunks(tile, to);
    }

    __device__ __forceinline__ void deposit(Tile (&to)[parts]) {
        if constexpr (access == kElements && sizeof(Element) == 2) {
            const int row = static_cast<int>(threadIdx.x) % Tile::rows;
#pragma unroll
            for (int i = 0; i < held; ++i)
                store_chunk(to[0].at(row, static_cast<int>(threadIdx.x) / Tile::rows + i * columns_at_once), held_[i]);
        }
    }

  private:
    // kElements: threads side by side serve rows side by side.
    static constexpr int columns_at_once = access == kElements ? threads / Tile::rows : 1;
    static constexpr int held = access == kElements ? Tile::columns / columns_at_once : 1;
    // Otherwise they serve the chunks of a row, and this many rows.
    static constexpr int rows_at_once = access == kElements ? 1 : threads / Tile::columns;
    static_assert(access == kElements ? threads % Tile::rows == 0 && Tile::columns % columns_at_once == 0
                                      : threads % Tile::columns == 0 && Tile::rows % rows_at_once == 0,
                  "whole passes");

    __device__ __forceinline__ void fetch_elements(Index tile, Tile (&to)[parts]) {
        const int row = static_cast<int>(threadIdx.x) % Tile::rows;
#pragma unroll
        for (int i = 0; i < held; ++i) {
            const int column = static_cast<int>(threadIdx.x) / Tile::rows + i * columns_at_once;
#pragma unroll
            for (int j = 0; j < Tile::chunk; ++j) {
                const Index at = where_(tile, row, column * Tile::chunk + j);
                if constexpr (sizeof(Element) == 4)
                    cp_async<4>(to[0].at(row, column) + j, from_ + (at < 0 ? 0 : at), at < 0 ? 0 : 4);
                else
                    held_[i][j] = at < 0 ? 0 : from_[at].bits;
            }
        }
    }

    __device__ __forceinline__ void fetch_chunks(Index tile, Tile (&to)[parts]) {
        const int column = static_cast<int>(threadIdx.x) % Tile::columns;
#pragma unroll
        for (int i = 0; i < Tile::rows; i += rows_at_once) {
            const int row = static_cast<int>(threadIdx.x) / Tile::columns + i;
            if constexpr (access == kVectors) {
                const Index at = where_(tile, row, column * Tile::chunk);
#pragma unroll
                for (int part = 0; part < parts; ++part)
                    cp_async<16>(to[part].at(row, column), from_ + (at < 0 ? 0 : at + part * part_), at < 0 ? 0 : 16);
            } else {
                unsigned short bits[Tile::chunk];
#pragma unroll
                for (int j = 0; j < Tile::chunk; ++j) {
                    const Index at = where_(tile, row, column * Tile::chunk + j);
                    if constexpr (sizeof(Element) == 4)
                        cp_async<4>(to[0].at(row, column) + j, from_ + (at < 0 ? 0 : at), at < 0 ? 0 : 4);
                    else
                        bits[j] = at < 0 ? 0 : from_[at].bits;
                }
                if constexpr (sizeof(Element) == 2) store_chunk(to[0].at(row, column), bits);
            }
        }
    }

    template <int count>
    static __device__ __forceinline__ void store_chunk(Element* to, const unsigned short (&bits)[count]) {
        static_assert(count == 8 || sizeof(Element) == 4);
        int word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            word[i] = static_cast<int>(bits[2 * i] | static_cast<uint32>(bits[2 * i + 1]) << 16);
        *reinterpret_cast<int4*>(to) = {word[0], word[1], word[2], word[3]};
    }

    const Element* from_;
    const Where& where_;
    const int64 part_;
    unsigned short held_[held][Tile::chunk];
};

// A pixel across: the corner that tap (0, 0) meets, its row and column, and where its result goes (negative: nowhere).
template <typename Index>
struct alignas(16) Pixel {
    Index offset, h, w, result;
};

// What a block shares that multiplies pixels, which lie along k, and filters, which lie along k or across.
template <TensorConvTile T, bool along_k>
struct alignas(128) FiltersShared {
    static constexpr int pixels = T.vectors ? T.tile_m : T.tile_n;
    static constexpr int others = T.vectors ? T.tile_n : T.tile_m;  // filters, or channels in dgrad
    static constexpr int parts = T.arithmetic == 4 ? 2 : 1;         // of the filters, as split_filters leaves them
    using PixelTile = OperandTile<ElementOf<T>, pixels, T.tile_k, true>;
    using FilterTile = OperandTile<ElementOf<T>, others, T.tile_k, along_k, Arithmetic<T.arithmetic>::split>;
    static constexpr int step = T.vectors ? PixelTile::chunk : 1;  // taps of a place in the ring

    typename Either<T.vectors, TensorStages<T.gemm(), PixelTile, 1, FilterTile, parts>,
                    TensorStages<T.gemm(), FilterTile, parts, PixelTile, 1>>::type stages;
    PlaceRing<T.tile_k / step, TensorIndex<T>> ring;
    Pixel<TensorIndex<T>> pixel[pixels];
};

// Adds up the products of pixels and filters.  The filters come by chunks, or, where they do not lie in chunks, one by
// one, which nobody waits for in the loop of those that do.
template <TensorConvTile T, typename Shared, typename Index, typename Pixels, typename Where, typename Prepare>
__device__ __forceinline__ void multiply_filters(TensorSums<T.gemm()>& sums, Shared& shared, Index tiles,
                                                 Pixels& load_pixels, const ElementOf<T>* w, const Where& where_w,
                                                 const TensorGrid& grid, const Prepare& prepare) {
    using Tile = typename Shared::FilterTile;
    const auto multiply = [&](auto load_w) {
        if constexpr (T.vectors)
            tensor_mainloop<T.gemm()>(sums, shared.stages, tiles, load_pixels, load_w, prepare);
        else
            tensor_mainloop<T.gemm()>(sums, shared.stages, tiles, load_w, load_pixels, prepare);
    };
    if (Tile::is_split || (grid.chunks != 0 && aligned16(w)))
        multiply(Loader<kVectors, Tile, Shared::parts, T.threads(), Index, Where>(w, where_w, grid.part));
    else if constexpr (!Tile::is_split)
        multiply(Loader<kAtOnce, Tile, 1, T.threads(), Index, Where>(w, where_w));
}

// ---------------------------------------------------------------------------------------------------------------------
// Results

enum Way {
    kByRows,     // neighbouring rows of the product lie side by side in memory
    kByColumns,  // neighbouring columns do
    kByChunks    // and come in whole eights, each at a multiple of 16 bytes
};

// How a product's results go out.
template <typename Element>
struct TensorResult {
    Element* out;
    float* partial;  // instead of it, where gemm_k is split
    Way way;

    // `way` is what the strides allow.
    __device__ __forceinline__ TensorResult(Element* out, float* partial, int64 slice, int64 way)
        : out(out), partial(partial == nullptr ? nullptr : partial + slice), way(static_cast<Way>(way)) {
        if (this->way == kByChunks && !aligned16(out)) this->way = kByColumns;
    }

    template <typename Index>
    __device__ __forceinline__ void store(Index place, float value) const {
        if (partial != nullptr)
            partial[place] = value;
        else
            out[place] = from_float<Element>(value);
    }
    template <typename Index>
    __device__ __forceinline__ void store_chunk(Index place, const float (&v)[8]) const {
        if (partial != nullptr || sizeof(Element) == 4) {
            float* to = partial != nullptr ? partial + place : reinterpret_cast<float*>(out + place);
            *reinterpret_cast<float4*>(to) = {v[0], v[1], v[2], v[3]};
            *reinterpret_cast<float4*>(to + 4) = {v[4], v[5], v[6], v[7]};
        } else if constexpr (sizeof(Element) == 2) {
            int word[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) word[i] = static_cast<int>(pack<Element>(v[2 * i], v[2 * i + 1]));
            *reinterpret_cast<int4*>(out + place) = {word[0], word[1], word[2], word[3]};
        }
    }
};

// Stores a block's sums.  row_place(m) + column_place(n) is where a result goes, unless one of them is negative;
// finish(sum, m, n, place) is its value.  `memory` is shared, and free.
template <TensorTile T, typename Element, typename RowPlace, typename ColumnPlace, typename Finish>
__device__ __forceinline__ void store_sums(const TensorSums<T>& sums, void* memory, const TensorResult<Element>& result,
                                           const RowPlace& row_place, const ColumnPlace& column_place,
                                           const Finish& finish) {
    constexpr int columns = T.warp_n(), pitch = columns + 8;  // 8 (mod 32): four rows of a fragment in different banks
    struct Strip {
        float value[16][pitch];
    };
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int n0 = warp / T.warps_m * T.warp_n();
    Strip& strip = static_cast<Strip*>(memory)[warp];
    const auto store = [&](int m, int n, float sum) {
        const auto row = row_place(m), column = column_place(n);
        if (row >= 0 && column >= 0) result.store(row + column, finish(sum, m, n, row + column));
    };
#pragma unroll
    for (int i = 0; i < TensorSums<T>::fragments_m; ++i) {
        const int m0 = warp % T.warps_m * T.warp_m() + 16 * i;
#pragma unroll
        for (int j = 0; j < TensorSums<T>::fragments_n; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float* pair = &strip.value[lane / 4 + 8 * half][8 * j + lane % 4 * 2];
                *reinterpret_cast<float2*>(pair) = {sums.value[i][j][2 * half], sums.value[i][j][2 * half + 1]};
            }
        __syncwarp();
        if (result.way == kByChunks) {
#pragma unroll 1
            for (int chunk = lane; chunk < 2 * columns; chunk += 32) {
                const int m = m0 + chunk / (columns / 8), n = chunk % (columns / 8) * 8;
                const float* sum = &strip.value[m - m0][n];
                const auto row = row_place(m), column = column_place(n0 + n);
                if (row < 0 || column < 0) continue;
                float value[8];
#pragma unroll
                for (int l = 0; l < 8; ++l) value[l] = finish(sum[l], m, n0 + n + l, row + column + l);
                result.store_chunk(row + column, value);
            }
        } else if (result.way == kByColumns) {
#pragma unroll 1
            for (int l = lane; l < 16 * columns; l += 32)
                store(m0 + l / columns, n0 + l % columns, strip.value[l / columns][l % columns]);
        } else {
#pragma unroll 1
            for (int n = lane / 16; n < columns; n += 2) store(m0 + lane % 16, n0 + n, strip.value[lane % 16][n]);
        }
        __syncwarp();
    }
}

}  // namespace pycnn
