#include "cpu/boxes.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/threads.h"

namespace pycnn::cpu {
namespace {

// The product rounded once to T, never fused with a sum.
float product(float a, float b) {
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}
double product(double a, double b) {
    return a * b;
}

}  // namespace

template <typename T>
void roi_max(const Regions& s, const T* x, T* y, int64_t* indices) {
    parallel_for(s.count * s.channels, s.count * s.channels * s.P * s.Q * 16, [&](int64_t task) {
        const int64_t r = task / s.channels, c = task % s.channels;
        const T* plane = x + (s.image[r] * s.channels + c) * s.H * s.W;
        const int64_t* rows = s.rows + 2 * r * s.P;
        const int64_t* columns = s.columns + 2 * r * s.Q;
        int64_t out = task * s.P * s.Q;
        for (int64_t p = 0; p < s.P; p++) {
            for (int64_t q = 0; q < s.Q; q++, out++) {
                T best = 0;
                int64_t index = -1;
                for (int64_t h = rows[2 * p]; h < rows[2 * p + 1]; h++) {
                    for (int64_t w = columns[2 * q]; w < columns[2 * q + 1]; w++) {
                        const T value = plane[h * s.W + w];
                        if (index < 0 || value > best || value != value) {
                            best = value;
                            index = h * s.W + w;
                        }
                    }
                }
                y[out] = best;
                indices[out] = index;
            }
        }
    });
}

template <typename T>
void nms(int64_t count, const T* boxes, const int64_t* groups, double threshold, int64_t* keep) {
    std::vector<T> areas(static_cast<std::size_t>(count));
    for (int64_t i = 0; i < count; i++) {
        const T* b = boxes + 4 * i;
        areas[static_cast<std::size_t>(i)] = product(b[2] - b[0], b[3] - b[1]);
        keep[i] = 1;
    }
    for (int64_t i = 0; i < count; i++) {
        if (!keep[i]) continue;
        const T* a = boxes + 4 * i;
        const T area = areas[static_cast<std::size_t>(i)];
        for (int64_t j = i + 1; j < count; j++) {
            if (!keep[j] || (groups != nullptr && groups[i] != groups[j])) continue;
            const T* b = boxes + 4 * j;
            const T width = std::max(T(0), std::min(a[2], b[2]) - std::max(a[0], b[0]));
            const T height = std::max(T(0), std::min(a[3], b[3]) - std::max(a[1], b[1]));
            const T common = product(width, height);
            const T overlap = common / (area + areas[static_cast<std::size_t>(j)] - common);
            if (static_cast<double>(overlap) > threshold) keep[j] = 0;
        }
    }
}

template void roi_max(const Regions&, const float*, float*, int64_t*);
template void roi_max(const Regions&, const double*, double*, int64_t*);
template void nms(int64_t, const float*, const int64_t*, double, int64_t*);
template void nms(int64_t, const double*, const int64_t*, double, int64_t*);

}  // namespace pycnn::cpu
