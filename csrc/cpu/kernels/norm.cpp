// Batch normalisation and the affine map of a channel.
//
// A task owns a channel, or several small ones.  The statistics of each are taken over chunks that stay in L1: mean,
// then squared distances from that mean, then the chunks are merged in order in double (Chan, Golub & LeVeque 1983), so
// that neither many elements nor a mean far from zero costs accuracy, and the number of threads changes nothing.
//
// Where a channel's runs in memory are shorter than a vector, those of a group of channels are gathered first; where
// they are single elements (after a linear layer) neighbouring channels are neighbours in memory, and go side by side,
// row by row, their sums in double.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/moments.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

constexpr int64_t kGathered = 16;  // channels gathered together

// How the elements of a shape's channels are reached: in place, or gathered, a group of channels a task.
struct Access {
    int64_t group;  // channels a task
    bool gathered;
    Runs runs;
};

template <typename T>
static Access access(const ChannelShape& s) {
    if (s.L >= kLanes<T>) return {most(1, kStatisticsChunk / most(s.N * s.L, 1)), false, {s.N, s.L, s.C * s.L}};
    return {kGathered, true, {1, s.N * s.L, 0}};
}

// to[c][n][l] = from[n][c][l] for a group of channels.
template <typename T>
static void gather(const ChannelShape& s, int64_t first, int64_t channels, const T* from, T* to) {
    for (int64_t n = 0; n < s.N; n++) {
        const T* row = from + (n * s.C + first) * s.L;
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t l = 0; l < s.L; l++) to[(c * s.N + n) * s.L + l] = row[c * s.L + l];
        }
    }
}

template <typename T>
static void scatter(const ChannelShape& s, int64_t first, int64_t channels, const T* from, T* to) {
    for (int64_t n = 0; n < s.N; n++) {
        T* row = to + (n * s.C + first) * s.L;
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t l = 0; l < s.L; l++) row[c * s.L + l] = from[(c * s.N + n) * s.L + l];
        }
    }
}

// body(c, runs, a, b, m, to) for every channel, the pointers at the channel's first element; `b` and `m` may be null.
template <typename T, typename Body>
static void for_channels(const ChannelShape& s, const T* a, const T* b, const T* m, T* to, const Body& body) {
    const Access how = access<T>(s);
    parallel(ceil_div(s.C, how.group), 4 * s.N * s.C * s.L, [&](int64_t task) {
        const int64_t first = task * how.group;
        const int64_t channels = least(how.group, s.C - first);
        if (!how.gathered) {
            for (int64_t c = first; c < first + channels; c++) {
                const int64_t at = c * s.L;
                body(c, how.runs, a + at, b == nullptr ? nullptr : b + at, m == nullptr ? nullptr : m + at, to + at);
            }
            return;
        }
        const int64_t each = s.N * s.L;
        Scratch<T> scratch(static_cast<std::size_t>(4 * kGathered * each));
        T* a_here = scratch.get();
        T* b_here = b == nullptr ? nullptr : a_here + kGathered * each;
        T* m_here = m == nullptr ? nullptr : a_here + 2 * kGathered * each;
        T* to_here = a_here + 3 * kGathered * each;
        gather(s, first, channels, a, a_here);
        if (b != nullptr) gather(s, first, channels, b, b_here);
        if (m != nullptr) gather(s, first, channels, m, m_here);
        for (int64_t c = 0; c < channels; c++) {
            body(first + c, how.runs, a_here + c * each, b == nullptr ? nullptr : b_here + c * each,
                 m == nullptr ? nullptr : m_here + c * each, to_here + c * each);
        }
        scatter(s, first, channels, to_here, to);
    });
}

// body(offset, lanes) for every vector of a channel.
template <typename T, typename Body>
PYCNN_INLINE void for_channel(const Runs& runs, const Body& body) {
    for (int64_t i = 0; i < runs.runs; i++) {
        for_vectors<T>(runs.length, [&](int64_t l, int64_t lanes)
                                        __attribute__((always_inline)) { body(i * runs.stride + l, lanes); });
    }
}

constexpr int64_t kBeside = 256;  // channels that go side by side

// body(c0, channels) for blocks of neighbouring channels.
template <typename Body>
static void for_columns(const ChannelShape& s, const Body& body) {
    parallel(ceil_div(s.C, kBeside), 4 * s.N * s.C,
             [&](int64_t task) { body(task * kBeside, least(kBeside, s.C - task * kBeside)); });
}

