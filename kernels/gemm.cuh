// The heart of every matrix product here: a block's tile of the result, summed in registers from tiles in shared
// memory.
//
//     sum[m][n] = sum over k of a(m, k) * b(k, n)        m < tile_m, n < tile_n, k in ascending order
//
// What a and b are is up to two loaders: matrices (sgemm.cu), or filters and the columns that an image would be
// unrolled into (conv2d_*_im2col.cu).  A loader brings tile_k values of k at a time into shared memory, k by k, tile_m
// or tile_n neighbours side by side.  It has
//
//     prepare(tile)     optional work for a tile of k, at least one barrier before
//     copy(tile, to)    the tile's copies, by cp.async; zero past every edge.  Tiles come in ascending order
//
// Who owns what (tile 128 x 128, 8 warps as 2 x 4, 8 x 8 sums a thread):
//
//        tile_n = 128                       one warp's 64 x 32 in eight by four lanes; a lane owns four quarters of
//      +-----+-----+-----+-----+            4 x 4, so that neighbouring lanes read neighbouring float4
//      |     |     |     |     |  64            0..15  16..31
//      | w0  | w2  | w4  | w6  |              +------+------+
//      +-----+-----+-----+-----+         0..31| lane |      |
//      | w1  | w3  | w5  | w7  |              +------+------+
//      |     |     |     |     |              |      |      |
//      +-----+-----+-----+-----+              +------+------+
//
// Pipeline    `stages` tiles of k in shared memory: stages - 1 are on their way while one is used.  One barrier a tile.
// Banks       A float4 of a is read by the lanes of a row of lanes together, and the rows' lie side by side: no
//             conflict; b alike.  A copy along k writes tile rows `pitch` = 4 (mod 32) apart: 8 k times 4 rows are 32
//             banks.
// Multiplies  thread_m * thread_n FMAs for (thread_m + thread_n) / 4 shared loads of 128 bits: 64 for 4.
// Reference   Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008; Nath, Tomov & Dongarra, "An
//             improved MAGMA GEMM for Fermi GPUs", 2010; the order of lanes is that of CUTLASS's SIMT kernels.
#pragma once

#include "arch/cp_async.cuh"
#include "common.cuh"

namespace pycnn {

struct GemmTile {
    int tile_m, tile_n, tile_k;  // of a block
    int warps, warps_m;          // in a block, and how many of them one above another
    int thread_m, thread_n;      // sums of a thread, multiples of 4
    int stages;                  // tiles of k in shared memory

    constexpr int threads() const { return warps * 32; }
    constexpr int warp_m() const { return tile_m / warps_m; }
    constexpr int warp_n() const { return tile_n * warps_m / warps; }
    constexpr int lanes_m() const { return warp_m() / thread_m; }
    constexpr int lanes_n() const { return warp_n() / thread_n; }
    constexpr int pitch_m() const { return tile_m + 4; }
    constexpr int pitch_n() const { return tile_n + 4; }
    constexpr bool sound() const {
        return lanes_m() * lanes_n() == 32 && tile_m == warps_m * lanes_m() * thread_m && tile_k % 8 == 0 &&
               thread_m % 4 == 0 && thread_n % 4 == 0 && pitch_m() % 32 == 4 && pitch_n() % 32 == 4 && stages >= 2;
    }
};

template <GemmTile T>
struct alignas(16) GemmShared {
    float a[T.stages][T.tile_k][T.pitch_m()];
    float b[T.stages][T.tile_k][T.pitch_n()];
};

// Where a thread's sums lie in the tile.
template <GemmTile T>
struct GemmThread {
    int row, column;  // of its first sum

