// exp, log, tanh, sigmoid, erf and their like, and square roots, of whole vectors, float and double, with no call out of
// the loop.
//
// Errors, against the true value, in units in the last place (the tests hold these figures on every instruction set):
//
//     exp <= 1.5   log <= 1.5   tanh <= 3   sigmoid <= 3
//     expm1 <= 3 (of x <= 0)    log1p <= 3 (of 0 <= x <= 1)    erf <= 3    upper_tail <= 8
//
// NaN stays NaN; overflow gives infinity, underflow denormals and then zero; log(0) is -inf, log of a negative NaN.
// Argument reductions and series are the classical ones (Cody & Waite 1980; Tang, "Table-driven implementation of the
// logarithm function", 1990, without the table); the exponential's coefficients interpolate (e^r - 1 - r) / r^2 at the
// Chebyshev points of [-ln2/2, ln2/2], computed with 60 digits; so do those of erf(x) / x, in x^2 up to 0.45, and of the
// normal distribution's tail, which stands for erf beyond: Q(z) e^(z^2/2) (1 + z/2) is nearly a straight line in
// t = (z - 5) / (z + 5), for z from 0 to where Q is no number above 0 any more.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
struct MathOf;

template <>
struct MathOf<float> {
    typedef uint32_t Bits __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
    static constexpr int kMantissa = 23;
    static constexpr uint32_t kBias = 127;
    static constexpr uint32_t kSqrtHalf = 0x3f3504f3;            // the bits of sqrt(1/2)
    static constexpr float kRound = 0x1.8p23f;                   // adding it rounds to an integer, held in the low bits
    static constexpr float kLowest = -104.0f, kHighest = 89.0f;  // exp is 0 below and infinite above
    static constexpr float kTanhIsOne = 10.0f;
    static constexpr float kSmallest = 0x1p-126f, kDenormalScale = 0x1p24f;
    static constexpr float kDenormalShift = 24.0f;
    static constexpr float kLn2High = 0x1.63p-1f, kLn2Low = -2.12194440e-4f;
    static constexpr float kExp[] = {0.5f, 0.16666576989698775683f, 0.041666554617204574203f, 0.0083631790527225773704f,
                                     0.0013926183587713494542f};
    static constexpr uint32_t kUpperHalf = 0xfffff000;  // of the bits: a number whose square is exact
    static constexpr float kMinusOneIs = -20.0f;        // e^x - 1 is -1 below
    static constexpr float kTailIsZero = 15.0f;
    static constexpr float kErf[] = {1.12837916668f,    -0.376126322706f,  0.112836190145f,
                                     -0.0268496619875f, 0.00515208046866f, -0.000707884397454f};
    static constexpr float kTail[] = {0.269217567498f,     -0.11750491636f,    0.0735495852683f,   -0.0354408727117f,
                                      0.0107270852635f,    0.000562978920512f, -0.00308712573379f, 0.0020655176556f,
                                      -0.000744338151618f, 7.23417362283e-5f,  9.22753744693e-5f};
    // log(1 + f) = f - f^2/2 + s (f^2/2 + R), s = f / (2 + f), R = s^2 kLog[0] + s^4 kLog[1] + ...  (fdlibm's)
    static constexpr float kLog[] = {0xaaaaaa.0p-24f, 0xccce13.0p-25f, 0x91e9ee.0p-25f, 0xf89e26.0p-26f};
};

template <>
struct MathOf<double> {
    typedef uint64_t Bits __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
    static constexpr int kMantissa = 52;
    static constexpr uint64_t kBias = 1023;
    static constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kLowest = -746.0, kHighest = 710.0;
    static constexpr double kTanhIsOne = 20.0;
    static constexpr double kSmallest = 0x1p-1022, kDenormalScale = 0x1p53;
    static constexpr double kDenormalShift = 53.0;
    static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
    static constexpr double kExp[] = {0.50000000000000010221,   0.16666666666666667453,   0.041666666666624127873,
                                      0.0083333333333300618325, 0.0013888888917213716901, 0.00019841269863053616878,
                                      2.4801521295954375131e-5, 2.7557268459997064772e-6, 2.7620088445409748161e-7,
                                      2.5100385495510319078e-8};
    static constexpr uint64_t kUpperHalf = 0xfffffffff8000000;
    static constexpr double kMinusOneIs = -40.0;
    static constexpr double kTailIsZero = 39.0;
    static constexpr double kErf[] = {1.1283791670955125738,     -0.37612638903183748464,  0.11283791670954769996,
                                      -0.026866170645007758828,  0.0052239776232420776892, -0.00085483267945772375866,
                                      0.0001205531811865707108,  -0.000014925029169661967, 1.6445375017296467981e-6,
                                      -1.6083680952750692358e-7, 1.2070009965443168147e-8};
    static constexpr double kTail[] = {
        0.26921756741252203545,     -0.11750491854901045479,   0.073549590155983238395,    -0.035440762439454102672,
        0.010727154658940743078,    0.00056153137814855569804, -0.0030895224260829833735,  0.0020715781533707170455,
        -0.00072826080309228362581, 0.00007103423715837399256, 0.000060953334695310327704, -0.000026323214961368435483,
        -1.6258761671844396811e-6,  3.8950967802651624212e-6,  -3.7255199216228148134e-7,  -5.3244534057956499334e-7,
        1.021164887344470954e-7,    7.8958793445113416414e-8,  -1.8129556946123729467e-8,  -1.2814769683859499896e-8,
        2.3487233109461772991e-9,   1.8923292075175301038e-9,  -1.3900024775123274355e-10, -1.5158281062565766679e-10};
    static constexpr double kLog[] = {6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                      2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                      1.479819860511658591e-01};
};

