// optimizer: steps of SGD and Adam, the norm of all gradients, their scaling, and the scale of the loss that mixed
// precision needs, many arrays in one launch; float32.
//
//     sgd_step    d = g + weight_decay * p
//                 v = momentum * v + (1 - dampening) * d        (v = d at the first step)
//                 p = p - lr * v                                (nesterov: p - lr * (d + momentum * v))
//     adam_step   g = g + weight_decay * p                      (decoupled: p = p - lr * weight_decay * p)
//                 m = m + (1 - b1) * (g - m)                    v = b2 * v + (1 - b2) * g^2
//                 p = p - lr / (1 - b1^t) * (m / (sqrt(v) / sqrt(1 - b2^t) + eps))
//     squares     partial[block] = sum of g^2 of a chunk
//     norm_total  norm = sqrt(sum of partial)
//     clip        g = g * min(1, max_norm / (norm + 1e-6))
//     unscale     found = 1 where a g * (1 / scale) is not finite; and, if asked to, g = g * (1 / scale)
//     count_step  step = step + 1, unless found
//     next_scale  scale = scale * backoff if found, else * growth after every `interval` steps; found = 0
//
// A step that is given `scale` takes g * (1 / scale) for g; one that is given a `found` that is not 0 changes nothing.
//
// Every product, sum and quotient of a step is rounded by itself and in the order of pycnn/optim, so that SGD gives the
// same bits on the CPU and here; fused multiply-adds would not.  Settings, step count, norm, scale and found are read
// from device memory: a captured CUDA graph is replayed with a new learning rate by writing a float, and leaves a step
// out without waiting for the host.
//
// Who owns what: a block owns a chunk of one array, drawn in tensors.cuh, a thread of it what stream.cuh draws.
//
// Launch      one block a chunk of warps * 128 * vectors elements of each of up to kArrays arrays; norm_total: one;
//             count_step and next_scale: one thread.
// Shared      squares, norm_total: 4 bytes a warp and lane.
// Determinism steps: each element by one thread.  The norm: elements in ascending order a thread, a fixed tree a block,
//             chunks in a fixed tree, the chunks a function of the shapes.  Whoever writes `found` writes 1.
// Cost        bytes an element: SGD 12, with momentum 20; Adam 28; squares 4; clip 8; unscale 4, or 8 if it writes.
// Limit       bandwidth: vectors * 16 bytes a thread and array in flight, and three or four arrays are read.
// Reference   Sutskever et al., 2013; Kingma & Ba, 2015, algorithm 1; Loshchilov & Hutter, 2019, algorithm 2; Pascanu,
//             Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1;
//             Micikevicius et al., "Mixed Precision Training", 2018, section 3.2.
#include "reduce.cuh"
#include "tensors.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct OptimizerTile {
    int vectors;  // of four elements, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

enum { kArrays = 64 };  // in one launch

constexpr float kLargest = 3.4028234664e38f;  // FLT_MAX

using Targets = Arrays<kArrays>;
using Given = Pointers<const float, kArrays>;
using Kept = Pointers<float, kArrays>;

// Passed by value; pycnn/backends/cuda/optim.py packs the same fields in the same order.
struct SgdMode {
    int64 momentum, first, nesterov;
};

// Device memory that the host may change between replays.
struct SgdSettings {
    float lr, momentum, fresh, weight_decay;  // fresh = 1 - dampening
};
struct AdamSettings {
    float lr, fresh1, b2, fresh2, eps, weight_decay;  // fresh = 1 - b
};

// What gradients are multiplied by; `scale` is null where they are not scaled.
__device__ __forceinline__ float unscaling(const float* scale) {
    return scale == nullptr ? 1.0f : __fdiv_rn(1.0f, *scale);
}

