// What the implicit-GEMM convolution kernels share: where a tap looks, and loaders that gather instead of reading
// columns.
//
// The columns of im2col, one for each pixel and with a row for each tap, are never stored.  A tap is an offset and a
// distance in rows and columns; a pixel is a corner and the row and column that tap (0, 0) of channel 0 meets:
//
//     column[tap][pixel] = image[corner of pixel + offset of tap]    where row + dh and column + dw are inside, else 0
//
// Whatever lies along gemm_k, taps (fprop, dgrad) or pixels (wgrad), is worked out once for the block, tile_k at a time
// by as many threads, some tiles ahead, and lies in a ring in shared memory; whatever lies across is worked out once.
#pragma once

#include "epilogue.cuh"
#include "gemm.cuh"
#include "places.cuh"

namespace pycnn {

// The constants of one instance of an implicit-GEMM kernel; instances.toml lists those that exist.
struct Im2colTile {
    int wide;                    // 1: 64-bit coordinates; 0: 32-bit ones
    int tile_m, tile_n, tile_k;  // of a block
    int warps, warps_m;          // in a block, and how many of them one above another
    int thread_m, thread_n;      // sums of a thread
    int stages;                  // tiles of k in shared memory
    int blocks;                  // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * 32; }
    constexpr GemmTile gemm() const { return {tile_m, tile_n, tile_k, warps, warps_m, thread_m, thread_n, stages}; }
};

// What a block works on.  Kept in shared memory, so that it takes no registers while the product is summed.
template <typename Index>
struct Im2colBlock {
    Index m0, n0;  // the first row and column of its tile
    Index group, slice;
    Index h0, w0;  // the first row and column of its parity class, and the first tap that meets them: in dgrad
    Index r0, s0;
};

// Whether the columns of a problem are the image itself.
__device__ __forceinline__ bool is_pointwise(const Conv2dShape& shape) {
    return shape.R * shape.S == 1 && shape.stride_h * shape.stride_w == 1 && shape.P == shape.H && shape.Q == shape.W;
}

// Gathers the columns of pixels side by side, their taps along k.  A thread serves one pixel, or, where the columns are
// the image itself (`vectors`: a 1x1 filter at stride 1, planes that begin at multiples of 16 bytes), four neighbours
// at a time.  `place_of(k)` is a tap's Place, worked out by this loader for the one of the other operand too.
template <int extent, int tile_k, int threads, typename Index, typename PlaceOf>
class GatherPixels {
  public:
    // `image` + `corner` is what tap (0, 0) of the first channel meets, in row h and column w, for the thread's pixel.
    __device__ __forceinline__ GatherPixels(PlaceRing<tile_k, Index>& ring, const PlaceOf& place_of, bool vectors,
                                            const float* image, int64 corner, Index h, Index w, Index H, Index W)
        : ring_(ring), place_of_(place_of), vectors_(vectors), corner_(image + corner), h_(h), w_(w), H_(H), W_(W) {}

    // The thread's (first) pixel in the tile.
    static __device__ __forceinline__ int column(bool vectors) {
        return static_cast<int>(threadIdx.x) * (vectors ? 4 : 1) % extent;
    }

    __device__ __forceinline__ void prepare(Index tile) { ring_.template prepare<threads>(tile, place_of_); }

    __device__ __forceinline__ void copy(Index tile, float (*to)[extent + 4]) {
        if (vectors_)
            copy_by<4>(tile, to);
        else
            copy_by<1>(tile, to);
    }

  private:
    static constexpr int pass = threads / extent;  // rows that all threads copy at once, a pixel each
    static_assert(threads % extent == 0 && tile_k % (4 * pass) == 0, "whole passes");

    template <int width>
    __device__ __forceinline__ void copy_by(Index tile, float (*to)[extent + 4]) {
        constexpr int copies = tile_k / (width * pass);
        const int first = static_cast<int>(threadIdx.x) * width / extent, column = this->column(width == 4);
        Index offset[copies];
        int bytes[copies];
        // All places first: reads of shared memory in between hold the copies up.
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            const Place<Index> tap = ring_.at(tile, first + i * width * pass);
            offset[i] = tap.offset;
            const bool real = inside(h_ + tap.h, H_) && (width == 4 || inside(w_ + tap.w, W_));
            bytes[i] = real ? 4 * width : 0;
        }
#pragma unroll
        for (int i = 0; i < copies; ++i)
            cp_async<4 * width>(&to[first + i * width * pass][column], corner_ + offset[i], bytes[i]);
    }

