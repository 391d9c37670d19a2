// nll: negative log-likelihood of class indices, forward and backward.
//
//     l[n, i] = -weight[t] * x[n, t, i] with t = target[n, i], 0 where t is ignored, NaN where t is no class
//     nll_losses     l, or by block the sums of l and of weight[t] over the targets that count
//     nll_total      the sum of l; or that over the sum of weight[t]; or the latter alone
//     nll_bwd        dx[n, c, i] = -weight[c] * dy / total where c = t, else 0; NaN for all c where t is no class
//
// x, l, dy and dx are float32, float16 or bfloat16; weights, sums and totals are float32.
//
// Who owns what: in nll_losses a thread owns targets, `threads * blocks` apart; in nll_total one block takes all sums;
// nll_bwd is as rows.cuh draws it, with the classes as the length: a thread reads a target once and writes its share of
// the classes, so that every element of dx is written once.
//
// Launch      nll_losses: a number of blocks that the shape decides, for the sums must not depend on the GPU.
//             nll_total: one block.  nll_bwd: as softmax.cu.
// Shared      8 bytes a warp and lane.
// Determinism elements in ascending order a thread, a fixed tree a block (reduce.cuh), blocks in a fixed tree.
// Cost        nll_losses 12 bytes a target, four of them gathered, and 4 more where l is stored; nll_bwd 4 bytes an
//             element of dx, or 2.
// Limit       the latency of the gather; nll_bwd: bandwidth of its stores, which wait for nothing.
// Reference   PyTorch's torch.nn.functional.nll_loss.
#include "rows.cuh"

namespace pycnn {

// Passed by value; pycnn/backends/cuda/loss.py packs the same fields in the same order.
struct NllShape {
    int64 N, C, L;
    int64 ignored;  // the target that counts for nothing
};

__device__ __forceinline__ float nan_value() {
    return __int_as_float(0x7FC00000);
}

// Both results may be null, and x where only weights are wanted.  partial[0][block]: losses; partial[1]: weights.
template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    nll_losses(const NllShape s, const Stored<T>* __restrict__ x, const int64* __restrict__ target,
               const float* __restrict__ weight, Stored<T>* __restrict__ losses, float* __restrict__ partial) {
    using Meeting = RowMeeting<TwoSums, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    TwoSums sums{0.0f, 0.0f};
    const int64 step = static_cast<int64>(gridDim.x) * T.threads();
    for (int64 i = static_cast<int64>(blockIdx.x) * T.threads() + threadIdx.x; i < s.N * s.L; i += step) {
        const int64 t = target[i];
        float loss = 0.0f;
        if (t != s.ignored) {
            float factor = nan_value();
            loss = factor;
            if (inside(t, s.C)) {
                factor = weight == nullptr ? 1.0f : weight[t];
                const int64 n = s.L == 1 ? i : i / s.L;
                if (x != nullptr) loss = -factor * to_float(x[(n * s.C + t) * s.L + (i - n * s.L)]);
            }
            sums.merge({loss, factor});
        }
        if (losses != nullptr) losses[i] = from_float<Stored<T>>(loss);
    }
    if (partial == nullptr) return;
    sums = over_rows<T.warps>(sums, RowLayout{1, T.threads()}, meeting);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sums.first;
        partial[gridDim.x + blockIdx.x] = sums.second;
    }
}

enum Total { kSumOfLosses = 0, kMeanLoss = 1, kSumOfWeights = 2 };

template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    nll_total(const int64 count, const int64 what, const float* __restrict__ partial, float* __restrict__ total) {
    using Meeting = RowMeeting<TwoSums, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    TwoSums sums{0.0f, 0.0f};
    for (int64 i = threadIdx.x; i < count; i += T.threads()) sums.merge({partial[i], partial[count + i]});
    sums = over_rows<T.warps>(sums, RowLayout{1, T.threads()}, meeting);
    if (threadIdx.x == 0) {
        total[0] = what == kSumOfLosses ? sums.first : what == kMeanLoss ? sums.first / sums.second : sums.second;
    }
}

// dy has one element, or one a target (`each`).  total is null, or holds what to divide by.
template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    nll_bwd(const RowsShape s, const int64 ignored, const int64 each, const Stored<T>* __restrict__ dy,
            const int64* __restrict__ target, const float* __restrict__ weight, const float* __restrict__ total,
            Stored<T>* __restrict__ dx) {
    const RowsPlace place = rows_place<T>(s);
    if (place.length == 0) return;
    const int64 i = place.outer * s.inner + place.inner;
    const int64 t = target[i];
    float share = 0.0f, elsewhere = 0.0f;
    if (t != ignored) {
        if (inside(t, s.length)) {
            share = -(weight == nullptr ? 1.0f : weight[t]) * to_float(dy[each ? i : 0]);
            if (total != nullptr) share /= total[0];
        } else {
            elsewhere = nan_value();
        }
    }
    for (int64 k = place.row; k < place.length; k += s.rows) {
        dx[place.base + k * s.inner] = from_float<Stored<T>>(k == t ? share : elsewhere);
    }
}

}  // namespace pycnn
