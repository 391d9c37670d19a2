// Local response normalisation across channels.
//
//   s[c] = k + alpha/size * sum of x[j]^2 over the window j = c - size/2 .. c + (size - 1)/2
//   y[c] = x[c] * s[c]^-beta
//   dx[c] = dy[c] * s[c]^-beta - 2 alpha beta / size * x[c] * sum of dy[j] x[j] s[j]^(-beta - 1) over the j that see c
//
// A task owns a block of pixels of one sample and all their channels.  The window is added up afresh for every channel
// from squares that lie in L1: subtracting what leaves it would be cheaper for wide windows, but a large value passing
// by would take the small ones' bits with it, and an infinity would never leave.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vecmath.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// s^-beta; AlexNet's 3/4 takes two square roots, any other exponent a logarithm and an exponential, whose relative
// error is about |beta log s| units in the last place.
template <typename T>
PYCNN_INLINE Vec<T> inverse_power(Vec<T> s, double beta) {
    if (beta == 0.75) {
        const Vec<T> root = vsqrt<T>(s);
        return T(1) / (root * vsqrt<T>(root));
    }
    if (beta == 1.0) return T(1) / s;
    if (beta == 0.5) return T(1) / vsqrt<T>(s);
    if (beta == 0.0) return broadcast(T(1));
    return vexp<T>(vlog<T>(s) * static_cast<T>(-beta));
}

constexpr int kBlockVectors = 4;  // a block is this many vectors of pixels wide

template <typename T>
constexpr int64_t kBlockWidth = kBlockVectors * kLanes<T>;

// The sum of rows [first, last] of a (C, kBlockWidth) buffer, clipped to its rows, vector v.
template <typename T>
PYCNN_INLINE Vec<T> window_sum(const T* rows, int64_t C, int64_t first, int64_t last, int v) {
    Vec<T> sum = {};
    for (int64_t j = most(first, 0); j <= least(last, C - 1); j++) {
        sum += load(rows + j * kBlockWidth<T> + v * kLanes<T>);
    }
    return sum;
}

// body(base, lanes) for every block of pixels: base is the offset of the block's first pixel in channel 0, lanes[v] the
// pixels in vector v.
template <typename T, typename Body>
static void for_blocks(const ChannelShape& s, int64_t scratch_rows, const Body& body) {
    const int64_t blocks = ceil_div(s.L, kBlockWidth<T>);
    const int64_t group = most(1, kChunk / (kBlockWidth<T> * most(s.C, 1)));
    const int64_t total = s.N * blocks;
    parallel(ceil_div(total, group), 8 * s.N * s.C * s.L, [&](int64_t task) {
        Scratch<T> scratch(static_cast<std::size_t>(scratch_rows * kBlockWidth<T>));
        for (int64_t i = task * group; i < least(total, (task + 1) * group); i++) {
            const int64_t start = i % blocks * kBlockWidth<T>;
            body(i / blocks * s.C * s.L + start, least(kBlockWidth<T>, s.L - start), scratch.get());
        }
    });
}

// body(v, lanes) for the vectors of a block that is `width` pixels wide.
template <typename T, typename Body>
PYCNN_INLINE void for_block(int64_t width, const Body& body) {
    for (int v = 0; v * kLanes<T> < width; v++) body(v, least(kLanes<T>, width - v * kLanes<T>));
}

template <typename T>
void lrn_fwd(const LrnShape& p, const T* x, T* y) {
    const int64_t channels = p.shape.C, pixels = p.shape.L;
    const int64_t before = p.size / 2, after = (p.size - 1) / 2;
    const T share = static_cast<T>(p.alpha / static_cast<double>(p.size));
    const T k = static_cast<T>(p.k);
    for_blocks<T>(p.shape, channels, [&](int64_t base, int64_t width, T* squares) {
        for (int64_t c = 0; c < channels; c++) {
            for_block<T>(width, [&](int v, int64_t lanes) __attribute__((always_inline)) {
                const Vec<T> value = load_part(x + base + c * pixels + v * kLanes<T>, lanes);
                store(squares + c * kBlockWidth<T> + v * kLanes<T>, value * value);
            });
        }
        for (int64_t c = 0; c < channels; c++) {
            for_block<T>(width, [&](int v, int64_t lanes) __attribute__((always_inline)) {
                const int64_t at = base + c * pixels + v * kLanes<T>;
                const Vec<T> s = k + share * window_sum(squares, channels, c - before, c + after, v);
                store_part(y + at, load_part(x + at, lanes) * inverse_power<T>(s, p.beta), lanes);
            });
        }
    });
}

template <typename T>
void lrn_bwd(const LrnShape& p, const T* dy, const T* x, T* dx) {
    const int64_t channels = p.shape.C, pixels = p.shape.L;
    const int64_t before = p.size / 2, after = (p.size - 1) / 2;
    const T share = static_cast<T>(p.alpha / static_cast<double>(p.size));
    const T slope = static_cast<T>(-2.0 * p.alpha * p.beta / static_cast<double>(p.size));
    const T k = static_cast<T>(p.k);
    const int64_t rows = channels * kBlockWidth<T>;
    for_blocks<T>(p.shape, 3 * channels, [&](int64_t base, int64_t width, T* squares) {
        T* scaled = squares + rows;  // dy s^-beta
        T* pulls = scaled + rows;    // dy x s^(-beta - 1)
        for (int64_t c = 0; c < channels; c++) {
            for_block<T>(width, [&](int v, int64_t lanes) __attribute__((always_inline)) {
                const Vec<T> value = load_part(x + base + c * pixels + v * kLanes<T>, lanes);
                store(squares + c * kBlockWidth<T> + v * kLanes<T>, value * value);
            });
        }
        for (int64_t c = 0; c < channels; c++) {
            for_block<T>(width, [&](int v, int64_t lanes) __attribute__((always_inline)) {
                const int64_t at = base + c * pixels + v * kLanes<T>;
                const int64_t local = c * kBlockWidth<T> + v * kLanes<T>;
                const Vec<T> s = k + share * window_sum(squares, channels, c - before, c + after, v);
                const Vec<T> d = load_part(dy + at, lanes) * inverse_power<T>(s, p.beta);
                store(scaled + local, d);
                store(pulls + local, d * load_part(x + at, lanes) / s);
            });
        }
        for (int64_t c = 0; c < channels; c++) {
            for_block<T>(width, [&](int v, int64_t lanes) __attribute__((always_inline)) {
                const int64_t at = base + c * pixels + v * kLanes<T>;
                const Vec<T> pull = window_sum(pulls, channels, c - after, c + before, v);
                const Vec<T> own = load(scaled + c * kBlockWidth<T> + v * kLanes<T>);
                store_part(dx + at, own + slope * load_part(x + at, lanes) * pull, lanes);
            });
        }
    });
}

template void lrn_fwd(const LrnShape&, const float*, float*);
template void lrn_fwd(const LrnShape&, const double*, double*);
template void lrn_bwd(const LrnShape&, const float*, const float*, float*);
template void lrn_bwd(const LrnShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
