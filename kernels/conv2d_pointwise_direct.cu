// conv2d_fprop_pointwise, conv2d_dgrad_pointwise: convolution by 1x1 filters, and the gradient of its input; float32.
//
//     y[n, k, p, q]  = epilogue of the sum over c of x[n, c, p*stride_h - pad_top, q*stride_w - pad_left] * w[k, c]
//     dx[n, c, h, w] = sum over k of dy[n, k, p, q] * w[k, c]
//         where p*stride_h = h + pad_top and q*stride_w = w + pad_left; 0 where there is no such p, q
//
// GEMM view   gemm_m = N*P*Q pixels, gemm_n = K filters, gemm_k = C channels (dgrad: N*H*W, C and K).
//
// "Result" below is y or dx, "input" x or dy.  The pixels of all images are counted in one row, (n*rows + row)*columns
// + column of the result, so that planes of 7x7 leave no lane idle.
//
// Who owns what (128 pixels x 64 filters, 4 warps of which 2 along filters):
//
//              128 pixels                                      a warp: 64 pixels x 32 filters
//          +----------------+----------------+             l0: fours of pixels at 0 and 32,
//    32 k  |     warp 0     |     warp 2     |                 fours of filters at 0 and 16
//          +----------------+----------------+             l1: the next four pixels ... l7;  l8: the next four filters
//    32 k  |     warp 1     |     warp 3     |
//          +----------------+----------------+             a thread: 8 x 8 sums in registers
//
//      `channels` channels are staged at a time, in one of two buffers while the other is multiplied; the loads of the
//      next stage are under way in registers meanwhile.  A thread loads four neighbouring pixels by one 128-bit load
//      where they lie so in memory: in one row of the input, at an address that is a multiple of 16 bytes in every
//      channel (one look at the pointer and the size of a plane tells); else by four.  The same holds for stores.
//
// Launch      one block of `warps` warps for each tile; block index = (tile of pixels * groups + g)*tiles_k + tk, so
//             that blocks that share pixels are neighbours in time.
// Shared      PointwiseShared, static.  No bank conflicts in the loop: a warp reads 8 neighbouring float4 of pixels
//             and 4 of filters.
// Determinism one thread sums each result, in the order of the channels: bit for bit the same in every run.
// Cost        N*P*Q*K*C/groups multiply-adds, the tiles rounded up to whole ones.
// Limit       the FP32 pipes: 64 FMAs against 4 LDS.128 a channel; bandwidth where K or C is below a hundred.
// Reference   Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.
#include "direct.cuh"
#include "epilogue.cuh"

