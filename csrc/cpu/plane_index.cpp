#include "cpu/plane_index.h"

#include <algorithm>
#include <atomic>

#include "cpu/threads.h"

namespace pycnn::cpu {
namespace {

constexpr int64_t kElementsOfATask = 16384;

// plane(p), false for a bad index, for every plane; small planes share a task.
template <typename Plane>
bool every_plane(const PlaneIndex& index, const Plane& plane) {
    const int64_t together = std::max<int64_t>(1, kElementsOfATask / std::max<int64_t>(1, index.image + index.count));
    const int64_t elements = 2 * index.planes * (index.image + index.count);
    std::atomic<bool> good{true};
    parallel_for((index.planes + together - 1) / together, elements, [&](int64_t task) {
        for (int64_t p = task * together; p < std::min(index.planes, (task + 1) * together); p++) {
            if (!plane(p)) good = false;
        }
    });
    return good;
}

}  // namespace

template <typename T>
bool plane_add(const PlaneIndex& index, const T* dy, T* dx) {
    return every_plane(index, [&](int64_t plane) {
        const int64_t* at = index.indices + plane * index.count;
        const T* from = dy + plane * index.count;
        T* to = dx + plane * index.image;
        std::fill_n(to, index.image, T(0));
        for (int64_t i = 0; i < index.count; i++) {
            if (static_cast<std::uint64_t>(at[i]) < static_cast<std::uint64_t>(index.image)) {
                to[at[i]] += from[i];
            } else if (at[i] != -1) {
                return false;
            }
        }
        return true;
    });
}

template <typename T>
bool plane_take(const PlaneIndex& index, const T* x, T* y) {
    return every_plane(index, [&](int64_t plane) {
        const int64_t* at = index.indices + plane * index.count;
        const T* from = x + plane * index.image;
        T* to = y + plane * index.count;
        for (int64_t i = 0; i < index.count; i++) {
            if (static_cast<std::uint64_t>(at[i]) < static_cast<std::uint64_t>(index.image)) {
                to[i] = from[at[i]];
            } else if (at[i] == -1) {
                to[i] = T(0);
            } else {
                return false;
            }
        }
        return true;
    });
}

template bool plane_add(const PlaneIndex&, const float*, float*);
template bool plane_add(const PlaneIndex&, const double*, double*);
template bool plane_take(const PlaneIndex&, const float*, float*);
template bool plane_take(const PlaneIndex&, const double*, double*);

}  // namespace pycnn::cpu
