// winograd_f2x2_fused: Winograd's F(2x2, 3x3) in one kernel, for fprop and dgrad; float32.
//
//     y = AT [ sum over channels of (G w GT) . (BT x B) ] A      plus the epilogue
//
// In dgrad x is dy, y is dx and the filters are turned.  The filters come transformed once (winograd_filters); windows
// are transformed on their way into shared memory, products on their way out: neither V nor M is ever stored.
//
// GEMM view   for each of the 16 points: gemm_m = K filters, gemm_n = tiles of 2x2 results, gemm_k = C channels.
//
// Who owns what: a block owns 64 filters of one group and 32 consecutive tiles of the batch, at all 16 points.  Warp p
// multiplies at point p; a lane owns 8 filters x 8 tiles of the product, its filters and its tiles in two runs of four
// each, so that a warp reads whole lines of shared memory:
//
//            32 tiles                               in shared memory, a stage of 4 channels, twice:
//          +-----------------+  one of 16             u [point][channel][64 filters]   straight from U
//          | l0 l1 l2 l3|l0..|  products; lane 4*i      v [point][channel][32 tiles]     transformed windows
//      64  | l4 l5 l6 l7|l4..|  + j owns filters
//  filters |  ...            |  4i..4i+3 and 32 + those, tiles 4j..4j+3 and 16 + those: 4 blocks of four by four
//          | l28..        l31|
//          +-----------------+
//
//      A window of 4x4 pixels is taken by 4 threads, a row each.  The transform down the columns needs one other row,
//      BT d = (d0 - d2, d1 + d2, d2 - d1, d3 - d1), which a shuffle brings; the one along the row is the thread's own.
//      The four rows' threads then write points of four different rows, so v is swizzled: tile t of point p stands at
//      t ^ 8*(p / 4).
//
//      While a stage is multiplied the next one's rows are on their way into registers and its filters, by cp.async,
//      into the other half of shared memory, where the rows' transform follows them: one barrier a stage.
//
//      At the end the products change hands through shared memory, 16 filters at a time: a thread collects the 16
//      points of one filter and tile, and transforms and stores 2x2 results; a warp writes two runs of 64 pixels.
//
// Launch      one block of 16 warps for each; block index = (tile block * groups + g) * blocks_k + k block.
// Shared      FusedShared: 48 KiB, static; no bank conflicts.
// Determinism one thread sums each product in the order of the channels: bit for bit the same in every run.
// Cost        16/36 of direct's multiply-adds, tiles and filters rounded up to whole blocks.  x is read K/groups/64 and
//             U tiles/32 times, mostly from L2: a stage of 131,072 multiply-adds takes 16 KiB of U and some 2 KiB of x,
//             14 operations a byte.
// Limit       the FP32 pipes: 64 FMAs of a lane against 4 loads of 128 bits, the ratio of an SGEMM; a stage of 256 FMAs
//             carries some 80 instructions more that load, transform and store the next one.  Next comes L2: 18 bytes
//             for each cycle of an SM that does 128 multiply-adds in it.  On sm_75, which copies U through registers,
//             also the way to L2 at the head of a stage.
// Reference   Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015, section 4; Yan, Wang & Chu,
//             "Optimizing batched Winograd convolution on GPUs", PPoPP 2020; openCNN (Castro et al., 2021).
#include "arch/cp_async.cuh"
#include "epilogue.cuh"
#include "winograd.cuh"

namespace pycnn {

struct FusedTile {
    int warps;     // one for each point
    int tiles;     // of a block
    int filters;   // of a block
    int channels;  // of a stage
    int blocks;    // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * 32; }
};

struct FusedGrid {
    int64 stages;
    Divisor blocks_k, groups;  // of the block index
};

// Channels of a stage whose operands are loaded ahead of their products: all of them where that spills no register.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 9
enum : int { kUnrolled = 4 };
#else
enum : int { kUnrolled = 2 };
#endif

enum : int { kPoints = 16, kRound = 16 };  // kRound: filters whose products change hands at a time

template <FusedTile T>
struct FusedStages {
    float u[2][kPoints][T.channels][T.filters];
    float v[2][kPoints][T.channels][T.tiles];
};

template <FusedTile T>
union alignas(16) FusedShared {
    FusedStages<T> stages;
    float m[kPoints][kRound][T.tiles];
};

// What a thread brings into the next stage: a row of a window, and its part of U.
template <FusedTile T>
struct FusedLoader {
    static constexpr int kStageOfU = kPoints * T.channels * T.filters;
    static constexpr int kVectors = kStageOfU / 4 / T.threads();  // of U, a thread
    static_assert(T.warps == kPoints && T.tiles * T.channels * 4 == T.threads(), "a row of a window for each thread");
    static_assert(kVectors * T.threads() * 4 == kStageOfU && T.tiles == 32, "whole vectors");

