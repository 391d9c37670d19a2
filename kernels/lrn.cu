// lrn: local response normalisation across neighbouring channels, forward and backward; float32,
// or 16 bits stored and float32 computed.
//
//     s[c]  = k + alpha/size * sum of x[i]^2 over the window i = c - before .. c + after
//             before = size/2 and after = (size - 1)/2, both rounded down; channels that do not exist count nothing
//     y[c]  = x[c] / s[c]^beta
//     dx[c] = dy[c] / s[c]^beta - 2*alpha*beta/size * x[c] * sum of t[i] over i = c - after .. c + before
//     t[i]  = dy[i] * x[i] / s[i]^(beta + 1)                                              (lrn_slopes stores these)
//
// Who owns what: a thread owns one pixel of one image in a segment of the channels and walks up through them; a warp
// has 32 neighbouring pixels.  With size in the tile the window moves through registers:
//
//                 channel  c-2 c-1  c  c+1 c+2            x, and in the gradient t, of 5 channels: each step drops the
//                         [ x   x   x   x   x ] <- load   first, takes one more and sums the window afresh
//
// A running sum would be cheaper, but a large value would take the small ones' bits with it and an infinity would never
// leave.  With size = 0, any window, the threads read it from L1, and the gradient comes in two kernels, lrn_slopes and
// lrn_bwd.
//
// Launch      ceil(N * segments * L / (warps * 32)) blocks, on along y past 2^31 - 1.  The host chooses the segments by
//             the shape: many enough for a small batch, long enough to pay for the window before each (L2 has it).
// Shared      none.
// Determinism one thread computes each element, the window summed in ascending order.
// Cost        forward 8 bytes an element, backward 12; lrn_slopes and lrn_bwd of any size 12 and 16.  In 16 bits half
//             of that, but for slopes.
// Limit       bandwidth where size is in the tile: a thread loads kBatch channels ahead, 4 * kBatch bytes of each
//             array, or 2.  An exponent of 3/4 costs two square roots, any other a powf.  With size = 0 the cache: `size`
//             reads of L1 an element.
// Reference   Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
//             section 3.3; torch.nn.LocalResponseNorm for what it leaves open.
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct LrnTile {
    int type;    // of the arrays, as StorageOf has it; slopes are float32
    int size;    // channels in a window, or 0 for any number
    int warps;   // in a block
    int blocks;  // on an SM; 0: as the compiler sees fit

    constexpr int threads() const { return warps * 32; }
};

// Passed by value; pycnn/backends/cuda/norm.py packs the same fields in the same order.
struct LrnShape {
    int64 N, C, L;
    int64 segments, channels;  // segments of so many channels each
    int64 size;
};

struct LrnPower {
    float share, beta, k;  // share = alpha / size
};

enum { kBatch = 8 };  // channels that a thread loads at once

// s^-beta.  The exponent that every network of the lecture has takes two roots: within 5 ulp; powf is within 4.
__device__ __forceinline__ float inverse_power(float s, float beta) {
    if (beta == 0.75f) {
        const float inverse_root = rsqrtf(s);
        return inverse_root * sqrtf(inverse_root);
    }
    return powf(s, -beta);
}

// The calling thread's pixel, as the offset of its first channel, and its channels.
struct LrnPlace {
    int64 pixel, begin, end;
};

template <LrnTile T>
__device__ __forceinline__ bool find_place(const LrnShape& s, LrnPlace& place) {
    const int64 thread = block_number() * T.threads() + threadIdx.x;
    const int64 columns = thread / s.L, l = thread - columns * s.L;
    const int64 n = columns / s.segments, segment = columns - n * s.segments;
    place.pixel = n * s.C * s.L + l;
    place.begin = segment * s.channels;
    place.end = place.begin + s.channels < s.C ? place.begin + s.channels : s.C;
    return n < s.N;
}

// The element of channel c, 0 where there is none.
template <typename Type>
__device__ __forceinline__ float at_channel(const Type* x, const LrnShape& s, int64 pixel, int64 c) {
    return inside(c, s.C) ? to_float(x[pixel + c * s.L]) : 0.0f;
}

// s[c], the window read anew.
template <typename Type>
__device__ __forceinline__ float base_at(const Type* x, const LrnShape& s, const LrnPower& power, int64 pixel,
                                         int64 c) {
    float sum = 0.0f;
    const int64 begin = c - s.size / 2 > 0 ? c - s.size / 2 : 0, last = c + (s.size - 1) / 2;
    const int64 end = last < s.C ? last + 1 : s.C;
    for (int64 i = begin; i < end; ++i) {
        const float value = to_float(x[pixel + i * s.L]);
        sum = fmaf(value, value, sum);
    }
    return fmaf(power.share, sum, power.k);
}

// The last `size` values of a sequence.
template <int size>
struct Window {
    float value[size];

