// What a compiled network does pixel by pixel in the packed layout: sums, channel affine maps, pooling and depthwise
// convolution.  Channels lie along the vectors, so none of them looks across one.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/packed_tile.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

// body(image, block, row) for every row of pixels of one block of channels.
template <typename Body>
void for_rows(int64_t images, const PackedView& y, int64_t elements, const Body& body) {
    const int64_t blocks = ceil_div(y.channels, kBlock);
    parallel(images * blocks * y.height, elements,
             [&](int64_t task) { body(task / y.height / blocks, task / y.height % blocks, task % y.height); });
}

PYCNN_INLINE float* row_of(const PackedView& view, int64_t image, int64_t block, int64_t row) {
    return view.data + image * view.image + block * view.block + row * view.row;
}

int64_t size_of(int64_t images, const PackedView& view) {
    return images * view.channels * view.height * view.width;
}

// The taps of a filter that meet the image from `first` on: [begin, end).
struct Taps {
    int64_t begin, end;
    explicit Taps(int64_t taps) : begin(0), end(taps) {}
    Taps(int64_t first, int64_t dilation, int64_t size, int64_t taps)
        : begin(first >= 0 ? 0 : least(taps, ceil_div(-first, dilation))),
          end(first >= size ? begin : most(begin, least(taps, ceil_div(size - first, dilation)))) {}
};

// Outputs side by side that share the loads of a depthwise filter row.
constexpr int kSide = 4;

template <int COUNT>
PYCNN_INLINE void depthwise_pixels(const PackedDepthwise& p, const float* x, const float* w, Vec<float> bias,
                                   const Taps& rows, const Taps& columns, float* y) {
    Vec<float> sum[COUNT];
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; i++) sum[i] = bias;
    for (int64_t r = rows.begin; r < rows.end; r++) {
        for (int64_t s = columns.begin; s < columns.end; s++) {
            const Vec<float> filter = load(w + (r * p.S + s) * kBlock);
            const float* at = x + r * p.dilation_h * p.x.row + s * p.dilation_w * p.x.pixel;
#pragma GCC unroll 4
            for (int i = 0; i < COUNT; i++) sum[i] += load(at + i * p.stride_w * p.x.pixel) * filter;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; i++) store(y + i * p.y.pixel, clamped<float>(sum[i], p.clamp.low, p.clamp.high));
}

// Averages and maxima go over the pixels of a clipped window; the windows of COUNT columns from q on are `step` apart.
template <int COUNT, typename Join, typename Finish>
PYCNN_INLINE void pool_pixels(const PackedPool& p, const float* x, int64_t row, int64_t q, int64_t step,
                              Vec<float> start, const Join& join, const Finish& finish, float* y) {
    const Span& rows = p.rows[row];
    const Span& columns = p.columns[q];
    Vec<float> value[COUNT];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; i++) value[i] = start;
    for (int64_t h = rows.begin; h < rows.end; h += p.row_step) {
        for (int64_t w = columns.begin; w < columns.end; w += p.column_step) {
            const float* at = x + h * p.x.row + w * kBlock;
#pragma GCC unroll 8
            for (int i = 0; i < COUNT; i++) value[i] = join(value[i], load(at + i * step * kBlock));
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; i++) store(y + (q + i) * kBlock, finish(value[i], row, q + i));
}

// Windows side by side whose sums or maxima grow at the same time: one alone waits for itself at every pixel.
constexpr int kPoolSide = 4;

// Whether the windows of kPoolSide columns from q on are of one size and evenly spaced.
bool pools_alike(const PackedPool& p, int64_t q) {
    if (q + kPoolSide > p.y.width) return false;
    const Span* columns = p.columns + q;
    bool alike = true;
    for (int i = 1; i < kPoolSide; i++) {
        alike &= columns[i].end - columns[i].begin == columns[0].end - columns[0].begin;
        alike &= columns[i].begin - columns[i - 1].begin == columns[1].begin - columns[0].begin;
    }
    return alike;
}

template <typename Start, typename Join, typename Finish>
void pool_rows(const PackedPool& p, const Start& start, const Join& join, const Finish& finish) {
    for_rows(p.images, p.y, size_of(p.images, p.x), [&](int64_t n, int64_t block, int64_t row) {
        const float* x = row_of(p.x, n, block, 0);
        float* y = row_of(p.y, n, block, row);
        const Vec<float> first = start(block);
        for (int64_t q = 0; q < p.y.width;) {
            if (pools_alike(p, q)) {
                const int64_t step = p.columns[q + 1].begin - p.columns[q].begin;
                pool_pixels<kPoolSide>(p, x, row, q, step, first, join, finish, y);
                q += kPoolSide;
            } else {
                pool_pixels<1>(p, x, row, q, 0, first, join, finish, y);
                q++;
            }
        }
    });
}

// y = clamp(join(a, b)), element by element.
template <typename Join>
void join_rows(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp,
               const Join& join) {
    for_rows(images, y, size_of(images, y), [&](int64_t n, int64_t block, int64_t row) {
        const float* left = row_of(a, n, block, row);
        const float* right = row_of(b, n, block, row);
        float* to = row_of(y, n, block, row);
        for (int64_t i = 0; i < y.width * kBlock; i += kBlock) {
            const Vec<float> value = join(load(left + i), load(right + i));
            store(to + i, clamped<float>(value, clamp.low, clamp.high));
        }
    });
}

}  // namespace

void packed_add(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp) {
    join_rows(images, a, b, y, clamp, [](Vec<float> u, Vec<float> v) __attribute__((always_inline)) { return u + v; });
}