    const float* row;  // of the window
    const float* u;
    int64 next_channel;  // from stage to stage
    int inner;           // bit s: pixel s of the row is in the image

    float pixel[4];

    // Which row of which window is the thread's.
    static __device__ __forceinline__ int window_row() { return static_cast<int>(threadIdx.x) / 8 % 4; }
    static __device__ __forceinline__ int window_tile() {
        return static_cast<int>(threadIdx.x) / 32 % 4 * 8 + static_cast<int>(threadIdx.x) % 8;
    }
    static __device__ __forceinline__ int window_channel() { return static_cast<int>(threadIdx.x) / 128; }

    __device__ __forceinline__ FusedLoader(const TiledImage& image, const FusedGrid& grid, const float* x,
                                           const float* all_u, int tile0, int group, int k0) {
        const int r = window_row(), tile = window_tile();
        const int channel = window_channel();
        const TileCorner corner = tile_corner<2>(image, tile0 + tile);
        const bool real = tile0 + tile < image.tiles && inside(corner.h + r, static_cast<int>(image.H));
        inner = 0;
#pragma unroll
        for (int s = 0; s < 4; ++s) inner |= (real && inside(corner.w + s, static_cast<int>(image.W))) << s;
        const int64 plane = (corner.n * image.groups.value + group) * image.channels + channel;
        row = x + (plane * image.H + corner.h + r) * image.W + corner.w;
        next_channel = T.channels * image.H * image.W;

        const int64 block_k = group * grid.blocks_k.value + k0 / T.filters;
        u = all_u + block_k * grid.stages * kStageOfU + 4 * static_cast<int>(threadIdx.x);
    }

    // Starts the loads of a stage, of which `left` channels are there, and goes on to the next: of pixels into
    // registers, of U into one half of shared memory.
    __device__ __forceinline__ void load(FusedStages<T>& stages, int half, int left) {
#pragma unroll
        for (int s = 0; s < 4; ++s) pixel[s] = (inner >> s & 1) != 0 && window_channel() < left ? row[s] : 0.0f;
        float* to = &stages.u[half][0][0][0] + 4 * static_cast<int>(threadIdx.x);
#pragma unroll
        for (int j = 0; j < kVectors; ++j) cp_async<16>(to + 4 * j * T.threads(), u + 4 * j * T.threads(), 16);
        cp_async_commit();
        row += next_channel;
        u += kStageOfU;
    }

    // Transforms the pixels that were loaded, into one half of shared memory, and waits for its part of U.
    __device__ __forceinline__ void store(FusedStages<T>& stages, int half) const {
        const int r = window_row();
        const int partner = (r == 0 || r == 1 ? 2 : 1) * 8 + static_cast<int>(threadIdx.x) % 8;
        const float sign = r == 1 ? 1.0f : -1.0f;
        float line[4], points[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) line[s] = fmaf(sign, __shfl_sync(0xFFFFFFFFu, pixel[s], partner), pixel[s]);
        InputTransform<4>::line<1, 1>(line, points);
#pragma unroll
        for (int s = 0; s < 4; ++s) stages.v[half][r * 4 + s][window_channel()][window_tile() ^ r * 8] = points[s];
        cp_async_wait<0>();
    }
};

__device__ __forceinline__ void unpack(float (&to)[8], float4 first, float4 second) {
    to[0] = first.x, to[1] = first.y, to[2] = first.z, to[3] = first.w;
    to[4] = second.x, to[5] = second.y, to[6] = second.z, to[7] = second.w;
}

// Adds a stage's products at one point to a lane's sums.
template <FusedTile T>
__device__ __forceinline__ void multiply(float (&sum)[8][8], const FusedStages<T>& stages, int half, int point,
                                         int lane_k, int lane_t) {
    const auto& u = stages.u[half][point];
    const auto& v = stages.v[half][point];
    const int swizzle = point / 4 * 8;
#pragma unroll kUnrolled
    for (int c = 0; c < T.channels; ++c) {
        float filter[8], tile[8];
        unpack(filter, *reinterpret_cast<const float4*>(&u[c][lane_k]),
               *reinterpret_cast<const float4*>(&u[c][T.filters / 2 + lane_k]));
        unpack(tile, *reinterpret_cast<const float4*>(&v[c][lane_t ^ swizzle]),
               *reinterpret_cast<const float4*>(&v[c][(T.tiles / 2 + lane_t) ^ swizzle]));
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) sum[i][j] = fmaf(filter[i], tile[j], sum[i][j]);
    }
}

