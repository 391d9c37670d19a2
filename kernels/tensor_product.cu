// tensor_product: many matrix products of float32 at once on tensor cores, a transposed; 3xtf32.
//
//     out[i] = a[i]^T b[i]        a (K, M), b (K, N), out (M, N), all rows dense; i < matrices
//
// The products of a Winograd convolution: a are the transformed filters, split by split_filters, b the windows.
//
// GEMM view   gemm_m = M, gemm_n = N, gemm_k = K, as it stands.
//
// Who owns what: a block owns tile_m x tile_n of one product (see tensor_gemm.cuh for its warps).  Both operands lie
// across in shared memory, as they do in global memory.
//
//                     N                       shared memory, tile_k rows at a time
//              +-----+-----+--                +------------------+   +----------------+
//           M  |block|     |                  | a high, a low    |   | b              |
//              +-----+-----+--                | (tile_k, tile_m) |   | (tile_k, tile_n)|
//
// Launch      one block of `warps` warps for each tile; block index = (i*tiles_n + tn)*tiles_m + tm, so that neighbours
//             in time share a tile of b; at most 2^31 - 1 blocks.
// Shared      ProductShared: dynamic past 48 KiB.  No bank conflicts, see tensor_gemm.cuh.
// Determinism each element is summed in one order.
// Cost        matrices*M*N*K multiply-adds, each in three parts, the tiles rounded up to whole ones.
// Limit       the tensor cores and the splitting of b, some instructions for each element of a warp's fragments.
// Reference   see tensor_gemm.cuh.
#include "tensor_conv.cuh"

namespace pycnn {

template <TensorConvTile T>
struct alignas(128) ProductShared {
    using TileA = OperandTile<ElementOf<T>, T.tile_m, T.tile_k, false, true>;
    using TileB = OperandTile<ElementOf<T>, T.tile_n, T.tile_k, false>;
    TensorStages<T.gemm(), TileA, 2, TileB, 1> stages;
};

struct TensorProduct {
    int64 M, N, K;
    int64 pitch;               // of a's rows, a multiple of 4; N is one too
    int64 part;                // from the high parts of a to the low parts
    Divisor tiles_m, tiles_n;  // of the block index
};

template <TensorConvTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    tensor_product(const TensorProduct product, const float* __restrict__ a, const float* __restrict__ b,
                   float* __restrict__ out) {
    using Shared = ProductShared<T>;
    PYCNN_SHARED(Shared, shared);
    int index = static_cast<int>(blockIdx.x);
    const int m0 = take_digit(index, product.tiles_m) * T.tile_m;
    const int n0 = take_digit(index, product.tiles_n) * T.tile_n;
    const int64 matrix = index;
    const int rows = static_cast<int>(product.M) - m0, columns = static_cast<int>(product.N) - n0;
    const int K = static_cast<int>(product.K), pitch = static_cast<int>(product.pitch);
    const int N = static_cast<int>(product.N);

    const auto where_a = [&](int tile, int row, int column) {
        const int k = tile * T.tile_k + row;
        return k < K && column < rows ? k * pitch + column : -1;
    };
    const auto where_b = [&](int tile, int row, int column) {
        const int k = tile * T.tile_k + row;
        return k < K && column < columns ? k * N + column : -1;
    };
    Loader<kVectors, typename Shared::TileA, 2, T.threads(), int, decltype(where_a)> load_a(a + matrix * K * pitch + m0,
                                                                                            where_a, product.part);
    Loader<kVectors, typename Shared::TileB, 1, T.threads(), int, decltype(where_b)> load_b(b + matrix * K * N + n0,
                                                                                            where_b);
    TensorSums<T.gemm()> sums;
    tensor_mainloop<T.gemm()>(sums, shared.stages, (K + T.tile_k - 1) / T.tile_k, load_a, load_b, [](int) {});

    const auto row_place = [&](int m) { return m < rows ? m * N : -1; };
    const auto column_place = [&](int n) { return n < columns ? n : -1; };
    const auto finish = [](float sum, int, int, int) { return sum; };
    float* corner = out + (matrix * product.M + m0) * N + n0;
    const TensorResult<float> result(corner, nullptr, 0, N % 8 == 0 ? kByChunks : kByColumns);
    store_sums<T.gemm()>(sums, &shared.stages, result, row_place, column_place, finish);
}

}  // namespace pycnn
