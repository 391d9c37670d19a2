// Normalisation of groups of neighbouring channels, and of rows: each group of a sample lies in one piece.
//
// A task owns a group, or several small ones.  Statistics are those of norm.cpp.  Where a channel is a run of memory its
// coefficients are two numbers; where it is a single element (L = 1, as layer norm has it) they go along with the row.
// The gradients of the coefficients are summed over the samples in order, in double.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/moments.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

constexpr int64_t kGroupTask = 4096;  // elements that are worth a task
constexpr int64_t kColumns = 256;     // channels that go side by side

// body(n, g, offset) for every group, `offset` that of its first element.
template <typename Body>
static void for_groups(const GroupShape& s, const Body& body) {
    const int64_t elements = s.K * s.L;
    const int64_t together = most(1, kGroupTask / most(elements, 1));
    parallel(ceil_div(s.N * s.G, together), 4 * s.N * s.G * elements, [&](int64_t task) {
        for (int64_t row = task * together; row < least((task + 1) * together, s.N * s.G); row++) {
            body(row / s.G, row % s.G, row * elements);
        }
    });
}

template <typename T>
static void normalise(const T* x, T mean, T scale, T shift, int64_t count, T* y) {
    for_vectors<T>(count, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        store_part(y + i, (load_part(x + i, lanes) - mean) * scale + shift, lanes);
    });
}

// The same with coefficients for every element.
template <typename T>
static void normalise(const T* x, T mean, T inverse, const T* weight, const T* bias, int64_t count, T* y) {
    for_vectors<T>(count, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> unit = (load_part(x + i, lanes) - mean) * inverse;
        const Vec<T> scaled = weight == nullptr ? unit : unit * load_part(weight + i, lanes);
        store_part(y + i, bias == nullptr ? scaled : scaled + load_part(bias + i, lanes), lanes);
    });
}

template <typename T>
void group_norm_fwd(const GroupNormFwd<T>& p) {
    const GroupShape& s = p.shape;
    for_groups(s, [&](int64_t n, int64_t g, int64_t offset) {
        const int64_t elements = s.K * s.L, first = g * s.K;
        const T* x = p.x + offset;
        T* y = p.y + offset;
        const Moments m = moments(x, Runs{1, elements, elements});
        const double count = static_cast<double>(elements);
        const double var = m.squares / count + (p.centred ? 0.0 : m.mean * m.mean);  // NaN, as the mean, of nothing
        const T mean = static_cast<T>(!p.centred ? 0.0 : elements == 0 ? __builtin_nan("") : m.mean);
        p.mean[n * s.G + g] = mean;
        p.var[n * s.G + g] = static_cast<T>(var);
        const double inverse = 1.0 / __builtin_sqrt(var + p.eps);
        if (s.L == 1) {
            const T* weight = p.weight == nullptr ? nullptr : p.weight + first;
            const T* bias = p.bias == nullptr ? nullptr : p.bias + first;
            return normalise(x, mean, static_cast<T>(inverse), weight, bias, elements, y);
        }
        for (int64_t k = 0; k < s.K; k++) {
            const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[first + k]);
            const T shift = p.bias == nullptr ? T(0) : p.bias[first + k];
            normalise(x + k * s.L, mean, static_cast<T>(weight * inverse), shift, s.L, y + k * s.L);
        }
    });
}

struct Slopes {
    double sum, product;  // of dy, of dy (x - mean)
};

// Over `count` neighbours; `weight`, if any, has a factor of dy for each.
template <typename T>
static Slopes slopes(const T* dy, const T* x, T mean, const T* weight, int64_t count) {
    Slopes all = {};
    for_chunks(Runs{1, count, count}, [&](int64_t offset, const Runs& chunk) {
        Vec<T> sums[4] = {};
        Vec<T> products[4] = {};
        for_chunk<T>(chunk, [&](int j, int64_t at, int64_t lanes) __attribute__((always_inline)) {
            Vec<T> d = load_part(dy + offset + at, lanes);
            if (weight != nullptr) d *= load_part(weight + offset + at, lanes);
            sums[j] += d;
            products[j] += d * (load_part(x + offset + at, lanes, mean) - mean);
        });
        all.sum += sum_of<T>(sums);
        all.product += sum_of<T>(products);
    });
    return all;
}