    __device__ __forceinline__ GemmThread() {
        const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
        row = warp % T.warps_m * T.warp_m() + lane / T.lanes_n() * 4;
        column = warp / T.warps_m * T.warp_n() + lane % T.lanes_n() * 4;
    }
    // Rows and columns of sum[i][j], relative to the first.
    static constexpr __device__ int row_of(int i) { return i / 4 * 4 * T.lanes_m() + i % 4; }
    static constexpr __device__ int column_of(int j) { return j / 4 * 4 * T.lanes_n() + j % 4; }
};

// What mainloop() does with each tile of a beside multiplying: nothing.
struct NoWatch {
    __device__ __forceinline__ void operator()(const float*) const {}
};

// Adds up `tiles` tiles of k.  watch(&shared.a[...][0][0]) sees each of them, in order, while it is in shared memory.
template <GemmTile T, typename Index, typename LoadA, typename LoadB, typename Watch>
__device__ __forceinline__ void gemm_mainloop(GemmShared<T>& shared, Index tiles, LoadA& a, LoadB& b,
                                              float (&sum)[T.thread_m][T.thread_n], Watch watch) {
    static_assert(T.sound(), "the tile does not fall apart into warps, lanes and float4");
    const GemmThread<T> thread;
#pragma unroll
    for (int stage = 0; stage < T.stages; ++stage) {
        a.prepare(stage);
        b.prepare(stage);
    }
    __syncthreads();
#pragma unroll
    for (int stage = 0; stage < T.stages - 1; ++stage) {
        if (stage < tiles) {
            a.copy(stage, shared.a[stage]);
            b.copy(stage, shared.b[stage]);
        }
        cp_async_commit();
    }

    int used = 0, filled = T.stages - 1;  // stages
#pragma unroll 1
    for (Index tile = 0; tile < tiles; ++tile) {
        cp_async_wait<T.stages - 2>();
        __syncthreads();  // everyone's copies of this tile are there, and nobody uses the tile before it any more
        if (tile + T.stages - 1 < tiles) {
            a.copy(tile + T.stages - 1, shared.a[filled]);
            b.copy(tile + T.stages - 1, shared.b[filled]);
        }
        cp_async_commit();
        a.prepare(tile + T.stages);
        b.prepare(tile + T.stages);

#pragma unroll
        for (int k = 0; k < T.tile_k; ++k) {
            float rows[T.thread_m], columns[T.thread_n];
#pragma unroll
            for (int i = 0; i < T.thread_m; i += 4)
                *reinterpret_cast<float4*>(&rows[i]) =
                    *reinterpret_cast<const float4*>(&shared.a[used][k][thread.row + thread.row_of(i)]);
#pragma unroll
            for (int j = 0; j < T.thread_n; j += 4)
                *reinterpret_cast<float4*>(&columns[j]) =
                    *reinterpret_cast<const float4*>(&shared.b[used][k][thread.column + thread.column_of(j)]);
#pragma unroll
            for (int i = 0; i < T.thread_m; ++i)
#pragma unroll
                for (int j = 0; j < T.thread_n; ++j) sum[i][j] = fmaf(rows[i], columns[j], sum[i][j]);
        }
        watch(&shared.a[used][0][0]);
        used = used + 1 == T.stages ? 0 : used + 1;
        filled = filled + 1 == T.stages ? 0 : filled + 1;
    }
}

// Stores four neighbours of a row of the result, of which `real` exist: at once where they are aligned.
__device__ __forceinline__ void store_neighbours(float* out, const float (&value)[4], int real, bool vectors) {
    if (vectors && real >= 4) {
        *reinterpret_cast<float4*>(out) = {value[0], value[1], value[2], value[3]};
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (i < real) out[i] = value[i];
    }
}

// Whether every address `out` + a multiple of `distance` (in floats) is one that a float4 may have.
__device__ __forceinline__ bool takes_vectors(const float* out, int64 distance) {
    return (reinterpret_cast<unsigned long long>(out) | static_cast<unsigned long long>(distance * 4)) % 16 == 0;
}

// How many of `size` are left from `first` on, as far as a tile cares.
template <typename Index>
__device__ __forceinline__ int tile_left(Index size, Index first) {
    const Index left = size - first;
    return left > 4096 ? 4096 : static_cast<int>(left);
}

// ---------------------------------------------------------------------------------------------------------------------
// Loaders of matrices

// A matrix whose k lie side by side: element (row, k) at from[row * pitch + k].  Eight neighbouring threads copy eight
// k of a row (one sector), transposing on the way, so 4 bytes at a time; `rows` of the tile are real, and `ks` of k.
template <int extent, int tile_k, int threads, typename Index = int>
class AlongK {
  public:
    __device__ __forceinline__ AlongK(const float* from, int64 pitch, int rows, Index ks)
        : row_(static_cast<int>(threadIdx.x) / 8), k_(static_cast<int>(threadIdx.x) % 8) {
        from_ = from + row_ * pitch + k_;
        step_ = pass * pitch;
        rows_left_ = rows - row_;
        ks_left_ = ks - k_;
    }