    PlaceRing<tile_k, Index>& ring_;
    const PlaceOf& place_of_;
    const bool vectors_;
    const float* corner_;
    const Index h_, w_, H_, W_;
};

// Gathers rows whose distance is fixed and whose k are found in the ring: element (row, k) at from[row*pitch + other].
// Eight neighbouring threads copy eight k of a row, which mostly are neighbours in memory, and transpose on the way.
// Where rows are neighbours (pitch 1) and come in whole aligned vectors, which the kernel has to expect and to know,
// neighbouring threads copy four neighbouring rows each.
template <int extent, int tile_k, int threads, typename Index, typename Pitch, bool expected>
class GatherRows {
  public:
    __device__ __forceinline__ GatherRows(const PlaceRing<tile_k, Index>& ring, bool vectors, const float* from,
                                          Pitch pitch, int rows)
        : ring_(ring), vectors_(expected && vectors) {
        const int thread = static_cast<int>(threadIdx.x);
        row_ = vectors_ ? thread * 4 % extent : thread / 8;
        k_ = vectors_ ? thread * 4 / extent : thread % 8;
        from_ = from + row_ * pitch;
        step_ = pass * pitch;
        rows_left_ = rows - row_;
    }

    __device__ __forceinline__ void prepare(Index) {}

    __device__ __forceinline__ void copy(Index tile, float (*to)[extent + 4]) {
        if (vectors_) {
#pragma unroll
            for (int k = 0; k < tile_k; k += vector_pass) {
                const Index other = ring_.at(tile, k_ + k).other;
                const float* from = from_ + (other < 0 ? 0 : other);  // an unread address has to be aligned, too
                cp_async<16>(&to[k_ + k][row_], from, other >= 0 && rows_left_ > 0 ? 16 : 0);
            }
            return;
        }
#pragma unroll
        for (int k = 0; k < tile_k; k += 8) {
            const Index other = ring_.at(tile, k_ + k).other;
            const float* from = from_ + other;
#pragma unroll
            for (int i = 0; i < extent; i += pass) {
                cp_async<4>(&to[k_ + k][row_ + i], from, other >= 0 && i < rows_left_ ? 4 : 0);
                from += step_;
            }
        }
    }

  private:
    static constexpr int pass = threads / 8;                  // rows that all threads copy at once
    static constexpr int vector_pass = threads * 4 / extent;  // and k, as vectors
    static_assert(extent % pass == 0 && tile_k % vector_pass == 0, "whole passes");

    const PlaceRing<tile_k, Index>& ring_;
    const bool vectors_;
    int row_, k_;  // where the thread begins
    const float* from_;
    Pitch step_;  // to its next row
    int rows_left_;
};

// Stores a tile of filters (or channels) by pixels, each pixel's neighbours of a channel in memory `plane` apart:
// place_of(pixel) is where a pixel of channel 0 of the tile goes, nowhere() where it does not exist.  A warp writes
// lanes_n neighbours at a time, as float4 where four pixels always lie together (`vectors`).
template <GemmTile G, typename PlaceOf, typename Finish>
__device__ __forceinline__ void store_pixels(float* out, const float (&sum)[G.thread_m][G.thread_n], int rows,
                                             int64 plane, bool vectors, PlaceOf place_of, Finish finish) {
    const GemmThread<G> thread;
#pragma unroll
    for (int j = 0; j < G.thread_n; j += 4) {
        const int column = thread.column + thread.column_of(j);
        int64 place[4];
        bool together = vectors;
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            place[l] = l > 0 && vectors ? place[0] + l : place_of(column + l);
            together = together && place[l] >= 0;
        }
#pragma unroll
        for (int i = 0; i < G.thread_m; ++i) {
            const int row = thread.row + thread.row_of(i);
            if (row >= rows) break;
            float value[4];
#pragma unroll
            for (int l = 0; l < 4; ++l)
                value[l] = place[l] < 0 ? 0.0f : finish(sum[i][j + l], row, place[l] + row * plane);
            if (together) {
                *reinterpret_cast<float4*>(out + place[0] + row * plane) = {value[0], value[1], value[2], value[3]};
            } else {
#pragma unroll
                for (int l = 0; l < 4; ++l)
                    if (place[l] >= 0) out[place[l] + row * plane] = value[l];
            }
        }
    }
}

}  // namespace pycnn
