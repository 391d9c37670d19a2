// Winograd's transforms along one dimension, as straight-line code.  Written by
//
//     python -m pycnn.jit.winograd_codegen kernels/winograd_transforms.cuh
//
// from the exact fractions of pycnn/winograd.py; a test holds the two together.  Do not edit.
//
//     y = AT ((G g) * (BT d))        y: m outputs, g: r taps, d: m + r - 1 inputs: F(m, r)
//
// BT depends on the number of points, m + r - 1, alone.  wgrad is F(3, m): its "taps" are a tile of dy, and its outputs
// the taps of dw.
//
// X<...>::line reads X::ins values that lie `from` apart and writes X::outs values `to` apart; the two may be the same
// place.  Rows of points p and -p share their even and odd halves, columns their sum and difference.
#pragma once

namespace pycnn {

template <int points>
struct InputTransform;
template <int m, int r>
struct FilterTransform;
template <int m, int r>
struct OutputTransform;

// BT of F(2, 3), F(3, 2).
template <>
struct InputTransform<4> {
    static constexpr int ins = 4, outs = 4;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float out0 = in0 - in2;
        const float out1 = in2 + in1;
        const float out2 = in2 - in1;
        const float out3 = in3 - in1;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
    }
};

// BT of F(4, 3), F(3, 4), F(2, 5).
template <>
struct InputTransform<6> {
    static constexpr int ins = 6, outs = 6;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float even1 = fmaf(-4.0f, in2, in4);
        const float odd1 = fmaf(-4.0f, in1, in3);
        const float even3 = in4 - in2;
        const float odd3 = in1 - in3;
        const float out0 = fmaf(-5.0f, in2, fmaf(4.0f, in0, in4));
        const float out1 = even1 + odd1;
        const float out2 = even1 - odd1;
        const float out3 = fmaf(-2.0f, odd3, even3);
        const float out4 = fmaf(2.0f, odd3, even3);
        const float out5 = fmaf(-5.0f, in3, fmaf(4.0f, in1, in5));
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
    }
};

// BT of F(6, 3), F(3, 6), F(4, 5).
template <>
struct InputTransform<8> {
    static constexpr int ins = 8, outs = 8;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float in6 = in[6 * from];
        const float in7 = in[7 * from];
        const float even1 = fmaf(-4.25f, in4, in2 + in6);
        const float odd1 = fmaf(-4.25f, in3, in1 + in5);
        const float even3 = fmaf(-1.25f, in4, fmaf(0.25f, in2, in6));
        const float odd3 = fmaf(4.0f, in5, fmaf(-5.0f, in3, in1));
        const float even5 = fmaf(-5.0f, in4, fmaf(4.0f, in2, in6));
        const float odd5 = fmaf(0.25f, in5, fmaf(-1.25f, in3, in1));
        const float out0 = fmaf(5.25f, in4, fmaf(-5.25f, in2, in0 - in6));
        const float out1 = even1 + odd1;
        const float out2 = even1 - odd1;
        const float out3 = fmaf(0.5f, odd3, even3);
        const float out4 = fmaf(-0.5f, odd3, even3);
        const float out5 = fmaf(2.0f, odd5, even5);
        const float out6 = fmaf(-2.0f, odd5, even5);
        const float out7 = fmaf(-5.25f, in5, fmaf(5.25f, in3, in7 - in1));
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
        out[6 * to] = out6;
        out[7 * to] = out7;
    }
};

// G of F(2, 3).
template <>
struct FilterTransform<2, 3> {
    static constexpr int ins = 3, outs = 4;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float even1 = in0 + in2;
        const float scaled1 = 0.5f * even1;
        const float out0 = in0;
        const float out1 = fmaf(0.5f, in1, scaled1);
        const float out2 = fmaf(-0.5f, in1, scaled1);
        const float out3 = in2;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
    }
};

// AT of F(2, 3).
template <>
struct OutputTransform<2, 3> {
    static constexpr int ins = 4, outs = 2;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float out0 = in0 + sum1;
        const float out1 = difference1 + in3;
        out[0 * to] = out0;
        out[1 * to] = out1;
    }
};

// G of F(4, 3).
template <>
struct FilterTransform<4, 3> {
    static constexpr int ins = 3, outs = 6;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float even1 = in0 + in2;
        const float scaled1 = -1.0f / 6.0f * even1;
        const float even3 = fmaf(4.0f, in2, in0);
        const float scaled3 = 1.0f / 24.0f * even3;
        const float out0 = 0.25f * in0;
        const float out1 = fmaf(-1.0f / 6.0f, in1, scaled1);
        const float out2 = fmaf(1.0f / 6.0f, in1, scaled1);
        const float out3 = fmaf(1.0f / 12.0f, in1, scaled3);
        const float out4 = fmaf(-1.0f / 12.0f, in1, scaled3);
        const float out5 = in2;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
    }
};