void packed_mul(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp) {
    join_rows(images, a, b, y, clamp, [](Vec<float> u, Vec<float> v) __attribute__((always_inline)) { return u * v; });
}

void packed_affine(int64_t images, const PackedView& x, const float* scale, const float* shift, const PackedView& y,
                   const Clamp& clamp) {
    for_rows(images, y, size_of(images, y), [&](int64_t n, int64_t block, int64_t row) {
        const float* from = row_of(x, n, block, row);
        float* to = row_of(y, n, block, row);
        const Vec<float> slope = load(scale + block * kBlock);
        const Vec<float> offset = load(shift + block * kBlock);
        for (int64_t i = 0; i < y.width * kBlock; i += kBlock) {
            const Vec<float> value = load(from + i) * slope + offset;
            store(to + i, clamped<float>(value, clamp.low, clamp.high));
        }
    });
}

void packed_scale(int64_t images, const PackedView& x, const PackedView& scale, const PackedView& y,
                  const Clamp& clamp) {
    for_rows(images, y, size_of(images, y), [&](int64_t n, int64_t block, int64_t row) {
        const float* from = row_of(x, n, block, row);
        float* to = row_of(y, n, block, row);
        const Vec<float> slope = load(row_of(scale, n, block, 0));
        for (int64_t i = 0; i < y.width * kBlock; i += kBlock) {
            const Vec<float> value = load(from + i) * slope;
            store(to + i, clamped<float>(value, clamp.low, clamp.high));
        }
    });
}

void packed_mean(int64_t images, const PackedView& x, float* y) {
    const int64_t blocks = ceil_div(x.channels, kBlock);
    const float pixels = static_cast<float>(x.height * x.width);
    parallel(images * blocks, size_of(images, x), [&](int64_t task) {
        const int64_t n = task / blocks;
        const int64_t block = task % blocks;
        Vec<float> sum = {};
        for (int64_t h = 0; h < x.height; h++) {
            const float* row = row_of(x, n, block, h);
            Vec<float> part = {};  // a sum of row sums loses less than one long sum
            for (int64_t w = 0; w < x.width; w++) part += load(row + w * kBlock);
            sum += part;
        }
        store_part(y + n * x.channels + block * kBlock, sum / pixels, least(kBlock, x.channels - block * kBlock));
    });
}

// A NaN wins, and a window without pixels gives -infinity, as in max_pool.cpp; lanes beyond the channels stay zero.
void packed_max_pool(const PackedPool& p) {
    float lowest[kBlock];
    fill(lowest, -__builtin_inff(), kBlock);
    pool_rows(
        p,
        [&](int64_t block)
            __attribute__((always_inline)) { return load_part(lowest, least(kBlock, p.x.channels - block * kBlock)); },
        [](Vec<float> a, Vec<float> b) __attribute__((always_inline)) { return a >= b || a != a ? a : b; },
        [](Vec<float> value, int64_t, int64_t) __attribute__((always_inline)) { return value; });
}

void packed_avg_pool(const PackedPool& p) {
    pool_rows(
        p, [](int64_t) __attribute__((always_inline)) { return Vec<float>{}; },
        [](Vec<float> a, Vec<float> b) __attribute__((always_inline)) { return a + b; },
        [&](Vec<float> value, int64_t row, int64_t column) __attribute__((always_inline)) {
            return value / static_cast<float>(p.row_counts[row] * p.column_counts[column]);
        });
}

void packed_depthwise(const PackedDepthwise& p) {
    const int64_t elements = size_of(p.images, p.y) * p.R * p.S;
    // In the order of memory: the blocks of a packed tensor lie apart, those of a channels-last pixel side by side.
    const int64_t blocks = ceil_div(p.y.channels, kBlock);
    const int64_t together = p.x.pixel == kBlock ? 1 : blocks;
    const int64_t shares = blocks / together;
    // Columns [inner, outer) of y meet x with all taps.
    const int64_t inner = least(p.y.width, ceil_div(most(0, p.pad_left), p.stride_w));
    const int64_t room =
        p.x.width - 1 - (p.S - 1) * p.dilation_w + p.pad_left;  // for the first tap of the last of them
    const int64_t outer = most(inner, least(p.y.width, room < 0 ? 0 : room / p.stride_w + 1));
    parallel(p.images * shares * p.y.height, elements, [&](int64_t task) {
        const int64_t row = task % p.y.height;
        const int64_t share = task / p.y.height % shares;
        const int64_t n = task / p.y.height / shares;
        const int64_t first = row * p.stride_h - p.pad_top;
        const Taps rows(first, p.dilation_h, p.x.height, p.R);
        for (int64_t q = 0; q < p.y.width;) {
            const int64_t column = q * p.stride_w - p.pad_left;
            const bool alike = q >= inner && q + kSide <= outer;
            const Taps columns = q >= inner && q < outer ? Taps(p.S) : Taps(column, p.dilation_w, p.x.width, p.S);
            for (int64_t block = share * together; block < (share + 1) * together; block++) {
                const float* x = row_of(p.x, n, block, 0) + first * p.x.row + column * p.x.pixel;
                const float* w = p.filters + block * p.R * p.S * kBlock;
                const Vec<float> bias = load(p.bias + block * kBlock);
                float* y = row_of(p.y, n, block, row) + q * p.y.pixel;
                if (alike) {
                    depthwise_pixels<kSide>(p, x, w, bias, rows, columns, y);
                } else {
                    depthwise_pixels<1>(p, x, w, bias, rows, columns, y);
                }
            }
            q += alike ? kSide : 1;
        }
    });
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