// The vector's bits, as unsigned integers of the elements' width.
template <typename T>
using Bits = typename MathOf<T>::Bits;

template <typename T>
PYCNN_INLINE Vec<T> magnitude(Vec<T> x) {
    return (Vec<T>)((Bits<T>)x << 1 >> 1);
}

// `value`'s size with the sign of `sign`.
template <typename T>
PYCNN_INLINE Vec<T> with_sign(Vec<T> value, Vec<T> sign) {
    return (Vec<T>)(((Bits<T>)value << 1 >> 1) | ((Bits<T>)sign & ~(~Bits<T>{} >> 1)));
}

template <typename T, int COUNT>
PYCNN_INLINE Vec<T> polynomial(Vec<T> x, const T (&coefficients)[COUNT]) {
    Vec<T> sum = broadcast(coefficients[COUNT - 1]);
#pragma GCC unroll 16
    for (int i = COUNT - 2; i >= 0; i--) sum = sum * x + coefficients[i];
    return sum;
}

// x = n ln2 + r, |r| <= ln2/2: e^r - 1, and n as a two's complement integer.
template <typename T>
struct ReducedExp {
    Vec<T> minus_one;
    Bits<T> n;
};

template <typename T>
PYCNN_INLINE ReducedExp<T> reduced_exp(Vec<T> x) {
    using M = MathOf<T>;
    constexpr T kLog2e = static_cast<T>(1.44269504088896340736);
    const Vec<T> shifted = x * kLog2e + M::kRound;
    const Vec<T> n = shifted - M::kRound;
    const Vec<T> r = (x - n * M::kLn2High) - n * M::kLn2Low;
    return {r * r * polynomial<T>(r, M::kExp) + r, (Bits<T>)shifted - (Bits<T>)broadcast(M::kRound)};
}

template <typename T>
PYCNN_INLINE Vec<T> vexp(Vec<T> x) {
    using M = MathOf<T>;
    x = x < M::kLowest ? broadcast(M::kLowest) : x;
    x = x > M::kHighest ? broadcast(M::kHighest) : x;
    const ReducedExp<T> e = reduced_exp<T>(x);
    // Times 2^n in two steps, so that the ends of the range (n below -126 or at 128) neither overflow nor round twice.
    const Bits<T> biased = e.n + 2 * M::kBias;
    const Bits<T> first = biased >> 1;
    const Bits<T> second = biased - first;
    return (e.minus_one + T(1)) * (Vec<T>)(first << M::kMantissa) * (Vec<T>)(second << M::kMantissa);
}

template <typename T>
PYCNN_INLINE Vec<T> vlog(Vec<T> x) {
    using M = MathOf<T>;
    const auto denormal = x < M::kSmallest;
    const Vec<T> scaled = denormal ? x * M::kDenormalScale : x;
    // scaled = 2^n m, m in [sqrt(1/2), sqrt(2)): n is what the bits hold above those of sqrt(1/2).
    const Bits<T> above = (Bits<T>)scaled - M::kSqrtHalf;
    const Bits<T> mantissa_mask = ((Bits<T>{} + 1) << M::kMantissa) - 1;
    const Vec<T> m = (Vec<T>)((above & mantissa_mask) + M::kSqrtHalf);
    // n + a positive offset, so that a logical shift serves; then to floating point through the rounding constant.
    const Bits<T> offset_n = (above + ((Bits<T>{} + M::kBias) << M::kMantissa)) >> M::kMantissa;
    const Bits<T> wrapped = offset_n & (Bits<T>{} + (2 * M::kBias + 1));
    Vec<T> n = (Vec<T>)(wrapped + (Bits<T>)broadcast(M::kRound)) - (M::kRound + static_cast<T>(M::kBias));
    n = denormal ? n - M::kDenormalShift : n;
    const Vec<T> f = m - T(1);
    const Vec<T> s = f / (f + T(2));
    const Vec<T> s2 = s * s;
    const Vec<T> r = s2 * polynomial<T>(s2, M::kLog);
    const Vec<T> half = f * f * T(0.5);
    Vec<T> y = n * M::kLn2High - ((half - (s * (half + r) + n * M::kLn2Low)) - f);
    const T infinity = static_cast<T>(__builtin_inf());
    y = x == T(0) ? broadcast(-infinity) : y;
    y = x == infinity ? x : y;
    return x >= T(0) ? y : broadcast(static_cast<T>(__builtin_nan("")));
}

