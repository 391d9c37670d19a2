// The windows of one axis of a pooling problem, clipped to the image.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bindings/arrays.h"
#include "cpu/pool.h"

namespace pycnn {

constexpr std::int64_t kLargestPool = std::int64_t{1} << 40;

// The windows of one axis, clipped to the image, and how many pixels each counts.
struct PoolWindows {
    std::vector<cpu::Span> windows;
    std::vector<double> counts;
    cpu::PoolAxis axis;
};

inline PoolWindows regular_axis(std::int64_t size, std::int64_t out, std::int64_t taps, std::int64_t stride,
                                std::int64_t before, std::int64_t after, std::int64_t dilation, bool count_padding) {
    require(taps >= 1 && stride >= 1 && dilation >= 1, "pooling: window, stride and dilation must be at least 1");
    require(before >= 0 && after >= 0, "pooling: padding must not be negative");
    require(std::max({taps, stride, before, after, dilation, out, size}) <= kLargestPool / 2 &&
                (taps - 1) <= kLargestPool / dilation && out <= kLargestPool / stride,
            "pooling: sizes must stay below 2**40");
    const std::int64_t reach = (taps - 1) * dilation + 1;
    PoolWindows result;
    result.windows.reserve(static_cast<std::size_t>(out));
    result.counts.reserve(static_cast<std::size_t>(out));
    for (std::int64_t i = 0; i < out; i++) {
        const std::int64_t start = i * stride - before;
        const std::int64_t end = std::min(start + reach, size + after);
        // The first pixel of the window that is not in the padding; a dilated window may step over the whole image.
        const std::int64_t begin = start >= 0 ? start : start + (-start + dilation - 1) / dilation * dilation;
        const cpu::Span inside = {begin, std::max(begin, std::min(end, size))};
        result.windows.push_back(inside);
        result.counts.push_back(static_cast<double>(count_padding ? end - start : inside.end - inside.begin));
    }
    result.axis = {size, out, nullptr, dilation, taps, stride, before};
    return result;
}

// Window i of `out` covers pixels floor(i * size / out) up to ceil((i + 1) * size / out).
inline PoolWindows adaptive_axis(std::int64_t size, std::int64_t out) {
    require(size >= 1 && out >= 1 && size <= kLargestPool && out <= (kLargestPool >> 20),
            "adaptive pooling: sizes must be between 1 and 2**40, output sizes at most 2**20");
    if (size % out == 0) return regular_axis(size, out, size / out, size / out, 0, 0, 1, true);
    PoolWindows result;
    result.windows.reserve(static_cast<std::size_t>(out));
    result.counts.reserve(static_cast<std::size_t>(out));
    for (std::int64_t i = 0; i < out; i++) {
        const cpu::Span window = {i * size / out, ((i + 1) * size + out - 1) / out};
        result.windows.push_back(window);
        result.counts.push_back(static_cast<double>(window.end - window.begin));
    }
    result.axis = {size, out, nullptr, 1, 0, 0, 0};
    return result;
}

}  // namespace pycnn