namespace pycnn {

struct PointwiseTile {
    int warps, warps_k;  // warps in a block; of them along filters, the rest along pixels
    int channels;        // channels staged at a time, a multiple of 4
    int blocks;          // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * kWarp; }
    constexpr int pixels() const { return warps / warps_k * 64; }
    constexpr int tile_k() const { return warps_k * 32; }
    constexpr int quads() const { return pixels() / 4; }              // fours of pixels
    constexpr int quad_rows() const { return threads() / quads(); }   // channels that the threads load at once
    constexpr int x_loads() const { return channels / quad_rows(); }  // fours of pixels a thread loads for a stage
    constexpr int w_loads() const { return channels * tile_k() / threads(); }
};

template <PointwiseTile T>
struct alignas(16) PointwiseShared {
    float x[2][T.channels][T.pixels()];
    float w[2][T.channels][T.tile_k() + 4];
};

struct PointwiseGrid {
    Divisor tiles_k, groups;     // of the block index
    Divisor columns, rows;       // of a pixel of the result
    Divisor stride_h, stride_w;  // dgrad: of a row and a column
    int64 pixels;                // N * rows * columns
};

// Where a pixel of the result finds its input, for the first channel of the first group; -1 if nowhere.
template <bool turned>
__device__ __forceinline__ int64 pointwise_place(int pixel, const Conv2dShape& shape, const PointwiseGrid& grid) {
    if (pixel >= grid.pixels) return -1;
    int n = pixel;
    const int column = take_digit(n, grid.columns), row = take_digit(n, grid.rows);
    const int pad_top = static_cast<int>(shape.pad_top), pad_left = static_cast<int>(shape.pad_left);
    if (turned) {
        const int p = quotient(row + pad_top, grid.stride_h), q = quotient(column + pad_left, grid.stride_w);
        const bool met = p * static_cast<int>(shape.stride_h) == row + pad_top && p < shape.P &&
                         q * static_cast<int>(shape.stride_w) == column + pad_left && q < shape.Q;
        return met ? (n * shape.K * shape.P + p) * shape.Q + q : -1;
    }
    const int h = row * static_cast<int>(shape.stride_h) - pad_top;
    const int w = column * static_cast<int>(shape.stride_w) - pad_left;
    const bool real = inside(h, static_cast<int>(shape.H)) && inside(w, static_cast<int>(shape.W));
    return real ? (n * shape.C * shape.H + h) * shape.W + w : -1;
}

// Four neighbouring pixels of the input, and whether they can be loaded at once in every channel.
struct PointwiseQuad {
    int64 place[4];
    bool whole;
};

template <PointwiseTile T, bool turned>
__device__ __forceinline__ void pointwise(const Conv2dShape& shape, const PointwiseGrid& grid,
                                          const float* __restrict__ x, const float* __restrict__ w,
                                          const Epilogue& epilogue, float* __restrict__ y) {
    PYCNN_SHARED(PointwiseShared<T>, shared);
    int index = static_cast<int>(blockIdx.x);
    const int k0 = take_digit(index, grid.tiles_k) * T.tile_k();
    const int group = take_digit(index, grid.groups);
    const int pixel0 = index * T.pixels();
    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;

    const int channels = static_cast<int>((turned ? shape.K : shape.C) / shape.groups);
    const int filters = static_cast<int>((turned ? shape.C : shape.K) / shape.groups);
    const int64 plane = turned ? shape.P * shape.Q : shape.H * shape.W;
    const float* input = x + static_cast<int64>(group) * channels * plane;
    const float* weight = w + static_cast<int64>(group) * channels * filters;

    PointwiseQuad quad;
    const int quad_pixel = thread % T.quads() * 4, quad_channel = thread / T.quads();  // within the tile
#pragma unroll
    for (int j = 0; j < 4; ++j) quad.place[j] = pointwise_place<turned>(pixel0 + quad_pixel + j, shape, grid);
    quad.whole = quad.place[0] >= 0 && plane % 4 == 0 && aligned16(input + quad.place[0]);
#pragma unroll
    for (int j = 1; j < 4; ++j) quad.whole = quad.whole && quad.place[j] == quad.place[0] + j;

    float4 next_x[T.x_loads()];
    float next_w[T.w_loads()];
    const auto load = [&](int c0) {
#pragma unroll
        for (int i = 0; i < T.x_loads(); ++i) {
            const int c = c0 + quad_channel + i * T.quad_rows();
            const float* from = input + c * plane;
            next_x[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (c >= channels) continue;
            if (quad.whole) {
                next_x[i] = *reinterpret_cast<const float4*>(from + quad.place[0]);
            } else {
                if (quad.place[0] >= 0) next_x[i].x = from[quad.place[0]];
                if (quad.place[1] >= 0) next_x[i].y = from[quad.place[1]];
                if (quad.place[2] >= 0) next_x[i].z = from[quad.place[2]];
                if (quad.place[3] >= 0) next_x[i].w = from[quad.place[3]];
            }
        }
#pragma unroll
        for (int i = 0; i < T.w_loads();
             ++i) {  // neighbouring lanes read what lies side by side: channels, or (turned) filters
            const int e = thread + i * T.threads();
            const int c = turned ? e / T.tile_k() : e % T.channels, k = turned ? e % T.tile_k() : e / T.channels;
            const bool real = c0 + c < channels && k0 + k < filters;
            const int at = turned ? (c0 + c) * filters + k0 + k : (k0 + k) * channels + c0 + c;
            next_w[i] = real ? weight[at] : 0.0f;
        }
    };
    const auto store = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < T.x_loads(); ++i)
            *reinterpret_cast<float4*>(&shared.x[buffer][quad_channel + i * T.quad_rows()][quad_pixel]) = next_x[i];
#pragma unroll
        for (int i = 0; i < T.w_loads(); ++i) {
            const int e = thread + i * T.threads();
            const int c = turned ? e / T.tile_k() : e % T.channels, k = turned ? e % T.tile_k() : e / T.channels;
            shared.w[buffer][c][k] = next_w[i];
        }
    };