// AT of F(4, 3).
template <>
struct OutputTransform<4, 3> {
    static constexpr int ins = 6, outs = 4;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float out0 = in0 + sum1 + sum3;
        const float out1 = fmaf(2.0f, difference3, difference1);
        const float out2 = fmaf(4.0f, sum3, sum1);
        const float out3 = fmaf(8.0f, difference3, difference1 + in5);
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
    }
};

// G of F(6, 3).
template <>
struct FilterTransform<6, 3> {
    static constexpr int ins = 3, outs = 8;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float even1 = in0 + in2;
        const float scaled1 = -2.0f / 9.0f * even1;
        const float even3 = fmaf(4.0f, in2, in0);
        const float scaled3 = 1.0f / 90.0f * even3;
        const float even5 = fmaf(0.25f, in2, in0);
        const float scaled5 = 32.0f / 45.0f * even5;
        const float out0 = in0;
        const float out1 = fmaf(-2.0f / 9.0f, in1, scaled1);
        const float out2 = fmaf(2.0f / 9.0f, in1, scaled1);
        const float out3 = fmaf(1.0f / 45.0f, in1, scaled3);
        const float out4 = fmaf(-1.0f / 45.0f, in1, scaled3);
        const float out5 = fmaf(16.0f / 45.0f, in1, scaled5);
        const float out6 = fmaf(-16.0f / 45.0f, in1, scaled5);
        const float out7 = in2;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
        out[6 * to] = out6;
        out[7 * to] = out7;
    }
};

// AT of F(6, 3).
template <>
struct OutputTransform<6, 3> {
    static constexpr int ins = 8, outs = 6;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float in6 = in[6 * from];
        const float in7 = in[7 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float sum5 = in5 + in6;
        const float difference5 = in5 - in6;
        const float out0 = in0 + sum1 + sum3 + sum5;
        const float out1 = fmaf(0.5f, difference5, fmaf(2.0f, difference3, difference1));
        const float out2 = fmaf(0.25f, sum5, fmaf(4.0f, sum3, sum1));
        const float out3 = fmaf(0.125f, difference5, fmaf(8.0f, difference3, difference1));
        const float out4 = fmaf(0.0625f, sum5, fmaf(16.0f, sum3, sum1));
        const float out5 = fmaf(0.03125f, difference5, fmaf(32.0f, difference3, difference1 + in7));
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
    }
};

// G of F(3, 2).
template <>
struct FilterTransform<3, 2> {
    static constexpr int ins = 2, outs = 4;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float scaled1 = 0.5f * in0;
        const float out0 = in0;
        const float out1 = fmaf(0.5f, in1, scaled1);
        const float out2 = fmaf(-0.5f, in1, scaled1);
        const float out3 = in1;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
    }
};

// AT of F(3, 2).
template <>
struct OutputTransform<3, 2> {
    static constexpr int ins = 4, outs = 3;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float out0 = in0 + sum1;
        const float out1 = difference1;
        const float out2 = sum1 + in3;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
    }
};

// G of F(3, 4).
template <>
struct FilterTransform<3, 4> {
    static constexpr int ins = 4, outs = 6;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float even1 = in0 + in2;
        const float odd1 = in1 + in3;
        const float scaled1 = -1.0f / 6.0f * even1;
        const float even3 = fmaf(4.0f, in2, in0);
        const float odd3 = fmaf(4.0f, in3, in1);
        const float scaled3 = 1.0f / 24.0f * even3;
        const float out0 = 0.25f * in0;
        const float out1 = fmaf(-1.0f / 6.0f, odd1, scaled1);
        const float out2 = fmaf(1.0f / 6.0f, odd1, scaled1);
        const float out3 = fmaf(1.0f / 12.0f, odd3, scaled3);
        const float out4 = fmaf(-1.0f / 12.0f, odd3, scaled3);
        const float out5 = in3;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
    }
};

// AT of F(3, 4).
template <>
struct OutputTransform<3, 4> {
    static constexpr int ins = 6, outs = 3;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float out0 = in0 + sum1 + sum3;
        const float out1 = fmaf(2.0f, difference3, difference1);
        const float out2 = fmaf(4.0f, sum3, sum1 + in5);
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
    }
};

// G of F(3, 6).
template <>
struct FilterTransform<3, 6> {
    static constexpr int ins = 6, outs = 8;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float even1 = in0 + in2 + in4;
        const float odd1 = in1 + in3 + in5;
        const float scaled1 = -2.0f / 9.0f * even1;
        const float even3 = fmaf(16.0f, in4, fmaf(4.0f, in2, in0));
        const float odd3 = fmaf(16.0f, in5, fmaf(4.0f, in3, in1));
        const float scaled3 = 1.0f / 90.0f * even3;
        const float even5 = fmaf(0.0625f, in4, fmaf(0.25f, in2, in0));
        const float odd5 = fmaf(0.0625f, in5, fmaf(0.25f, in3, in1));
        const float scaled5 = 32.0f / 45.0f * even5;
        const float out0 = in0;
        const float out1 = fmaf(-2.0f / 9.0f, odd1, scaled1);
        const float out2 = fmaf(2.0f / 9.0f, odd1, scaled1);
        const float out3 = fmaf(1.0f / 45.0f, odd3, scaled3);
        const float out4 = fmaf(-1.0f / 45.0f, odd3, scaled3);
        const float out5 = fmaf(16.0f / 45.0f, odd5, scaled5);
        const float out6 = fmaf(-16.0f / 45.0f, odd5, scaled5);
        const float out7 = in5;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
        out[6 * to] = out6;
        out[7 * to] = out7;
    }
};

