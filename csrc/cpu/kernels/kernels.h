// Every kernel of the instruction set being compiled; table.cpp puts them into the table the rest of the engine calls.
//
// A unit of this folder is compiled once for each instruction set with that set's flags (setup.py), into its namespace.
// It includes no standard header with inline code in it: the linker keeps one copy of an inline function, and it might
// keep the one compiled for AVX-512 on a machine without it.
#pragma once

#include "cpu/half.h"
#include "cpu/operators.h"
#include "cpu/optim.h"
#include "cpu/packed.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
double fma_probe(int64_t rounds);

template <typename T>
void gemm(const Gemm<T>& problem);

template <typename T>
void unary(Unary function, int64_t count, const T* x, T* y);
template <typename T>
void binary(Binary function, int64_t count, const T* a, const T* b, T* y);
template <typename T>
void activation_fwd(const ActivationFunction& function, int64_t count, const T* x, T* y);
template <typename T>
void activation_bwd(const ActivationFunction& function, int64_t count, const T* dy, const T* x, T* dx);
template <typename T>
void softmax_fwd(const SoftmaxShape& shape, const T* x, T* y);
template <typename T>
void softmax_bwd(const SoftmaxShape& shape, const T* dy, const T* y, T* dx);

template <typename T>
void batch_norm_fwd(const BatchNormFwd<T>& problem);
template <typename T>
void batch_norm_bwd(const BatchNormBwd<T>& problem);
template <typename T>
void group_norm_fwd(const GroupNormFwd<T>& problem);
template <typename T>
void group_norm_bwd(const GroupNormBwd<T>& problem);
template <typename T>
void channel_affine(const ChannelShape& shape, const T* x, const T* scale, const T* shift, T* y);
template <typename T>
void lrn_fwd(const LrnShape& shape, const T* x, T* y);
template <typename T>
void lrn_bwd(const LrnShape& shape, const T* dy, const T* x, T* dx);

template <typename T>
void max_pool_fwd(const MaxPool<T>& problem);
template <typename T>
void avg_pool_fwd(const AvgPool<T>& problem);
template <typename T>
void avg_pool_bwd(const AvgPool<T>& problem);

template <typename T>
void dropout(const PhiloxStream& stream, std::uint32_t threshold, T scale, int64_t count, const T* x, T* y);
void philox_uint32(const PhiloxStream& stream, int64_t count, std::uint32_t* words);

template <typename T>
void resample(const Resample<T>& problem);
template <typename T>
void sample_fwd(const Samples& s, const T* x, const T* weight, T* y);
template <typename T>
void sample_dx(const Samples& s, const T* dy, const T* weight, T* dx);
template <typename T>
void sample_dw(const Samples& s, const T* dy, const T* x, T* dw);

template <typename T>
int64_t winograd(const Winograd<T>& problem);

template <typename T>
int64_t winograd_wgrad(const WinogradWgrad<T>& problem);

template <typename T>
int64_t winograd_workspace(const Winograd<T>& problem, int64_t threads);

template <typename T>
int64_t winograd_wgrad_workspace(const WinogradWgrad<T>& problem, int64_t threads);

void widen(Half kind, int64_t count, const std::uint16_t* x, float* y);
void narrow(Half kind, int64_t count, const float* x, std::uint16_t* y);

void sgd_step(const SgdStep& step, int64_t parameters, const Stepped* list);
void adam_step(const AdamStep& step, int64_t parameters, const Stepped* list);

template <typename T>
void channel_sum(int64_t n, int64_t channels, int64_t inner, const T* dy, T* sum);

template <typename T>
void conv_fprop_direct(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);
template <typename T>
void conv_dgrad_direct(const ConvShape& s, const T* dy, const T* w, T* dx);
template <typename T>
void conv_wgrad_direct(const ConvShape& s, const T* dy, const T* x, T* dw);

template <typename T>
void conv_fprop_im2col(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);
template <typename T>
void conv_dgrad_im2col(const ConvShape& s, const T* dy, const T* w, T* dx);
template <typename T>
void conv_wgrad_im2col(const ConvShape& s, const T* dy, const T* x, T* dw);

template <typename T>
void conv_fprop_im2col_explicit(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);
template <typename T>
void conv_dgrad_im2col_explicit(const ConvShape& s, const T* dy, const T* w, T* dx);
template <typename T>
void conv_wgrad_im2col_explicit(const ConvShape& s, const T* dy, const T* x, T* dw);

void packed_pack(int64_t images, const PackedView& from, const PackedView& to);
void packed_unpack(int64_t images, const PackedView& from, const PackedView& to);
void packed_clear(int64_t images, const PackedView& x);
void packed_rows(int64_t rows, int64_t columns, const float* from, float* to);
void packed_filters(int64_t K, int64_t C, int64_t taps, const float* from, float* to);
void packed_turned_filters(int64_t K, int64_t C, int64_t taps, const float* from, const int64_t* place,
                           const int64_t* output, const int64_t* input, float* to);
void packed_conv(const PackedConv& problem);
void packed_winograd(const PackedWinograd& problem);
void packed_winograd_filters(int64_t tile, int64_t taps, int64_t K, int64_t C, const float* filters,
                             float* transformed);
void packed_linear(const PackedLinear& problem);
void packed_depthwise(const PackedDepthwise& problem);
void packed_max_pool(const PackedPool& problem);
void packed_avg_pool(const PackedPool& problem);
void packed_mean(int64_t images, const PackedView& x, float* y);
void packed_add(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp);
void packed_mul(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp);
void packed_affine(int64_t images, const PackedView& x, const float* scale, const float* shift, const PackedView& y,
                   const Clamp& clamp);
void packed_scale(int64_t images, const PackedView& x, const PackedView& scale, const PackedView& y,
                  const Clamp& clamp);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
