#include "cpu/program.h"

#include <algorithm>
#include <chrono>

#include "cpu/memory.h"

namespace pycnn::cpu {

void Program::run(const float* const* inputs, float* const* outputs) const {
    const Scratch<float> arena(static_cast<std::size_t>(arena_));
    const Frame frame = {arena.get(), inputs, outputs};
    for (const Step& step : steps_) step(frame);
}

std::vector<double> Program::profile(const float* const* inputs, float* const* outputs, int rounds) const {
    using Clock = std::chrono::steady_clock;
    const Scratch<float> arena(static_cast<std::size_t>(arena_));
    const Frame frame = {arena.get(), inputs, outputs};
    std::vector<std::vector<double>> times(steps_.size());
    for (int round = 0; round < rounds; round++) {
        auto last = Clock::now();
        for (std::size_t i = 0; i < steps_.size(); i++) {
            steps_[i](frame);
            const auto now = Clock::now();
            times[i].push_back(std::chrono::duration<double>(now - last).count());
            last = now;
        }
    }
    std::vector<double> medians;
    for (auto& of_step : times) {
        std::nth_element(of_step.begin(), of_step.begin() + rounds / 2, of_step.end());
        medians.push_back(of_step[rounds / 2]);
    }
    return medians;
}

}  // namespace pycnn::cpu