    __device__ __forceinline__ void prepare(Index) {}

    __device__ __forceinline__ void copy(Index, float (*to)[extent + 4]) {
        const float* from = from_;
#pragma unroll
        for (int i = 0; i < extent; i += pass) {
#pragma unroll
            for (int k = 0; k < tile_k; k += 8)
                cp_async<4>(&to[k_ + k][row_ + i], from + k, i < rows_left_ && k < ks_left_ ? 4 : 0);
            from += step_;
        }
        from_ += tile_k;
        ks_left_ -= tile_k;
    }

  private:
    static constexpr int pass = threads / 8;  // rows that all threads copy at once
    static_assert(extent % pass == 0, "the tile's rows fall apart into whole passes");

    const int row_, k_;  // where the thread begins
    const float* from_;
    int64 step_;
    int rows_left_;
    Index ks_left_;  // from there
};

// A matrix whose k lie below one another: element (column, k) at from[k * pitch + column].  Copied 16 bytes at a time
// where every row begins at a multiple of 16 bytes, else 4.
template <int extent, int tile_k, int threads, typename Index = int>
class AcrossK {
  public:
    __device__ __forceinline__ AcrossK(const float* from, int64 pitch, int columns, Index ks)
        : vectors_(takes_vectors(from, pitch)),
          column_(static_cast<int>(threadIdx.x) * (vectors_ ? 4 : 1) % extent),
          row_(static_cast<int>(threadIdx.x) * (vectors_ ? 4 : 1) / extent) {
        from_ = from + row_ * pitch + column_;
        step_ = (vectors_ ? vector_pass : pass) * pitch;
        tile_step_ = tile_k * pitch;
        const int columns_left = columns - column_;
        bytes_ = columns_left >= 4 ? 16 : columns_left > 0 ? 4 * columns_left : 0;
        ks_left_ = ks - row_;
    }

    __device__ __forceinline__ void prepare(Index) {}

    __device__ __forceinline__ void copy(Index, float (*to)[extent + 4]) {
        const float* from = from_;
        if (vectors_) {
#pragma unroll
            for (int i = 0; i < tile_k; i += vector_pass) {
                cp_async<16>(&to[row_ + i][column_], from, i < ks_left_ ? bytes_ : 0);
                from += step_;
            }
        } else {
#pragma unroll 1  // rather slow than short of registers
            for (int i = 0; i < tile_k; i += pass) {
                cp_async<4>(&to[row_ + i][column_], from, i < ks_left_ && bytes_ > 0 ? 4 : 0);
                from += step_;
            }
        }
        from_ += tile_step_;
        ks_left_ -= tile_k;
    }

  private:
    static constexpr int pass = threads / extent;  // rows that all threads copy at once
    static constexpr int vector_pass = 4 * pass;
    static_assert(threads % extent == 0 && tile_k % vector_pass == 0, "the tile falls apart into whole passes");

    const bool vectors_;
    const int column_, row_;  // where the thread begins
    const float* from_;
    int64 step_, tile_step_;
    int bytes_;      // of a vector from there that are real
    Index ks_left_;  // from there
};

}  // namespace pycnn