template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    sgd_step(const Targets arrays, const Kept params, const Given grads, const Kept buffers, const SgdMode mode,
             const SgdSettings* __restrict__ settings, const float* __restrict__ scale,
             const float* __restrict__ found) {
    if (found != nullptr && *found != 0.0f) return;
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    float *p = params.pointer[array], *v = buffers.pointer[array];
    const float* g = grads.pointer[array];
    const Stretch<T.threads(), T.vectors> stretch(block - arrays.first[array], arrays.size[array], aligned16(p, g, v));
    float param[T.vectors][4], slope[T.vectors][4], buffer[T.vectors][4] = {};
    stretch.read(p, param);
    stretch.read(g, slope);
    if (mode.momentum && !mode.first) stretch.read(v, buffer);
    const SgdSettings given = *settings;
    const float inverse = unscaling(scale);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            float d = __fmul_rn(slope[i][e], inverse);
            if (given.weight_decay != 0.0f) d = __fadd_rn(__fmul_rn(param[i][e], given.weight_decay), d);
            if (mode.momentum) {
                const float kept = __fadd_rn(__fmul_rn(buffer[i][e], given.momentum), __fmul_rn(d, given.fresh));
                buffer[i][e] = mode.first ? d : kept;
                d = mode.nesterov ? __fadd_rn(__fmul_rn(buffer[i][e], given.momentum), d) : buffer[i][e];
            }
            param[i][e] = __fsub_rn(param[i][e], __fmul_rn(d, given.lr));
        }
    }
    if (mode.momentum) stretch.write(v, buffer);
    stretch.write(p, param);
}

// 1 - b^t from 1 - b, which float32 holds to its last digit where b is close to 1 and loses three.
__device__ __forceinline__ float correction(float fresh, float t) {
    return -expm1f(t * log1pf(-fresh));
}

template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    adam_step(const Targets arrays, const Kept params, const Given grads, const Kept first_moments,
              const Kept second_moments, const int64 decoupled, const AdamSettings* __restrict__ settings,
              const int64* __restrict__ step, const float* __restrict__ scale, const float* __restrict__ found) {
    if (found != nullptr && *found != 0.0f) return;
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    float *p = params.pointer[array], *m = first_moments.pointer[array], *v = second_moments.pointer[array];
    const float* g = grads.pointer[array];
    const Stretch<T.threads(), T.vectors> stretch(block - arrays.first[array], arrays.size[array],
                                                  aligned16(p, g, m, v));
    float param[T.vectors][4], slope[T.vectors][4], first[T.vectors][4], second[T.vectors][4];
    stretch.read(p, param);
    stretch.read(g, slope);
    stretch.read(m, first);
    stretch.read(v, second);
    const AdamSettings given = *settings;
    const float inverse = unscaling(scale);
    const float t = static_cast<float>(*step);
    const float step_size = given.lr / correction(given.fresh1, t);
    const float root = sqrtf(correction(given.fresh2, t));
    const float shrink = fmaf(-given.lr, given.weight_decay, 1.0f);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            float d = __fmul_rn(slope[i][e], inverse), value = param[i][e];
            if (given.weight_decay != 0.0f) {
                if (decoupled) {
                    value = __fmul_rn(value, shrink);
                } else {
                    d = __fadd_rn(__fmul_rn(value, given.weight_decay), d);
                }
            }
            first[i][e] = __fadd_rn(first[i][e], __fmul_rn(__fsub_rn(d, first[i][e]), given.fresh1));
            second[i][e] = __fadd_rn(__fmul_rn(second[i][e], given.b2), __fmul_rn(__fmul_rn(d, d), given.fresh2));
            const float spread = __fadd_rn(__fdiv_rn(__fsqrt_rn(second[i][e]), root), given.eps);
            param[i][e] = __fsub_rn(value, __fmul_rn(__fdiv_rn(first[i][e], spread), step_size));
        }
    }
    stretch.write(m, first);
    stretch.write(v, second);
    stretch.write(p, param);
}