template <typename T>
static void columns_fwd(const BatchNormFwd<T>& p) {
    for_columns(p.shape, [&](int64_t c0, int64_t channels) {
        const double count = static_cast<double>(p.shape.N);
        double means[kBeside] = {};
        double squares[kBeside] = {};
        T mean[kBeside], scale[kBeside], shift[kBeside];
        for (int64_t n = 0; n < p.shape.N; n++) {
            const T* __restrict x = p.x + n * p.shape.C + c0;
            for (int64_t c = 0; c < channels; c++) means[c] += static_cast<double>(x[c]);
        }
        for (int64_t c = 0; c < channels; c++) means[c] /= count;  // NaN, as the variance, for an empty batch
        for (int64_t n = 0; n < p.shape.N; n++) {
            const T* __restrict x = p.x + n * p.shape.C + c0;
            for (int64_t c = 0; c < channels; c++) {
                const double distance = static_cast<double>(x[c]) - means[c];
                squares[c] += distance * distance;
            }
        }
        for (int64_t c = 0; c < channels; c++) {
            const double var = squares[c] / count;
            const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[c0 + c]);
            p.mean[c0 + c] = mean[c] = static_cast<T>(means[c]);
            p.var[c0 + c] = static_cast<T>(var);
            scale[c] = static_cast<T>(weight / __builtin_sqrt(var + p.eps));
            shift[c] = p.bias == nullptr ? T(0) : p.bias[c0 + c];
        }
        for (int64_t n = 0; n < p.shape.N; n++) {
            const T* __restrict x = p.x + n * p.shape.C + c0;
            T* __restrict y = p.y + n * p.shape.C + c0;
            for (int64_t c = 0; c < channels; c++) y[c] = (x[c] - mean[c]) * scale[c] + shift[c];
            if (p.residual != nullptr) {
                const T* __restrict residual = p.residual + n * p.shape.C + c0;
                for (int64_t c = 0; c < channels; c++) y[c] += residual[c];
            }
            if (p.relu) {
                for (int64_t c = 0; c < channels; c++) y[c] = y[c] < T(0) ? T(0) : y[c];  // NaN stays
            }
        }
    });
}

template <typename T>
static void columns_bwd(const BatchNormBwd<T>& p) {
    for_columns(p.shape, [&](int64_t c0, int64_t channels) {
        const double count = static_cast<double>(p.shape.N);
        const T* __restrict mean = p.mean + c0;
        double sums[kBeside] = {};    // of dy
        double slopes[kBeside] = {};  // of dy (x - mean)
        T scale[kBeside], level[kBeside], tilt[kBeside], dy[kBeside];
        // The gradients of sample n's results before a ReLU, into dy.
        const auto read = [&](int64_t n) {
            const int64_t at = n * p.shape.C + c0;
            for (int64_t c = 0; c < channels; c++) dy[c] = p.dy[at + c];
            if (p.y == nullptr) return;
            for (int64_t c = 0; c < channels; c++) dy[c] = p.y[at + c] <= T(0) ? T(0) : dy[c];
        };
        for (int64_t n = 0; n < p.shape.N; n++) {
            const T* __restrict x = p.x + n * p.shape.C + c0;
            read(n);
            for (int64_t c = 0; c < channels; c++) {
                sums[c] += static_cast<double>(dy[c]);
                slopes[c] += static_cast<double>(dy[c]) * (static_cast<double>(x[c]) - static_cast<double>(mean[c]));
            }
        }
        for (int64_t c = 0; c < channels; c++) {
            const double inverse = 1.0 / __builtin_sqrt(static_cast<double>(p.var[c0 + c]) + p.eps);
            const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[c0 + c]);
            p.dweight[c0 + c] = count == 0 ? T(0) : static_cast<T>(slopes[c] * inverse);  // var is NaN when empty
            p.dbias[c0 + c] = static_cast<T>(sums[c]);
            scale[c] = static_cast<T>(weight * inverse);
            level[c] = static_cast<T>(sums[c] / count);
            tilt[c] = static_cast<T>(slopes[c] * inverse * inverse / count);
        }
        for (int64_t n = 0; n < p.shape.N; n++) {
            const T* __restrict x = p.x + n * p.shape.C + c0;
            T* __restrict dx = p.dx + n * p.shape.C + c0;
            read(n);
            for (int64_t c = 0; c < channels; c++) {
                dx[c] = ((dy[c] - level[c]) - (x[c] - mean[c]) * tilt[c]) * scale[c];
            }
        }
    });
}

template <typename T>
void batch_norm_fwd(const BatchNormFwd<T>& p) {
    if (p.shape.L == 1) return columns_fwd(p);
    const auto normalise = [&](int64_t c, const Runs& runs, const T* x, const T* residual, const T*, T* y) {
        const Moments m = moments(x, runs);
        const double count = static_cast<double>(p.shape.N * p.shape.L);
        const double var = m.squares / count;  // NaN, as the mean, for an empty batch
        const T mean = static_cast<T>(count == 0 ? __builtin_nan("") : m.mean);
        p.mean[c] = mean;
        p.var[c] = static_cast<T>(var);
        const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[c]);
        const T scale = static_cast<T>(weight / __builtin_sqrt(var + p.eps));
        const T shift = p.bias == nullptr ? T(0) : p.bias[c];
        const auto end = [&](const auto& last) __attribute__((always_inline)) {
            for_channel<T>(runs, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
                store_part(y + at, last((load_part(x + at, lanes) - mean) * scale + shift, at, lanes), lanes);
            });
        };
        const auto rectified = [](Vec<T> v) __attribute__((always_inline)) { return v < T(0) ? Vec<T>{} : v; };
        if (residual == nullptr) {
            const auto plain = [](Vec<T> v, int64_t, int64_t) __attribute__((always_inline)) { return v; };
            const auto relu = [&](Vec<T> v, int64_t, int64_t) __attribute__((always_inline)) { return rectified(v); };
            return p.relu ? end(relu) : end(plain);
        }
        const auto sum = [&](Vec<T> v, int64_t at, int64_t lanes)
                             __attribute__((always_inline)) { return v + load_part(residual + at, lanes); };
        const auto relu = [&](Vec<T> v, int64_t at, int64_t lanes)
                              __attribute__((always_inline)) { return rectified(sum(v, at, lanes)); };
        return p.relu ? end(relu) : end(sum);
    };
    for_channels<T>(p.shape, p.x, p.residual, nullptr, p.y, normalise);
}

