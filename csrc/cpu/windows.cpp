#include "cpu/windows.h"

#include <algorithm>

#include "cpu/threads.h"

namespace pycnn::cpu {
namespace {

constexpr int64_t kElementsOfATask = 16384;

// body(row) for every one of `rows` rows of `length` elements; short rows share a task.
template <typename Body>
void every_row(int64_t rows, int64_t length, int64_t elements, const Body& body) {
    const int64_t together = std::max<int64_t>(1, kElementsOfATask / std::max<int64_t>(1, length));
    parallel_for((rows + together - 1) / together, elements, [&](int64_t task) {
        for (int64_t i = task * together; i < std::min(rows, (task + 1) * together); i++) body(i);
    });
}

// The windows whose tap lies inside the image: begin, end.
struct Inside {
    int64_t begin, end, first;  // first: the tap's pixel in window 0
};

Inside inside(const WindowAxis& axis, int64_t tap) {
    const int64_t first = tap * axis.dilation - axis.before;
    const int64_t begin = first >= 0 ? 0 : (-first + axis.stride - 1) / axis.stride;
    const int64_t room = axis.size - first;  // pixels from there on
    const int64_t end = room <= 0 ? 0 : (room + axis.stride - 1) / axis.stride;
    return {std::min(begin, axis.out), std::max(std::min(begin, axis.out), std::min(end, axis.out)), first};
}

}  // namespace

template <typename T>
void unfold2d(const Windows& windows, const T* x, T* y) {
    const auto [H, R, P, stride_h, before_h, dilation_h] = windows.rows;
    const auto [W, S, Q, stride_w, before_w, dilation_w] = windows.columns;
    const int64_t C = windows.C, N = windows.N;
    every_row(N * C * R * S * P, Q, 2 * N * C * R * S * P * Q, [&](int64_t row) {
        T* to = y + row * Q;
        int64_t p = 0;
        if (!windows.rows_first) {
            p = row % P;
            row /= P;
        }
        const int64_t s = row % S, r = row / S % R, c = row / (S * R) % C;
        int64_t n = row / (S * R * C);
        if (windows.rows_first) {
            p = n % P;
            n /= P;
        }
        const int64_t h = p * stride_h - before_h + r * dilation_h;
        const Inside span = inside(windows.columns, s);
        if (h < 0 || h >= H || span.begin == span.end) {
            std::fill_n(to, Q, T(0));
            return;
        }
        const T* from = x + ((n * C + c) * H + h) * W + span.first;
        std::fill_n(to, span.begin, T(0));
        if (stride_w == 1) {
            std::copy(from + span.begin, from + span.end, to + span.begin);
        } else {
            for (int64_t q = span.begin; q < span.end; q++) to[q] = from[q * stride_w];
        }
        std::fill(to + span.end, to + Q, T(0));
    });
}

template <typename T>
void fold2d(const Windows& windows, const T* y, T* dx) {
    const auto [H, R, P, stride_h, before_h, dilation_h] = windows.rows;
    const auto [W, S, Q, stride_w, before_w, dilation_w] = windows.columns;
    const int64_t planes = windows.N * windows.C;
    every_row(planes * H, W * R * S, planes * (H * W + R * S * P * Q), [&](int64_t row) {
        T* to = dx + row * W;
        std::fill_n(to, W, T(0));
        const T* image = y + row / H * (R * S * P * Q);
        for (int64_t r = 0; r < R; r++) {
            const int64_t offset = row % H + before_h - r * dilation_h;
            if (offset < 0 || offset % stride_h != 0 || offset / stride_h >= P) continue;
            for (int64_t s = 0; s < S; s++) {
                const Inside span = inside(windows.columns, s);
                const T* from = image + ((r * S + s) * P + offset / stride_h) * Q;
                T* pixel = to + span.first;
                if (stride_w == 1) {
                    for (int64_t q = span.begin; q < span.end; q++) pixel[q] += from[q];
                } else {
                    for (int64_t q = span.begin; q < span.end; q++) pixel[q * stride_w] += from[q];
                }
            }
        }
    });
}

template void unfold2d(const Windows&, const float*, float*);
template void unfold2d(const Windows&, const double*, double*);
template void fold2d(const Windows&, const float*, float*);
template void fold2d(const Windows&, const double*, double*);

}  // namespace pycnn::cpu
