// sgemm: matrix products, one or many at once; float32.
//
//     out[o, i] = epilogue( op(a[o, i]) * op(b[o, i]) )        o < outer, i < inner; op transposes or does not
//
// Matrices are row-major; the distances between their rows, and between the matrices of a batch (0 repeats one), are
// arguments, and so is the alignment any multiple of 4 bytes.  The epilogue's channel is the row or the column of the
// result, counted through the inner batch: channel = i*M + row, or i*N + column (groups of a convolution).
//
// GEMM view   gemm_m = M rows, gemm_n = N columns, gemm_k = K, as it stands.
//
// Who owns what: a block owns tile_m x tile_n of one product, or of one slice of its K (see gemm.cuh for its threads).
//
//                     N                           slices of K, each a partial result of its own:
//              +-----+-----+--            out = slice 0 + slice 1 + ... added up afterwards by sum_slices, in order;
//      tile_m  |block|     |              slice 0 takes the epilogue's b and residual with it, and each one scale
//           M  +-----+-----+--
//              |     |     |
//
// Launch      one block of `warps` warps for each tile; block index = (((slice*outer + o)*inner + i)*tiles_n + tn)
//             *tiles_m + tm, so that neighbours in time share a tile of b; past 2^31 - 1 blocks it goes on along y.
// Shared      GemmShared: static, at most 48 KiB.  Bank conflicts: none but in copies of misaligned tails.
// Determinism one thread sums each element of a slice, in the order of k: bit for bit the same in every run.
// Cost        outer*inner*M*N*K multiply-adds, the tiles rounded up to whole ones.  a is read N / tile_n times, b
//             M / tile_m times, mostly from L2.
// Limit       the FP32 pipes where M, N and K are large; with few rows the reading of b.
// Reference   see gemm.cuh; split-K after Osama et al., "Stream-K", 2023, section 2 ("fixed-split").
#include "epilogue.cuh"
#include "gemm.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct SgemmTile {
    int trans_a, trans_b;        // 1: the matrix is given transposed
    int tile_m, tile_n, tile_k;  // of a block
    int warps, warps_m;          // in a block, and how many of them one above another
    int thread_m, thread_n;      // sums of a thread
    int stages;                  // tiles of k in shared memory
    int blocks;                  // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * 32; }
    constexpr GemmTile gemm() const { return {tile_m, tile_n, tile_k, warps, warps_m, thread_m, thread_n, stages}; }
};

// Distances of a matrix, in elements: between rows, and between the matrices of either batch.
struct GemmMatrix {
    int64 pitch, outer, inner;
};

struct GemmProblem {
    int64 M, N, K;
    int64 k_slice;  // of K, in one slice: a multiple of tile_k, below 2^31
    GemmMatrix a, b, out;
    int64 slice;                             // elements of a slice of the result; 0 where there is but one
    int64 channel_along_n;                   // whether the epilogue's channel is the column
    Divisor tiles_m, tiles_n, inner, outer;  // of the block index
};

// What a block works on.
struct GemmBlock {
    int64 m0, n0, inner, outer, slice;
};

template <typename Index>
__device__ __forceinline__ GemmBlock gemm_block(const GemmProblem& problem) {
    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    GemmBlock block;
    block.m0 = take_digit(index, problem.tiles_m);
    block.n0 = take_digit(index, problem.tiles_n);
    block.inner = take_digit(index, problem.inner);
    block.outer = take_digit(index, problem.outer);
    block.slice = index;
    return block;
}

// Loads a(m, k) or b(k, n): along k, or across.
template <int along_k, int extent, int tile_k, int threads>
struct MatrixLoader {
    using type = AcrossK<extent, tile_k, threads>;
};
template <int extent, int tile_k, int threads>
struct MatrixLoader<1, extent, tile_k, threads> {
    using type = AlongK<extent, tile_k, threads>;
};

template <SgemmTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    sgemm(const GemmProblem problem, const float* __restrict__ a, const float* __restrict__ b,
          const float* __restrict__ scale, const float* __restrict__ bias, const float* __restrict__ residual,
          const int relu, float* __restrict__ out) {
    constexpr GemmTile G = T.gemm();
    using LoadA = typename MatrixLoader<1 - T.trans_a, T.tile_m, T.tile_k, T.threads()>::type;
    using LoadB = typename MatrixLoader<T.trans_b, T.tile_n, T.tile_k, T.threads()>::type;
    PYCNN_SHARED(GemmShared<G>, shared);

    GemmBlock block = gridDim.y == 1 ? gemm_block<int>(problem) : gemm_block<int64>(problem);
    if (block.slice * problem.k_slice >= problem.K && block.slice > 0) return;  // a grid's ragged last row
    const int64 m0 = block.m0 * T.tile_m, n0 = block.n0 * T.tile_n, k0 = block.slice * problem.k_slice;
    const int ks = static_cast<int>(problem.K - k0 < problem.k_slice ? problem.K - k0 : problem.k_slice);
    const int rows = tile_left(problem.M, m0), columns = tile_left(problem.N, n0);

    a += block.outer * problem.a.outer + block.inner * problem.a.inner;
    b += block.outer * problem.b.outer + block.inner * problem.b.inner;
    LoadA load_a(a + (T.trans_a ? k0 * problem.a.pitch + m0 : m0 * problem.a.pitch + k0), problem.a.pitch, rows, ks);
    LoadB load_b(b + (T.trans_b ? n0 * problem.b.pitch + k0 : k0 * problem.b.pitch + n0), problem.b.pitch, columns, ks);
    float sum[T.thread_m][T.thread_n] = {};
    gemm_mainloop<G>(shared, (ks + T.tile_k - 1) / T.tile_k, load_a, load_b, sum, NoWatch{});

    // Store: a warp writes lanes_n neighbouring float4 of a row, or their floats where rows are not aligned to them.
    const bool first_slice = block.slice == 0;
    const Epilogue epilogue{scale, first_slice ? bias : nullptr, first_slice ? residual : nullptr, relu};
    const GemmThread<G> thread;
    const int64 index0 = block.outer * problem.out.outer + block.inner * problem.out.inner;
    out += block.slice * problem.slice;
    const bool vectors = takes_vectors(out + index0, problem.out.pitch);
    const int64 channel0 = problem.channel_along_n ? block.inner * problem.N + n0 : block.inner * problem.M + m0;
#pragma unroll
    for (int i = 0; i < T.thread_m; ++i) {
        const int row = thread.row + thread.row_of(i);
        if (row >= rows) break;
        const int64 index = index0 + (m0 + row) * problem.out.pitch + n0;
#pragma unroll
        for (int j = 0; j < T.thread_n; j += 4) {
            const int column = thread.column + thread.column_of(j);
            float value[4];
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                const int64 channel = channel0 + (problem.channel_along_n ? column + l : row);
                value[l] = column + l < columns ? epilogue(sum[i][j + l], channel, index + column + l) : 0.0f;
            }
            store_neighbours(&out[index + column], value, columns - column, vectors);
        }
    }
}

}  // namespace pycnn
