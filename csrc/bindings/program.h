// A compiled network, built step by step from Python and run without it.
//
// Every step is checked as it is added: what it reads and writes must lie within the arena, so that a plan read from a
// damaged file is refused and cannot reach foreign memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/pool_windows.h"
#include "bindings/program_parameters.h"
#include "bindings/program_tensors.h"
#include "cpu/isa.h"
#include "cpu/operators.h"
#include "cpu/program.h"

namespace pycnn::program {

using Pair = std::array<int64_t, 2>;
using Sides = std::array<int64_t, 4>;                 // top, bottom, left, right
using Bounds = std::optional<std::array<double, 2>>;  // the lowest and highest value that a step writes

class Program {
  public:
    Program(int64_t images, int64_t arena);

    int64_t arena() const { return program_.arena(); }
    std::size_t size() const { return program_.size(); }

    // Steps with filters: program_conv.cpp.
    void conv(const Tensor& x, const Tensor& y, const SharedFilters& filters, const std::optional<Floats>& bias,
              const Pair& stride, const Pair& padding, const Pair& dilation, const std::optional<View>& residual,
              const Bounds& clamp, const std::string& algo, bool keep);
    void depthwise(const Tensor& x, const Tensor& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                   const Pair& stride, const Pair& padding, const Pair& dilation, const Bounds& clamp);
    void conv_nchw(const Plain& x, const Plain& y, const Floats& w, const std::optional<Floats>& bias,
                   const std::array<int64_t, 3>& image, const Pair& out, const Pair& stride, const Pair& padding,
                   const Pair& dilation, int64_t groups);
    void linear(const Plain& x, const Plain& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                const Bounds& clamp);

    // Steps without: program_steps.cpp.
    void max_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
                  const Pair& dilation);
    void avg_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
                  bool count_include_pad, std::optional<int64_t> divisor_override);
    void adaptive_max_pool(const View& x, const View& y);
    void adaptive_avg_pool(const View& x, const View& y);
    void mean(const View& x, const Plain& y);
    void sum(const View& a, const View& b, const View& y, const Bounds& clamp);
    void mul(const View& a, const View& b, const View& y, const Bounds& clamp);
    void affine(const View& x, const View& y, const std::optional<Floats>& scale, const std::optional<Floats>& shift,
                const Bounds& clamp);
    // The scale has one pixel.
    void scale(const View& x, const View& scale, const View& y, const Bounds& clamp);
    // Elementwise on dense memory, so also on a whole packed tensor where f(0) is 0.
    void unary(const std::string& name, const Plain& x, const Plain& y, int64_t count);
    void activation(const std::string& name, const Plain& x, const Plain& y, int64_t count, double a, double b,
                    double c);
    void lrn(const Plain& x, const Plain& y, int64_t channels, int64_t pixels, int64_t size, double alpha, double beta,
             double k);
    void softmax(const Plain& x, const Plain& y, int64_t outer, int64_t count, int64_t inner, bool log);
    void copy(const Plain& x, const Plain& y, int64_t count);
    // Axis i of y is axis order[i] of x, which has `shape` for each image; the images stay first.
    void permute(const Plain& x, const Plain& y, const std::vector<int64_t>& shape, const std::vector<int64_t>& order);
    void pack(const Images& x, const View& y);
    void unpack(const View& x, const Images& y);
    void clear(const View& x);

    void execute(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs) const;
    std::vector<double> profile(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs,
                                int rounds) const;

  private:
    struct Arrays {
        std::vector<const float*> inputs;
        std::vector<float*> outputs;

        Arrays(const Program& program, const std::vector<py::array>& from, const std::vector<py::array>& to);
    };

    const cpu::PackedOperators& run() const { return kernels_.packed; }

    void add(cpu::Program::Step step) { program_.add(std::move(step)); }

    void pool(const View& x, const View& y, PoolWindows rows, PoolWindows columns, bool largest);
    void binary(decltype(cpu::PackedOperators::add) function, const View& a, const View& b, const View& y,
                const Bounds& clamp);

    // Checks, of what Python says, before a step is added: program_checks.cpp.
    static void sizes(std::initializer_list<int64_t> values);
    static void steps(const Pair& stride, const Pair& dilation);
    // The sizes of x, y and a window agree well enough to be multiplied and compared.
    void window(const Sizes& x, const Sizes& y, const Pair& taps, const Pair& stride, const Pair& padding,
                const Pair& dilation) const;
    void fits(const Filters& filters, Filters::Kind kind, int64_t K, int64_t C) const;
    static void same(const Sizes& a, const Sizes& b);
    static cpu::Clamp clamp_of(const Bounds& bounds);
    // The whole tensor lies in the arena.
    void inside(const View& v) const;
    void reads(const Tensor& x);
    void writes(const Tensor& y);
    void reads(const Plain& x, int64_t count);
    void writes(const Plain& y, int64_t count);
    void touches(const Plain& array, int64_t count, std::vector<int64_t>& outside) const;

    int64_t images_;
    cpu::Program program_;
    const cpu::Kernels& kernels_;  // of the instruction set in force when it was made
    const int64_t lanes_;
    std::vector<int64_t> inputs_, outputs_;  // floats that the steps touch
};

}  // namespace pycnn::program
