// activation: functions of one number with up to three settings a, b, c, and their gradients; float32, or 16 bits stored
// and float32 computed.
//
//     elu          b * x where x > 0, else a * (e^(c x) - 1)       erf           erf(x)
//     gelu         x * Phi(x), Phi the normal distribution         gelu_tanh     x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))
//     hardshrink   0 where |x| <= a, else x                        softshrink    x less its part within -a .. a
//     hardsigmoid  x + 3, within 0 .. 6, over 6                    hardswish     x * hardsigmoid(x)
//     hardtanh     x, within a .. b                                threshold     b where x <= a, else x
//     huber        b * (x^2 / 2 where |x| <= a, else a * (|x| - a/2))
//     leaky_relu   x where x > 0, else a * x                       silu          x * sigmoid(x)
//     logsigmoid   -log(1 + e^-x)                                  softplus      log(1 + e^(a x)) / a, x where a x > b
//     mish         x * tanh(log(1 + e^x))                          softsign      x / (1 + |x|)
//     tanhshrink   x - tanh(x)
//
// activation_fwd is y = f(x), activation_bwd dx = dy * f'(x).  NaN stays NaN forward; backward it takes the side of the
// last "else" above.
//
// One instance holds the whole family: which function it is, is the same for all threads, so the choice is one jump that
// nobody diverges at, before the elements' arithmetic.
//
// Who owns what: a thread owns `vectors` vectors of four neighbours, eight of 16 bits, `threads` vectors apart;
// stream.cuh has the drawing.
//
// Launch      ceil(size / (warps * 128 * vectors)) blocks of warps * 32 threads, half of that in 16 bits; past 2^31 - 1
//             the grid goes on along y.
// Shared      none.
// Determinism each element is computed by one thread from its own operands.
// Cost        8 bytes an element forward, 12 backward; half of that in 16 bits.
// Limit       bandwidth of the memory for what has no exponential; with one or two, instructions come near it.
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ActivationTile {
    int type;     // of all arrays, as StorageOf has it
    int vectors;  // of 128 bits, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

// pycnn/backends/cuda/activation.py has the same order.
enum Activation {
    kElu,
    kErf,
    kGelu,
    kGeluTanh,
    kHardshrink,
    kHardsigmoid,
    kHardswish,
    kHardtanh,
    kHuber,
    kLeakyRelu,
    kLogsigmoid,
    kMish,
    kSilu,
    kSoftplus,
    kSoftshrink,
    kSoftsign,
    kTanhshrink,
    kThreshold,
};

// Passed by value; pycnn/backends/cuda/activation.py packs the same fields in the same order.
struct ActivationSettings {
    float a, b, c;
};

__device__ __forceinline__ float clamped(float x, float low, float high) {
    x = x < low ? low : x;  // keeps a NaN
    return x > high ? high : x;
}

__device__ __forceinline__ float sigmoid_of(float x) {
    const float small = expf(-fabsf(x));
    return __fdividef(x < 0.0f ? small : 1.0f, 1.0f + small);
}

// log(1 + e^x), without overflow.
__device__ __forceinline__ float softplus_of(float x) {
    return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x)));
}

// The argument of gelu's approximation by tanh, doubled: (1 + tanh(u)) / 2 is sigmoid(2u).
__device__ constexpr float kGeluScale = 1.5957691216057307f;  // 2 sqrt(2 / pi)
__device__ constexpr float kGeluCube = 0.044715f;

// tanh(log(1 + e^x)) = w / (w + 2) with n = e^x and w = n (n + 2); past 20 it is 1 to the last bit.
struct Mish {
    float x, n, w;  // x: limited

    __device__ __forceinline__ explicit Mish(float given) {
        x = given > 20.0f ? 20.0f : given;
        n = expf(x);
        w = n * (n + 2.0f);
    }
};