template <FusedTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    winograd_f2x2_fused(const FusedGrid grid, const TiledImage image, const TiledImage result,
                        const float* __restrict__ x, const float* __restrict__ u, const float* __restrict__ scale,
                        const float* __restrict__ b, const float* __restrict__ residual, const int relu,
                        float* __restrict__ y) {
    PYCNN_SHARED(FusedShared<T>, shared);
    int index = static_cast<int>(blockIdx.x);
    const int k0 = take_digit(index, grid.blocks_k) * T.filters;
    const int group = take_digit(index, grid.groups);
    const int tile0 = index * T.tiles;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int lane_k = lane / 4 * 4, lane_t = lane % 4 * 4;  // its filters and tiles: these four and four half-way on

    float sum[8][8] = {};  // [filter][tile] at point `warp`
    FusedLoader<T> loader(image, grid, x, u, tile0, group, k0);
    const int channels = static_cast<int>(image.channels);
    loader.load(shared.stages, 0, channels);
    loader.store(shared.stages, 0);
    __syncthreads();
    const int stages = static_cast<int>(grid.stages);
#pragma unroll 1
    for (int stage = 0; stage + 1 < stages; ++stage) {
        loader.load(shared.stages, (stage + 1) % 2, channels - (stage + 1) * T.channels);
        multiply<T>(sum, shared.stages, stage % 2, warp, lane_k, lane_t);
        loader.store(shared.stages, (stage + 1) % 2);
        __syncthreads();
    }
    multiply<T>(sum, shared.stages, (stages - 1) % 2, warp, lane_k, lane_t);
    __syncthreads();

    // A round takes filters 2*round and 2*round + 1 of every lane's eight; warp f collects the f-th of those 16.  Rows
    // of m are swizzled by 16 tiles, or the lanes of neighbouring filters would write to the same banks.
    const TileCorner corner = tile_corner<2>(result, tile0 + lane);
    const bool real = tile0 + lane < result.tiles;
    const int H = static_cast<int>(result.H), W = static_cast<int>(result.W);
    const bool aligned = W % 2 == 0 && reinterpret_cast<unsigned long long>(y) % sizeof(float2) == 0;
#pragma unroll
    for (int round = 0; round < 4; ++round) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float* products = sum[2 * round + j];
            float* row = shared.m[warp][lane_k / 2 + j];
            const int swizzle = lane_k / 4 % 2 * 16;
            *reinterpret_cast<float4*>(&row[lane_t ^ swizzle]) =
                make_float4(products[0], products[1], products[2], products[3]);
            *reinterpret_cast<float4*>(&row[(T.tiles / 2 + lane_t) ^ swizzle]) =
                make_float4(products[4], products[5], products[6], products[7]);
        }
        __syncthreads();
        const int k = k0 + round / 2 * (T.filters / 2) + warp / 2 * 4 + round % 2 * 2 + warp % 2;
        if (real && k < result.channels) {
            const int64 channel = group * result.channels + k;
            const ChannelEpilogue epilogue(Epilogue{scale, b, residual, relu}, channel);
            const int64 plane = corner.n * result.groups.value * result.channels + channel;
            const int64 first = (plane * result.H + corner.h) * result.W + corner.w;
            const int at = lane ^ warp / 2 % 2 * 16;
            const auto load = [&](int r, int s) { return shared.m[r * 4 + s][warp][at]; };
            const auto store = [&](int r, const float (&row)[2]) {
                if (corner.h + r >= H) return;
                const int64 to = first + r * result.W;
                const bool second = corner.w + 1 < W;
                const float left = epilogue(row[0], to);
                const float right = second ? epilogue(row[1], to + 1) : 0.0f;
                if (aligned) {
                    *reinterpret_cast<float2*>(y + to) = make_float2(left, right);
                } else {
                    y[to] = left;
                    if (second) y[to + 1] = right;
                }
            };
            transform<OutputTransform<2, 3>>(load, store);
        }
        __syncthreads();
    }
}

}  // namespace pycnn
