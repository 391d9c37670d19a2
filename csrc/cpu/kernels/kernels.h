// Every kernel of the instruction set being compiled; table.cpp puts them into the table the rest of the engine calls.
//
// A unit of this folder is compiled once for each instruction set with that set's flags (setup.py), into its namespace.
// It includes no standard header with inline code in it: the linker keeps one copy of an inline function, and it might
// keep the one compiled for AVX-512 on a machine without it.
#pragma once

#include "cpu/operators.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
double fma_probe(int64_t rounds);

template <typename T>
void gemm(const Gemm<T>& problem);

template <typename T>
int64_t winograd(const Winograd<T>& problem);

template <typename T>
int64_t winograd_wgrad(const WinogradWgrad<T>& problem);

template <typename T>
int64_t winograd_workspace(const Winograd<T>& problem, int64_t threads);

template <typename T>
int64_t winograd_wgrad_workspace(const WinogradWgrad<T>& problem, int64_t threads);

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

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