// (e^2|x| - 1) / (e^2|x| + 1) with the sign of x: e^2|x| - 1 is computed as such, so small x keep all their bits.
template <typename T>
PYCNN_INLINE Vec<T> vtanh(Vec<T> x) {
    using M = MathOf<T>;
    Vec<T> size = magnitude<T>(x);
    size = size > M::kTanhIsOne ? broadcast(M::kTanhIsOne) : size;
    const ReducedExp<T> e = reduced_exp<T>(size + size);
    const Vec<T> power = (Vec<T>)((e.n + M::kBias) << M::kMantissa);
    const Vec<T> minus_one = e.minus_one * power + (power - T(1));
    const Vec<T> y = minus_one / (minus_one + T(2));
    return with_sign<T>(y, x);
}

// 1 / (1 + e^-x), as e^x / (1 + e^x) for negative x: the exponential never overflows and small results keep their bits.
template <typename T>
PYCNN_INLINE Vec<T> vsigmoid(Vec<T> x) {
    const Vec<T> e = vexp<T>(-magnitude<T>(x));
    return (x < T(0) ? e : broadcast(T(1))) / (e + T(1));
}

// e^x - 1 for x <= 0.
template <typename T>
PYCNN_INLINE Vec<T> vexpm1(Vec<T> x) {
    using M = MathOf<T>;
    x = x < M::kMinusOneIs ? broadcast(M::kMinusOneIs) : x;
    const ReducedExp<T> e = reduced_exp<T>(x);
    const Vec<T> power = (Vec<T>)((e.n + M::kBias) << M::kMantissa);
    return e.minus_one * power + (power - T(1));
}

// log(1 + x) for 0 <= x <= 1: what rounding 1 + x took away comes back as a correction of first order.
template <typename T>
PYCNN_INLINE Vec<T> vlog1p(Vec<T> x) {
    const Vec<T> sum = x + T(1);
    return vlog<T>(sum) + (x - (sum - T(1))) / sum;
}

// e^(-scale x^2), for a scale of 1 or 1/2.  x^2 is taken in two parts, of which the large one is exact: its rounding
// errors would be as large in the result as x^2 is itself.
template <typename T>
PYCNN_INLINE Vec<T> vbell(Vec<T> x, T scale) {
    using M = MathOf<T>;
    Vec<T> size = magnitude<T>(x);
    size = size > M::kTailIsZero ? broadcast(M::kTailIsZero) : size;
    const Vec<T> upper = (Vec<T>)((Bits<T>)size & M::kUpperHalf);
    return vexp<T>(upper * upper * -scale) * vexp<T>((size - upper) * (size + upper) * -scale);
}

// The normal distribution's upper tail, Q(z) = erfc(z / sqrt(2)) / 2, for z >= 0, from bell = e^(-z^2/2).
template <typename T>
PYCNN_INLINE Vec<T> vupper_tail(Vec<T> z, Vec<T> bell) {
    using M = MathOf<T>;
    z = z > M::kTailIsZero ? broadcast(M::kTailIsZero) : z;
    return bell * (polynomial<T>((z - T(5)) / (z + T(5)), M::kTail) / (z * T(0.5) + T(1)));
}

// The same from z alone.
template <typename T>
PYCNN_INLINE Vec<T> vupper_tail(Vec<T> z) {
    return vupper_tail<T>(z, vbell<T>(z, T(0.5)));
}

template <typename T>
PYCNN_INLINE Vec<T> verf(Vec<T> x) {
    constexpr T kSqrt2 = static_cast<T>(1.41421356237309504880);
    const Vec<T> size = magnitude<T>(x);
    const Vec<T> far = T(1) - vupper_tail<T>(size * kSqrt2) * T(2);
    return size < T(0.65) ? x * polynomial<T>(x * x, MathOf<T>::kErf) : with_sign<T>(far, x);
}

template <typename T>
PYCNN_INLINE Vec<T> vsqrt(Vec<T> x) {
    for (int i = 0; i < kLanes<T>; i++) x[i] = sizeof(T) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
    return x;
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
