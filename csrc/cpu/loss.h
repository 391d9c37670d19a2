// Negative log-likelihood of class indices: arrays are (N, C, L), L being all trailing axes together.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

enum class Reduction { kNone, kSum, kMean };

template <typename T>
struct Nll {
    int64_t N, C, L;
    const int64_t* target;  // N x L classes
    const T* weight;        // C values, or null for 1
    int64_t ignored;        // targets of this class count for nothing
    Reduction reduction;
};

// Loss i = (n, l) is -weight[t] * x[n, t, l] with t = target[n, l], or 0 where that is ignored.  y is the N x L losses,
// or their sum, divided by that of the weights for kMean; sums are taken in double, in an order that does not depend on
// the number of threads.  False, with y unfinished, if a target is neither a class nor ignored.
template <typename T>
bool nll_fwd(const Nll<T>& problem, const T* x, T* y);

// dx is zero but for dx[n, t, l] = -weight[t] * dy of loss (n, l), divided by the sum of the weights for kMean; dy is
// one number for kSum and kMean.  False as above.
template <typename T>
bool nll_bwd(const Nll<T>& problem, const T* dy, T* dx);

}  // namespace pycnn::cpu
