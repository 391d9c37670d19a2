// A compiled network: steps over one arena, run from the first to the last with nothing between them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace pycnn::cpu {

// What a run works on: its own arena, and the caller's arrays.
struct Frame {
    float* arena;
    const float* const* inputs;
    float* const* outputs;
};

class Program {
  public:
    using Step = std::function<void(const Frame&)>;

    // `arena`: floats of memory that the steps share.
    explicit Program(std::int64_t arena) : arena_(arena) {}

    std::int64_t arena() const { return arena_; }
    std::size_t size() const { return steps_.size(); }

    void add(Step step) { steps_.push_back(std::move(step)); }

    // May be called by several threads at once.  Throws std::bad_alloc.
    void run(const float* const* inputs, float* const* outputs) const;

    // Seconds of every step, the median of `rounds` runs.
    std::vector<double> profile(const float* const* inputs, float* const* outputs, int rounds) const;

  private:
    std::int64_t arena_;
    std::vector<Step> steps_;
};

}  // namespace pycnn::cpu