// RELU: the gradient of a ReLU first; p.y is what it gave.
template <typename T, bool RELU>
static void planes_bwd(const BatchNormBwd<T>& p) {
    const auto differentiate = [&](int64_t c, const Runs& runs, const T* x, const T* dy, const T* y, T* dx) {
        const T mean = p.mean[c];
        double sum = 0.0;    // of dy
        double slope = 0.0;  // of dy (x - mean)
        for_chunks(runs, [&](int64_t offset, const Runs& chunk) {
            Vec<T> sums[4] = {};
            Vec<T> slopes[4] = {};
            for_chunk<T>(chunk, [&](int j, int64_t at, int64_t lanes) __attribute__((always_inline)) {
                Vec<T> d = load_part(dy + offset + at, lanes);
                if constexpr (RELU) {
                    d = load_part(y + offset + at, lanes) <= T(0) ? Vec<T>{} : d;  // where y is NaN, dy passes
                    store_part(dx + offset + at, d, lanes);  // read again below: one array instead of two
                }
                sums[j] += d;
                slopes[j] += d * (load_part(x + offset + at, lanes, mean) - mean);
            });
            sum += sum_of<T>(sums);
            slope += sum_of<T>(slopes);
        });
        const double count = static_cast<double>(p.shape.N * p.shape.L);
        const double inverse = 1.0 / __builtin_sqrt(static_cast<double>(p.var[c]) + p.eps);
        p.dweight[c] = count == 0 ? T(0) : static_cast<T>(slope * inverse);  // the variance of an empty batch is NaN
        p.dbias[c] = static_cast<T>(sum);
        const double weight = p.weight == nullptr ? 1.0 : static_cast<double>(p.weight[c]);
        const T scale = static_cast<T>(weight * inverse);
        const T level = static_cast<T>(sum / count);
        const T tilt = static_cast<T>(slope * inverse * inverse / count);
        for_channel<T>(runs, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
            const Vec<T> distance = load_part(x + at, lanes) - mean;
            const Vec<T> d = load_part(RELU ? dx + at : dy + at, lanes);
            store_part(dx + at, ((d - level) - distance * tilt) * scale, lanes);
        });
    };
    for_channels<T>(p.shape, p.x, p.dy, p.y, p.dx, differentiate);
}

template <typename T>
void batch_norm_bwd(const BatchNormBwd<T>& p) {
    if (p.shape.L == 1) return columns_bwd(p);
    p.y == nullptr ? planes_bwd<T, false>(p) : planes_bwd<T, true>(p);
}

template <typename T>
void channel_affine(const ChannelShape& s, const T* x, const T* scale, const T* shift, T* y) {
    const int64_t planes = s.N * s.C;
    if (s.L == 1) {  // neighbours in memory are neighbouring channels
        const int64_t samples = most(1, kChunk / most(s.C, 1));
        return parallel(ceil_div(s.N, samples), 2 * s.N * s.C, [&](int64_t task) {
            for (int64_t n = task * samples; n < least(s.N, (task + 1) * samples); n++) {
                for (int64_t c = 0; c < s.C; c++) {
                    y[n * s.C + c] = (scale == nullptr ? x[n * s.C + c] : x[n * s.C + c] * scale[c]) + shift[c];
                }
            }
        });
    }
    const int64_t together = most(1, kChunk / most(s.L, 1));
    parallel(ceil_div(planes, together), 2 * planes * s.L, [&](int64_t task) {
        for (int64_t i = task * together; i < least(planes, (task + 1) * together); i++) {
            const T a = scale == nullptr ? T(1) : scale[i % s.C];
            const T b = shift[i % s.C];
            for_vectors<T>(s.L, [&](int64_t l, int64_t lanes) __attribute__((always_inline)) {
                store_part(y + i * s.L + l, load_part(x + i * s.L + l, lanes) * a + b, lanes);
            });
        }
    });
}

template void batch_norm_fwd(const BatchNormFwd<float>&);
template void batch_norm_fwd(const BatchNormFwd<double>&);
template void batch_norm_bwd(const BatchNormBwd<float>&);
template void batch_norm_bwd(const BatchNormBwd<double>&);
template void channel_affine(const ChannelShape&, const float*, const float*, const float*, float*);
template void channel_affine(const ChannelShape&, const double*, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