// dweight and dbias where every element of a row has its own: blocks of neighbouring columns, sample by sample.
template <typename T>
static void column_gradients(const GroupNormBwd<T>& p) {
    const GroupShape& s = p.shape;
    const int64_t channels = s.G * s.K;
    parallel(ceil_div(channels, kColumns), 4 * s.N * channels, [&](int64_t task) {
        const int64_t first = task * kColumns, here = least(kColumns, channels - first);
        double sums[kColumns] = {};
        double products[kColumns] = {};
        for (int64_t n = 0; n < s.N; n++) {
            const T* __restrict dy = p.dy + n * channels + first;
            const T* __restrict x = p.x + n * channels + first;
            for (int64_t c = 0; c < here;) {
                const int64_t g = (first + c) / s.K, end = least(here, (g + 1) * s.K - first);
                const double mean = static_cast<double>(p.mean[n * s.G + g]);
                const double inverse = 1.0 / __builtin_sqrt(static_cast<double>(p.var[n * s.G + g]) + p.eps);
                for (; c < end; c++) {
                    const double d = static_cast<double>(dy[c]);
                    sums[c] += d;
                    products[c] += d * ((static_cast<double>(x[c]) - mean) * inverse);
                }
            }
        }
        for (int64_t c = 0; c < here; c++) {
            p.dweight[first + c] = static_cast<T>(products[c]);
            p.dbias[first + c] = static_cast<T>(sums[c]);
        }
    });
}

template <typename T>
void group_norm_bwd(const GroupNormBwd<T>& p) {
    const GroupShape& s = p.shape;
    const int64_t channels = s.G * s.K;
    Scratch<double> scratch(static_cast<std::size_t>(s.L == 1 ? 0 : 2 * s.N * channels));
    double* sums = scratch.get();  // of each channel of each sample; then the products
    double* products = sums + s.N * channels;
    for_groups(s, [&](int64_t n, int64_t g, int64_t offset) {
        const int64_t elements = s.K * s.L, first = g * s.K;
        const T *dy = p.dy + offset, *x = p.x + offset;
        const T* weight = p.weight == nullptr ? nullptr : p.weight + first;
        T* dx = p.dx + offset;
        const T mean = p.mean[n * s.G + g];
        const double inverse = 1.0 / __builtin_sqrt(static_cast<double>(p.var[n * s.G + g]) + p.eps);
        Slopes all = {};
        if (s.L == 1) {
            all = slopes(dy, x, mean, weight, elements);
        } else {
            for (int64_t k = 0; k < s.K; k++) {
                const Slopes one = slopes<T>(dy + k * s.L, x + k * s.L, mean, nullptr, s.L);
                const double factor = weight == nullptr ? 1.0 : static_cast<double>(weight[k]);
                sums[n * channels + first + k] = one.sum;
                products[n * channels + first + k] = one.product * inverse;
                all.sum += factor * one.sum;
                all.product += factor * one.product;
            }
        }
        const double count = static_cast<double>(elements);
        const T level = static_cast<T>(p.centred ? all.sum / count : 0.0);
        const T tilt = static_cast<T>(all.product * inverse * inverse / count);
        const T scale = static_cast<T>(inverse);
        const auto tangent = [&](int64_t at, int64_t lanes, Vec<T> factor) __attribute__((always_inline)) {
            const Vec<T> distance = load_part(x + at, lanes) - mean;
            store_part(dx + at, ((load_part(dy + at, lanes) * factor - level) - distance * tilt) * scale, lanes);
        };
        if (s.L == 1) {
            for_vectors<T>(elements, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
                tangent(i, lanes, weight == nullptr ? broadcast(T(1)) : load_part(weight + i, lanes));
            });
            return;
        }
        for (int64_t k = 0; k < s.K; k++) {
            const Vec<T> factor = broadcast(weight == nullptr ? T(1) : weight[k]);
            for_vectors<T>(s.L, [&](int64_t i, int64_t lanes)
                                    __attribute__((always_inline)) { tangent(k * s.L + i, lanes, factor); });
        }
    });
    if (p.dweight == nullptr) return;
    if (s.L == 1) return column_gradients(p);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0, product = 0.0;
        for (int64_t n = 0; n < s.N; n++) {
            sum += sums[n * channels + c];
            product += products[n * channels + c];
        }
        p.dweight[c] = static_cast<T>(product);
        p.dbias[c] = static_cast<T>(sum);
    }
}

template void group_norm_fwd(const GroupNormFwd<float>&);
template void group_norm_fwd(const GroupNormFwd<double>&);
template void group_norm_bwd(const GroupNormBwd<float>&);
template void group_norm_bwd(const GroupNormBwd<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