    const int warp_k = thread / kWarp % T.warps_k, warp_pixels = thread / kWarp / T.warps_k;
    const int first_pixel = warp_pixels * 64 + lane % 8 * 4, first_filter = warp_k * 32 + lane / 8 * 4;
    float sum[2][2][4][4] = {};  // of a four of filters, a four of pixels, a filter, a pixel
    load(0);
    store(0);
    __syncthreads();
    for (int c0 = 0, buffer = 0; c0 < channels; c0 += T.channels, buffer ^= 1) {
        const bool more = c0 + T.channels < channels;
        if (more) load(c0 + T.channels);
#pragma unroll 8
        for (int c = 0; c < T.channels; ++c) {
            float in[2][4], tap[2][4];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float4 a = *reinterpret_cast<const float4*>(&shared.x[buffer][c][first_pixel + j * 32]);
                const float4 b = *reinterpret_cast<const float4*>(&shared.w[buffer][c][first_filter + j * 16]);
                in[j][0] = a.x, in[j][1] = a.y, in[j][2] = a.z, in[j][3] = a.w;
                tap[j][0] = b.x, tap[j][1] = b.y, tap[j][2] = b.z, tap[j][3] = b.w;
            }
#pragma unroll
            for (int f = 0; f < 2; ++f)
#pragma unroll
                for (int j = 0; j < 2; ++j)
#pragma unroll
                    for (int k = 0; k < 4; ++k)
#pragma unroll
                        for (int i = 0; i < 4; ++i) sum[f][j][k][i] = fmaf(in[j][i], tap[f][k], sum[f][j][k][i]);
        }
        if (more) store(buffer ^ 1);
        __syncthreads();
    }

    const int64 result_plane = turned ? shape.H * shape.W : shape.P * shape.Q;
    const int64 all_filters = turned ? shape.C : shape.K;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int pixel = pixel0 + first_pixel + j * 32;
        int64 image[4];  // where the pixel's image begins, plus the pixel
        bool met[4];     // a pixel of dx that no p, q meets is 0 even where w is infinite
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int n = pixel + i;
            const int column = take_digit(n, grid.columns), row = take_digit(n, grid.rows);
            image[i] = n * all_filters * result_plane + row * grid.columns.value + column;
            met[i] = !turned || pointwise_place<turned>(pixel + i, shape, grid) >= 0;
        }
        const bool whole =
            pixel + 3 < grid.pixels && image[3] == image[0] + 3 && result_plane % 4 == 0 && aligned16(y + image[0]);
#pragma unroll
        for (int f = 0; f < 2; ++f)
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const int filter = k0 + first_filter + f * 16 + k;
                if (filter >= filters) continue;
                const int64 channel = static_cast<int64>(group) * filters + filter;
                float result[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (pixel + i < grid.pixels) {
                        const float value = met[i] ? sum[f][j][k][i] : 0.0f;
                        result[i] = epilogue(value, channel, image[i] + channel * result_plane);
                    }
                if (whole) {
                    *reinterpret_cast<float4*>(y + image[0] + channel * result_plane) =
                        make_float4(result[0], result[1], result[2], result[3]);
                } else {
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (pixel + i < grid.pixels) y[image[i] + channel * result_plane] = result[i];
                }
            }
    }
}

template <PointwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_fprop_pointwise(const Conv2dShape shape, const PointwiseGrid grid, const float* __restrict__ x,
                           const float* __restrict__ w, const float* __restrict__ scale, const float* __restrict__ b,
                           const float* __restrict__ residual, const int relu, float* __restrict__ y) {
    pointwise<T, false>(shape, grid, x, w, Epilogue{scale, b, residual, relu}, y);
}

template <PointwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_dgrad_pointwise(const Conv2dShape shape, const PointwiseGrid grid, const float* __restrict__ dy,
                           const float* __restrict__ w, float* __restrict__ dx) {
    pointwise<T, true>(shape, grid, dy, w, Epilogue{}, dx);
}

}  // namespace pycnn