    __device__ __forceinline__ void take(float next) {
#pragma unroll
        for (int i = 0; i + 1 < size; ++i) value[i] = value[i + 1];
        value[size - 1] = next;
    }
    __device__ __forceinline__ float sum() const {
        float total = value[0];
#pragma unroll
        for (int i = 1; i < size; ++i) total += value[i];
        return total;
    }
    __device__ __forceinline__ float sum_of_squares() const {
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < size; ++i) total = fmaf(value[i], value[i], total);
        return total;
    }
};

template <LrnTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    lrn_fwd(const LrnShape s, const LrnPower power, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    LrnPlace place;
    if (!find_place<T>(s, place)) return;
    if constexpr (T.size > 0) {
        constexpr int before = T.size / 2, after = (T.size - 1) / 2;
        Window<T.size> window{};
#pragma unroll
        for (int i = -before; i < after; ++i) window.take(at_channel(x, s, place.pixel, place.begin + i));
        for (int64 c = place.begin; c < place.end; c += kBatch) {
            float ahead[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i) ahead[i] = at_channel(x, s, place.pixel, c + i + after);
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                window.take(ahead[i]);
                const float base = fmaf(power.share, window.sum_of_squares(), power.k);
                if (c + i < place.end) {
                    const float value = window.value[before] * inverse_power(base, power.beta);
                    y[place.pixel + (c + i) * s.L] = from_float<Stored<T>>(value);
                }
            }
        }
    } else {
        for (int64 c = place.begin; c < place.end; ++c) {
            const int64 at = place.pixel + c * s.L;
            const float value = to_float(x[at]) * inverse_power(base_at(x, s, power, place.pixel, c), power.beta);
            y[at] = from_float<Stored<T>>(value);
        }
    }
}

template <LrnTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    lrn_slopes(const LrnShape s, const LrnPower power, const Stored<T>* __restrict__ dy,
               const Stored<T>* __restrict__ x, float* __restrict__ slopes) {
    LrnPlace place;
    if (!find_place<T>(s, place)) return;
    for (int64 c = place.begin; c < place.end; ++c) {
        const int64 at = place.pixel + c * s.L;
        const float base = base_at(x, s, power, place.pixel, c);
        slopes[at] = to_float(dy[at]) * to_float(x[at]) * inverse_power(base, power.beta) / base;
    }
}

// `slopes` is null where the window moves through registers.
template <LrnTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    lrn_bwd(const LrnShape s, const LrnPower power, const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x,
            const float* __restrict__ slopes, Stored<T>* __restrict__ dx) {
    LrnPlace place;
    if (!find_place<T>(s, place)) return;
    const float factor = 2.0f * power.share * power.beta;
    if constexpr (T.size > 0) {
        // At step j the windows hold x[j - before .. j + after] and t[j - size + 1 .. j], and c = j - before is done:
        // its x is the first, its t are all of them.
        constexpr int before = T.size / 2, after = (T.size - 1) / 2;
        Window<T.size> window{}, seen{};
        Window<before + 1> direct{};  // dy / s^beta of c .. j
        const int64 first = place.begin - after;
#pragma unroll
        for (int i = -before; i < after; ++i) window.take(at_channel(x, s, place.pixel, first + i));
        for (int64 batch = first; batch < place.end + before; batch += kBatch) {
            float ahead[kBatch], slope[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                ahead[i] = at_channel(x, s, place.pixel, batch + i + after);
                slope[i] = at_channel(dy, s, place.pixel, batch + i);
            }
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                const int64 j = batch + i, c = j - before;
                window.take(ahead[i]);
                const float base = fmaf(power.share, window.sum_of_squares(), power.k);
                const float scaled = slope[i] * inverse_power(base, power.beta);
                direct.take(scaled);
                seen.take(inside(j, s.C) ? scaled * window.value[before] / base : 0.0f);
                if (c >= place.begin && c < place.end) {
                    const float value = fmaf(-factor * window.value[0], seen.sum(), direct.value[0]);
                    dx[place.pixel + c * s.L] = from_float<Stored<T>>(value);
                }
            }
        }
    } else {
        for (int64 c = place.begin; c < place.end; ++c) {
            const int64 at = place.pixel + c * s.L;
            const int64 low = c - (s.size - 1) / 2, begin = low > 0 ? low : 0, last = c + s.size / 2;
            const int64 end = last < s.C ? last + 1 : s.C;
            float seen = 0.0f;
            for (int64 i = begin; i < end; ++i) seen += slopes[place.pixel + i * s.L];
            const float scaled = to_float(dy[at]) * inverse_power(base_at(x, s, power, place.pixel, c), power.beta);
            dx[at] = from_float<Stored<T>>(fmaf(-factor * to_float(x[at]), seen, scaled));
        }
    }
}

}  // namespace pycnn