// The blocks of the whole list are counted from `base`.
template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    squares(const Targets arrays, const Given grads, const int64 base, float* __restrict__ partial) {
    using Meeting = RowMeeting<Sum, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    const float* g = grads.pointer[array];
    const Stretch<T.threads(), T.vectors> stretch(block - arrays.first[array], arrays.size[array], aligned16(g));
    float slope[T.vectors][4];
    stretch.read(g, slope);
    Sum sum{0.0f};
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum.value = fmaf(slope[i][e], slope[i][e], sum.value);
    }
    sum = over_rows<T.warps>(sum, RowLayout{1, T.threads()}, meeting);
    if (threadIdx.x == 0) partial[base + block] = sum.value;
}

template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    norm_total(const int64 count, const float* __restrict__ partial, float* __restrict__ norm) {
    using Meeting = RowMeeting<Sum, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    Sum sum{0.0f};
#pragma unroll 4
    for (int64 i = threadIdx.x; i < count; i += T.threads()) sum.value += partial[i];
    sum = over_rows<T.warps>(sum, RowLayout{1, T.threads()}, meeting);
    if (threadIdx.x == 0) norm[0] = sqrtf(sum.value);
}

template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    clip(const Targets arrays, const Kept grads, const float max_norm, const float* __restrict__ norm) {
    const float factor = max_norm / (norm[0] + 1e-6f);
    if (factor >= 1.0f) return;  // not so for a NaN, which then is everywhere
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    float* g = grads.pointer[array];
    const Stretch<T.threads(), T.vectors> stretch(block - arrays.first[array], arrays.size[array], aligned16(g));
    float slope[T.vectors][4];
    stretch.read(g, slope);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) slope[i][e] *= factor;
    }
    stretch.write(g, slope);
}

template <OptimizerTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    unscale(const Targets arrays, const Kept grads, const int64 write, const float* __restrict__ scale,
            float* __restrict__ found) {
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    float* g = grads.pointer[array];
    const Stretch<T.threads(), T.vectors> stretch(block - arrays.first[array], arrays.size[array], aligned16(g));
    const float inverse = unscaling(scale);
    float slope[T.vectors][4];
    stretch.read(g, slope);
    bool finite = true;
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            slope[i][e] = __fmul_rn(slope[i][e], inverse);
            finite = finite && fabsf(slope[i][e]) <= kLargest;  // not so for a NaN
        }
    }
    if (!finite) *found = 1.0f;
    if (write) stretch.write(g, slope);
}

struct OneThreadTile {
    int warps;

    constexpr int threads() const { return warps * 32; }
};

template <OneThreadTile T>
__global__ void __launch_bounds__(T.threads()) count_step(const float* __restrict__ found, int64* __restrict__ step) {
    if (threadIdx.x == 0 && *found == 0.0f) *step += 1;
}

// Passed by value; pycnn/backends/cuda/optim.py packs the same fields in the same order.
struct ScaleRule {
    double growth, backoff;
    int64 interval;  // 0: the scale stays as it is
    int64 count;     // of `founds`: one for each optimiser
};

// `steady` counts the steps since the scale last changed.
template <OneThreadTile T>
__global__ void __launch_bounds__(T.threads())
    next_scale(const ScaleRule rule, const Kept founds, float* __restrict__ scale, int64* __restrict__ steady) {
    if (threadIdx.x != 0) return;
    bool any = false;
#pragma unroll 1
    for (int i = 0; i < rule.count; ++i) {
        any = any || *founds.pointer[i] != 0.0f;
        *founds.pointer[i] = 0.0f;
    }
    if (rule.interval == 0) return;
    const int64 count = any ? 0 : *steady + 1;
    const bool grows = count == rule.interval;
    if (any || grows) {
        const float next = static_cast<float>(static_cast<double>(*scale) * (any ? rule.backoff : rule.growth));
        if (any || next <= kLargest) *scale = next;
    }
    *steady = grows ? 0 : count;
}

}  // namespace pycnn
