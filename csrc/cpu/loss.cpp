#include "cpu/loss.h"

#include <algorithm>
#include <vector>

#include "cpu/threads.h"

namespace pycnn::cpu {
namespace {

constexpr int64_t kTask = 8192;  // targets

// What a task found: the sums of its losses and weights, and whether all its targets were good.
struct Part {
    double sum = 0.0;
    double weight = 0.0;
    bool good = true;
};

// visit(i, n, l, t, weight) for the targets that count, and the sum of their weights.
template <typename T, typename Visit>
Part visit_targets(const Nll<T>& p, int64_t begin, int64_t end, const Visit& visit) {
    Part part;
    int64_t n = begin / std::max<int64_t>(p.L, 1);
    int64_t l = begin - n * p.L;
    for (int64_t i = begin; i < end; i++) {
        const int64_t t = p.target[i];
        if (t != p.ignored) {
            if (t < 0 || t >= p.C) {
                part.good = false;
                return part;
            }
            const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[t]);
            part.weight += weight;
            part.sum += visit(i, (n * p.C + t) * p.L + l, weight);
        }
        if (++l == p.L) {
            l = 0;
            n++;
        }
    }
    return part;
}

// The same over all targets, in tasks, whose parts are added up in order.
template <typename T, typename Visit>
Part visit_all(const Nll<T>& p, const Visit& visit) {
    const int64_t count = p.N * p.L;
    if (count <= kTask) return visit_targets(p, 0, count, visit);
    std::vector<Part> parts(static_cast<std::size_t>((count + kTask - 1) / kTask));
    parallel_for(static_cast<int64_t>(parts.size()), 4 * count, [&](int64_t task) {
        const int64_t end = std::min((task + 1) * kTask, count);
        parts[static_cast<std::size_t>(task)] = visit_targets(p, task * kTask, end, visit);
    });
    Part all;
    for (const Part& part : parts) {
        all.sum += part.sum;
        all.weight += part.weight;
        all.good = all.good && part.good;
    }
    return all;
}

}  // namespace

template <typename T>
bool nll_fwd(const Nll<T>& p, const T* x, T* y) {
    if (p.reduction == Reduction::kNone) {
        std::fill_n(y, p.N * p.L, T(0));
        return visit_all(p,
                         [&](int64_t i, int64_t at, double weight) {
                             y[i] = static_cast<T>(-weight * static_cast<double>(x[at]));
                             return 0.0;
                         })
            .good;
    }
    const Part all =
        visit_all(p, [&](int64_t, int64_t at, double weight) { return -weight * static_cast<double>(x[at]); });
    y[0] = static_cast<T>(p.reduction == Reduction::kMean ? all.sum / all.weight : all.sum);
    return all.good;
}

template <typename T>
bool nll_bwd(const Nll<T>& p, const T* dy, T* dx) {
    const auto nothing = [](int64_t, int64_t, double) { return 0.0; };
    const double share = p.reduction == Reduction::kMean ? 1.0 / visit_all(p, nothing).weight : 1.0;
    const int64_t step = p.reduction == Reduction::kNone ? 1 : 0;
    std::fill_n(dx, p.N * p.C * p.L, T(0));
    return visit_all(p,
                     [&](int64_t i, int64_t at, double weight) {
                         dx[at] = static_cast<T>(-weight * share * static_cast<double>(dy[i * step]));
                         return 0.0;
                     })
        .good;
}

template bool nll_fwd(const Nll<float>&, const float*, float*);
template bool nll_fwd(const Nll<double>&, const double*, double*);
template bool nll_bwd(const Nll<float>&, const float*, float*);
template bool nll_bwd(const Nll<double>&, const double*, double*);

}  // namespace pycnn::cpu