template <int op>
__device__ __forceinline__ float value_of(float x, const ActivationSettings& s) {
    if constexpr (op == kElu) {
        return x <= 0.0f ? s.a * expm1f(x * s.c) : s.b * x;
    } else if constexpr (op == kErf) {
        return erff(x);
    } else if constexpr (op == kGelu) {
        return x * normcdff(x);
    } else if constexpr (op == kGeluTanh) {
        return x * sigmoid_of(kGeluScale * fmaf(kGeluCube * x, x * x, x));
    } else if constexpr (op == kHardshrink) {
        return fabsf(x) <= s.a ? 0.0f : x;
    } else if constexpr (op == kHardsigmoid) {
        return clamped(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    } else if constexpr (op == kHardswish) {
        return x * clamped(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    } else if constexpr (op == kHardtanh) {
        return clamped(x, s.a, s.b);
    } else if constexpr (op == kHuber) {
        const float size = fabsf(x);
        return s.b * (size <= s.a ? 0.5f * x * x : s.a * (size - 0.5f * s.a));
    } else if constexpr (op == kLeakyRelu) {
        return x > 0.0f ? x : x * s.a;
    } else if constexpr (op == kLogsigmoid) {
        return -softplus_of(-x);
    } else if constexpr (op == kMish) {
        const Mish m(x);
        return x * (m.w / (m.w + 2.0f));
    } else if constexpr (op == kSilu) {
        return x * sigmoid_of(x);
    } else if constexpr (op == kSoftplus) {
        return x * s.a > s.b ? x : softplus_of(x * s.a) / s.a;
    } else if constexpr (op == kSoftshrink) {
        return x - clamped(x, -s.a, s.a);
    } else if constexpr (op == kSoftsign) {
        return x / (1.0f + fabsf(x));
    } else if constexpr (op == kTanhshrink) {
        return x - tanhf(x);
    } else {
        return x <= s.a ? s.b : x;
    }
}

template <int op>
__device__ __forceinline__ float slope_of(float dy, float x, const ActivationSettings& s) {
    if constexpr (op == kElu) {
        return dy * (x <= 0.0f ? s.a * s.c * expf(x * s.c) : s.b);
    } else if constexpr (op == kErf) {
        return dy * (1.12837916709551257f * expf(-x * x));
    } else if constexpr (op == kGelu) {
        return dy * fmaf(x * expf(-0.5f * x * x), 0.398942280401432678f, normcdff(x));
    } else if constexpr (op == kGeluTanh) {
        const float square = x * x, u = kGeluScale * fmaf(kGeluCube * x, square, x);
        const float rise = kGeluScale * fmaf(3.0f * kGeluCube, square, 1.0f);
        const float value = sigmoid_of(u);
        return dy * fmaf(x * (value * sigmoid_of(-u)), rise, value);
    } else if constexpr (op == kHardshrink || op == kSoftshrink) {
        return fabsf(x) <= s.a ? 0.0f : dy;
    } else if constexpr (op == kHardsigmoid) {
        return fabsf(x) < 3.0f ? dy / 6.0f : 0.0f;
    } else if constexpr (op == kHardswish) {
        return x <= -3.0f ? 0.0f : x < 3.0f ? dy * (x / 3.0f + 0.5f) : dy;
    } else if constexpr (op == kHardtanh) {
        return x <= s.a || x >= s.b ? 0.0f : dy;
    } else if constexpr (op == kHuber) {
        return dy * (s.b * clamped(x, -s.a, s.a));
    } else if constexpr (op == kLeakyRelu) {
        return x > 0.0f ? dy : dy * s.a;
    } else if constexpr (op == kLogsigmoid) {
        return dy * sigmoid_of(-x);
    } else if constexpr (op == kMish) {
        const Mish m(x);
        const float below = m.w + 2.0f;
        return dy * (m.w / below + m.x * (4.0f * m.n * (m.n + 1.0f) / (below * below)));
    } else if constexpr (op == kSilu) {
        return dy * (sigmoid_of(x) * fmaf(x, sigmoid_of(-x), 1.0f));
    } else if constexpr (op == kSoftplus) {
        return x * s.a > s.b ? dy : dy * sigmoid_of(x * s.a);
    } else if constexpr (op == kSoftsign) {
        const float below = 1.0f + fabsf(x);
        return dy / (below * below);
    } else if constexpr (op == kTanhshrink) {
        const float t = tanhf(x);
        return dy * (t * t);
    } else {
        return x <= s.a ? 0.0f : dy;
    }
}

// body(op) with the function's number as a constant.
template <int op = kElu, typename Body>
__device__ __forceinline__ void with_function(int64 function, const Body& body) {
    if constexpr (op < kThreshold) {
        if (function != op) return with_function<op + 1>(function, body);
    }
    body.template operator()<op>();
}

template <ActivationTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    activation_fwd(const int64 size, const int64 function, const ActivationSettings settings,
                   const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), size, aligned16(x, y));
    float value[T.vectors][width];
    stretch.read(x, value);
    with_function(function, [&]<int op>() {
#pragma unroll
        for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
            for (int v = 0; v < width; ++v) value[i][v] = value_of<op>(value[i][v], settings);
        }
    });
    stretch.write(y, value);
}

template <ActivationTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    activation_bwd(const int64 size, const int64 function, const ActivationSettings settings,
                   const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ dx) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), size, aligned16(dy, x, dx));
    float slope[T.vectors][width], value[T.vectors][width];
    stretch.read(dy, slope);
    stretch.read(x, value);
    with_function(function, [&]<int op>() {
#pragma unroll
        for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
            for (int v = 0; v < width; ++v) slope[i][v] = slope_of<op>(slope[i][v], value[i][v], settings);
        }
    });
    stretch.write(dx, slope);
}

}  // namespace pycnn
