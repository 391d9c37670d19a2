#include "cpu/shaping.h"

#include <algorithm>
#include <cstring>

#include "cpu/threads.h"

namespace pycnn::cpu {
void concat(int64_t outer, const std::vector<ConcatPart>& parts, std::byte* y) {
    constexpr int64_t kTask = 128 << 10;  // bytes of y
    int64_t row = 0;
    for (const ConcatPart& part : parts) row += part.bytes;
    const int64_t total = outer * row;
    parallel_for((total + kTask - 1) / kTask, total / 2, [&](int64_t task) {
        const int64_t end = std::min(total, (task + 1) * kTask);
        for (int64_t at = task * kTask; at < end;) {
            const int64_t i = at / row;
            int64_t offset = at % row;
            for (const ConcatPart& part : parts) {
                const int64_t bytes = std::min(part.bytes - offset, end - at);
                if (bytes > 0) {
                    std::memcpy(y + at, part.from + i * part.bytes + offset, static_cast<std::size_t>(bytes));
                    at += bytes;
                    offset = 0;
                } else {
                    offset -= std::min(offset, part.bytes);
                }
            }
        }
    });
}

void permuted(std::vector<int64_t> sizes, std::vector<int64_t> order, const float* x, float* y) {
    std::vector<int64_t> steps(sizes.size(), 1);  // in x, of each of its axes
    for (std::size_t i = sizes.size(); i-- > 1;) steps[i - 1] = steps[i] * sizes[i];
    // The axes of y, those that lie together in x as one.
    std::vector<int64_t> size, step;
    for (std::size_t i = 0; i < order.size(); i++) {
        const auto axis = static_cast<std::size_t>(order[i]);
        if (sizes[axis] == 1) continue;
        if (!size.empty() && step.back() == steps[axis] * sizes[axis]) {
            size.back() *= sizes[axis];
            step.back() = steps[axis];
        } else {
            size.push_back(sizes[axis]);
            step.push_back(steps[axis]);
        }
    }
    const int64_t columns = size.empty() ? 1 : size.back();
    const int64_t stride = size.empty() ? 1 : step.back();
    int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < size.size(); i++) rows *= size[i];
    const int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns));
    parallel_for((rows + together - 1) / together, 2 * rows * columns, [&](int64_t task) {
        for (int64_t row = task * together; row < std::min(rows, (task + 1) * together); row++) {
            const float* from = x;
            for (int64_t i = static_cast<int64_t>(size.size()) - 2, rest = row; i >= 0; i--) {
                const auto axis = static_cast<std::size_t>(i);
                from += rest % size[axis] * step[axis];
                rest /= size[axis];
            }
            float* to = y + row * columns;
            if (stride == 1) {
                std::copy_n(from, columns, to);
            } else {
                for (int64_t j = 0; j < columns; j++) to[j] = from[j * stride];
            }
        }
    });
}

void scaled_rows(int64_t rows, int64_t columns, const float* x, const double* scale, float* y) {
    const int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns));
    parallel_for((rows + together - 1) / together, 2 * rows * columns, [&](int64_t task) {
        for (int64_t i = task * together; i < std::min(rows, (task + 1) * together); i++) {
            const double factor = scale[i];
            for (int64_t j = i * columns; j < (i + 1) * columns; j++) {
                y[j] = static_cast<float>(static_cast<double>(x[j]) * factor);
            }
        }
    });
}

template <typename T>
void pad2d(const Pad2d<T>& p) {
    const int64_t width = p.left + p.W + p.right;
    const int64_t height = p.top + p.H + p.bottom;
    const int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
    const int64_t rows = p.planes * height;
    parallel_for((rows + together - 1) / together, 2 * rows * width, [&](int64_t task) {
        for (int64_t i = task * together; i < std::min(rows, (task + 1) * together); i++) {
            T* to = p.y + i * width;
            const int64_t h = i % height - p.top;
            if (h < 0 || h >= p.H) {
                std::fill_n(to, width, p.value);
                continue;
            }
            std::fill_n(to, p.left, p.value);
            std::copy_n(p.x + (i / height * p.H + h) * p.W, p.W, to + p.left);
            std::fill_n(to + p.left + p.W, p.right, p.value);
        }
    });
}

template void pad2d(const Pad2d<float>&);
template void pad2d(const Pad2d<double>&);

}  // namespace pycnn::cpu