// AT of F(3, 6).
template <>
struct OutputTransform<3, 6> {
    static constexpr int ins = 8, outs = 3;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float in6 = in[6 * from];
        const float in7 = in[7 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float sum5 = in5 + in6;
        const float difference5 = in5 - in6;
        const float out0 = in0 + sum1 + sum3 + sum5;
        const float out1 = fmaf(0.5f, difference5, fmaf(2.0f, difference3, difference1));
        const float out2 = fmaf(0.25f, sum5, fmaf(4.0f, sum3, sum1 + in7));
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
    }
};

// G of F(2, 5).
template <>
struct FilterTransform<2, 5> {
    static constexpr int ins = 5, outs = 6;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float even1 = in0 + in2 + in4;
        const float odd1 = in1 + in3;
        const float scaled1 = -1.0f / 6.0f * even1;
        const float even3 = fmaf(16.0f, in4, fmaf(4.0f, in2, in0));
        const float odd3 = fmaf(4.0f, in3, in1);
        const float scaled3 = 1.0f / 24.0f * even3;
        const float out0 = 0.25f * in0;
        const float out1 = fmaf(-1.0f / 6.0f, odd1, scaled1);
        const float out2 = fmaf(1.0f / 6.0f, odd1, scaled1);
        const float out3 = fmaf(1.0f / 12.0f, odd3, scaled3);
        const float out4 = fmaf(-1.0f / 12.0f, odd3, scaled3);
        const float out5 = in4;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
    }
};

// AT of F(2, 5).
template <>
struct OutputTransform<2, 5> {
    static constexpr int ins = 6, outs = 2;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float out0 = in0 + sum1 + sum3;
        const float out1 = fmaf(2.0f, difference3, difference1 + in5);
        out[0 * to] = out0;
        out[1 * to] = out1;
    }
};

// G of F(4, 5).
template <>
struct FilterTransform<4, 5> {
    static constexpr int ins = 5, outs = 8;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float even1 = in0 + in2 + in4;
        const float odd1 = in1 + in3;
        const float scaled1 = -2.0f / 9.0f * even1;
        const float even3 = fmaf(16.0f, in4, fmaf(4.0f, in2, in0));
        const float odd3 = fmaf(4.0f, in3, in1);
        const float scaled3 = 1.0f / 90.0f * even3;
        const float even5 = fmaf(0.0625f, in4, fmaf(0.25f, in2, in0));
        const float odd5 = fmaf(0.25f, in3, in1);
        const float scaled5 = 32.0f / 45.0f * even5;
        const float out0 = in0;
        const float out1 = fmaf(-2.0f / 9.0f, odd1, scaled1);
        const float out2 = fmaf(2.0f / 9.0f, odd1, scaled1);
        const float out3 = fmaf(1.0f / 45.0f, odd3, scaled3);
        const float out4 = fmaf(-1.0f / 45.0f, odd3, scaled3);
        const float out5 = fmaf(16.0f / 45.0f, odd5, scaled5);
        const float out6 = fmaf(-16.0f / 45.0f, odd5, scaled5);
        const float out7 = in4;
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
        out[4 * to] = out4;
        out[5 * to] = out5;
        out[6 * to] = out6;
        out[7 * to] = out7;
    }
};

// AT of F(4, 5).
template <>
struct OutputTransform<4, 5> {
    static constexpr int ins = 8, outs = 4;
    template <int from, int to>
    static __device__ __forceinline__ void line(const float* in, float* out) {
        const float in0 = in[0 * from];
        const float in1 = in[1 * from];
        const float in2 = in[2 * from];
        const float in3 = in[3 * from];
        const float in4 = in[4 * from];
        const float in5 = in[5 * from];
        const float in6 = in[6 * from];
        const float in7 = in[7 * from];
        const float sum1 = in1 + in2;
        const float difference1 = in1 - in2;
        const float sum3 = in3 + in4;
        const float difference3 = in3 - in4;
        const float sum5 = in5 + in6;
        const float difference5 = in5 - in6;
        const float out0 = in0 + sum1 + sum3 + sum5;
        const float out1 = fmaf(0.5f, difference5, fmaf(2.0f, difference3, difference1));
        const float out2 = fmaf(0.25f, sum5, fmaf(4.0f, sum3, sum1));
        const float out3 = fmaf(0.125f, difference5, fmaf(8.0f, difference3, difference1 + in7));
        out[0 * to] = out0;
        out[1 * to] = out1;
        out[2 * to] = out2;
        out[3 * to] = out3;
    }
};

}  // namespace pycnn
