// im2col convolution: the image unfolds into a matrix with one column a pixel, and each pass is a matrix product.
//
//   columns[(c, r, s)][(p, q)] = x[c][p * stride - pad + r * dilation][q * stride - pad + s * dilation]
//
//   fprop   y = w columns       (K x CRS) (CRS x PQ)
//   dgrad   dx = fold(w' dy)    (CRS x K) (K x PQ), each pixel of dx gathering what its taps hold
//   wgrad   dw = dy columns'    (K x PQ) (PQ x CRS)
//
// The explicit variant holds the columns of one image in memory.  The implicit one never does: it unfolds each panel
// where the blocked product wants it packed, in L1; its dgrad unfolds dy instead, as the product
// dx = w'' (C x KRS) times columns of dy (KRS x HW).
#include "cpu/kernels/conv.h"
#include "cpu/kernels/product.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

// The row `t` = (channel, r, s) of a matrix of columns.
struct Row {
    int64_t channel, r, s;
    Row(const ConvShape& shape, int64_t t)
        : channel(t / (shape.R * shape.S)), r(t / shape.S % shape.R), s(t % shape.S) {}
    void next(const ConvShape& shape) {
        if (++s < shape.S) return;
        s = 0;
        if (++r < shape.R) return;
        r = 0;
        channel++;
    }
};

// Columns [j, j + count) of one row of the columns of x; `x` is the group's first channel.
template <typename T>
void unfold_row(const ConvShape& s, const T* x, const Row& row, int64_t j, int64_t count, T* to) {
    for (int64_t p = j / s.Q, q = j % s.Q; count > 0; p++, q = 0) {
        const int64_t run = least(count, s.Q - q);
        const int64_t h = p * s.stride_h - s.pad_top + row.r * s.dilation_h;
        if (h < 0 || h >= s.H) {
            fill(to, T(0), run);
        } else {
            copy_row(to, run, x + (row.channel * s.H + h) * s.W, q * s.stride_w - s.pad_left + row.s * s.dilation_w,
                     s.stride_w, s.W);
        }
        to += run;
        count -= run;
    }
}

// Columns [j, j + count), which are pixels of dx, of one row of the columns of dy: the output that tap saw there, or 0.
template <typename T>
void unfold_gradient_row(const ConvShape& s, const T* dy, const Row& row, int64_t j, int64_t count, T* to) {
    for (int64_t h = j / s.W, w = j % s.W; count > 0; h++, w = 0) {
        const int64_t run = least(count, s.W - w);
        const int64_t up = h + s.pad_top - row.r * s.dilation_h;
        const int64_t left = w + s.pad_left - row.s * s.dilation_w;
        const T* from = dy + (row.channel * s.P + up / s.stride_h) * s.Q;
        if (up < 0 || up % s.stride_h != 0 || up / s.stride_h >= s.P) {
            fill(to, T(0), run);
        } else if (s.stride_w == 1) {
            copy_row(to, run, from, left, 1, s.Q);
        } else {
            fill(to, T(0), run);
            const int64_t q = left > 0 ? ceil_div(left, s.stride_w) : 0;
            for (int64_t i = q; i < s.Q && i * s.stride_w - left < run; i++) to[i * s.stride_w - left] = from[i];
        }
        to += run;
        count -= run;
    }
}

int64_t window(const ConvShape& s) {
    return s.C / s.groups * s.R * s.S;
}

}  // namespace

template <typename T>
void conv_fprop_im2col(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
    const int64_t filters = s.K / s.groups;
    const int64_t depth_all = window(s);
    const bool pointwise = is_pointwise(s);
    const int64_t pixels = s.P * s.Q;
    product<T>(
        {.batch = s.N * s.groups,
         .m = filters,
         .n = pixels,
         .k = depth_all,
         .accumulate = false,
         .row_bias = bias,
         .bias_batch = s.groups,
         .column_bias = nullptr},
        pixels,
        [&](int64_t batch, int64_t i, int64_t rows, int64_t t, int64_t depth, int64_t uses, T* room) {
            const T* at = w + (batch % s.groups * filters + i) * depth_all + t;
            return fetch_rows(at, depth_all, 1, rows, depth, uses, room);
        },
        [&](int64_t batch, int64_t j, int64_t width, int64_t panel, int64_t t, int64_t depth, int64_t uses, T* room) {
            const T* image = x + batch * (s.C / s.groups) * s.H * s.W;
            if (pointwise) return fetch_panel(image + t * pixels + j, pixels, 1, width, panel, depth, uses, room);
            Row row(s, t);
            for (int64_t i = 0; i < depth; i++, row.next(s)) {
                unfold_row(s, image, row, j, width, room + i * panel);
                fill(room + i * panel + width, T(0), panel - width);
            }
            return Walk<T>{room, panel, 0};
        },
        [&](int64_t batch) { return y + batch * filters * pixels; });
}

template <typename T>
void conv_dgrad_im2col(const ConvShape& s, const T* dy, const T* w, T* dx) {
    const int64_t filters = s.K / s.groups;
    const int64_t channels = s.C / s.groups;
    const int64_t pixels = s.H * s.W;
    const int64_t taps = s.R * s.S;
    const bool pointwise = is_pointwise(s);
    // The columns of dy hold zeros that the convolution never had: harmless unless they meet an infinity.
    if (!pointwise && !all_finite(w, s.K * channels * taps)) return conv_dgrad_im2col_explicit(s, dy, w, dx);
    product<T>(
        {.batch = s.N * s.groups,
         .m = channels,
         .n = pixels,
         .k = filters * taps,
         .accumulate = false,
         .row_bias = nullptr,
         .bias_batch = 1,
         .column_bias = nullptr},
        pixels,
        [&](int64_t batch, int64_t i, int64_t rows, int64_t t, int64_t depth, int64_t, T* room) {
            const T* of_group = w + batch % s.groups * filters * channels * taps;
            T* to = room;
            for (int64_t step = t; step < t + depth; step++, to += rows) {
                const T* from = of_group + (step / taps * channels + i) * taps + step % taps;
                for (int64_t row = 0; row < rows; row++) to[row] = from[row * taps];
            }
            return Walk<T>{room, rows, 1};
        },
        [&](int64_t batch, int64_t j, int64_t width, int64_t panel, int64_t t, int64_t depth, int64_t uses, T* room) {
            const T* image = dy + batch * filters * s.P * s.Q;
            if (pointwise) return fetch_panel(image + t * pixels + j, pixels, 1, width, panel, depth, uses, room);
            Row row(s, t);
            for (int64_t i = 0; i < depth; i++, row.next(s)) {
                unfold_gradient_row(s, image, row, j, width, room + i * panel);
                fill(room + i * panel + width, T(0), panel - width);
            }
            return Walk<T>{room, panel, 0};
        },
        [&](int64_t batch) { return dx + batch * channels * pixels; });
}

template <typename T>
void conv_wgrad_im2col(const ConvShape& s, const T* dy, const T* x, T* dw) {
    const int64_t filters = s.K / s.groups;
    const int64_t columns = window(s);
    const int64_t pixels = s.P * s.Q;
    const int64_t all = s.N * pixels;
    // A small dw leaves too few tasks: the pixels are cut into slices, by the shape alone, and summed in order.
    const int64_t tiles = s.groups * ceil_div(filters, 4 * kTileRows) * ceil_div(columns, kTileVectors * kLanes<T>);
    const int64_t slices = most(1, least(ceil_div(16, tiles), all / 2048));
    const int64_t slice = ceil_div(all, slices);
    const int64_t size = s.K * columns;
    const Scratch<T> partial(slices > 1 ? slices * size : 1);
    T* sums = slices > 1 ? partial.get() : dw;
    // Calls body(image, first pixel, count, steps before it) for the images of steps [t, t + depth) of a slice.
    const auto runs = [&](int64_t batch, int64_t t, int64_t depth, const auto& body) {
        const int64_t first = batch / s.groups * slice + t;
        const int64_t end = least(first + depth, least(all, (batch / s.groups + 1) * slice));
        int64_t at = first;
        while (at < end) {
            const int64_t count = least(end - at, pixels - at % pixels);
            body(at / pixels * s.groups + batch % s.groups, at % pixels, count, at - first);
            at += count;
        }
        return most(0, end - first);
    };
    product<T>(
        {.batch = slices * s.groups,
         .m = filters,
         .n = columns,
         .k = slice,
         .accumulate = false,
         .row_bias = nullptr,
         .bias_batch = 1,
         .column_bias = nullptr},
        columns,
        [&](int64_t batch, int64_t i, int64_t rows, int64_t t, int64_t depth, int64_t, T* room) {
            const int64_t filled = runs(batch, t, depth, [&](int64_t image, int64_t pixel, int64_t count, int64_t at) {
                pack_sliver(dy + (image * filters + i) * pixels + pixel, pixels, 1, rows, count, room + at * rows);
            });
            fill(room + filled * rows, T(0), (depth - filled) * rows);
            return Walk<T>{room, rows, 1};
        },
        [&](int64_t batch, int64_t j, int64_t width, int64_t panel, int64_t t, int64_t depth, int64_t, T* room) {
            T unfolded[kLanes<T> * kDepth];
            if (width < panel) fill(room, T(0), depth * panel);
            for (int64_t j0 = 0; j0 < width; j0 += kLanes<T>) {
                const int64_t some = least(kLanes<T>, width - j0);
                const int64_t filled =
                    runs(batch, t, depth, [&](int64_t image, int64_t pixel, int64_t count, int64_t at) {
                        Row row(s, j + j0);
                        for (int64_t i = 0; i < some; i++, row.next(s)) {
                            unfold_row(s, x + image * (s.C / s.groups) * s.H * s.W, row, pixel, count,
                                       unfolded + i * kDepth + at);
                        }
                    });
                for (int64_t i = 0; i < some; i++) fill(unfolded + i * kDepth + filled, T(0), depth - filled);
                copy_transposed(unfolded, kDepth, some, depth, room + j0, panel);
            }
            return Walk<T>{room, panel, 0};
        },
        [&](int64_t batch) { return sums + batch / s.groups * size + batch % s.groups * filters * columns; });
    if (slices == 1) return;
    parallel(ceil_div(size, 4096), [&](int64_t block) {
        for (int64_t i = block * 4096; i < least(size, (block + 1) * 4096); i++) {
            T sum = partial.get()[i];
            for (int64_t j = 1; j < slices; j++) sum += partial.get()[j * size + i];
            dw[i] = sum;
        }
    });
}

namespace {

// The whole matrix of columns of one image, all groups: (C, R, S) x (P, Q).
template <typename T>
void unfold(const ConvShape& s, const T* x, T* columns) {
    parallel(s.C, [&](int64_t c) {
        Row row(s, c * s.R * s.S);
        for (int64_t i = 0; i < s.R * s.S; i++, row.next(s)) {
            unfold_row(s, x, row, 0, s.P * s.Q, columns + (c * s.R * s.S + i) * s.P * s.Q);
        }
    });
}

// dx of one image from the gradient of its columns: each row of dx gathers the rows of the columns that it went to.
template <typename T>
void fold(const ConvShape& s, const T* columns, T* dx) {
    parallel(s.C, [&](int64_t c) {
        for (int64_t h = 0; h < s.H; h++) {
            T* to = dx + (c * s.H + h) * s.W;
            fill(to, T(0), s.W);
            for (int64_t r = 0; r < s.R; r++) {
                const int64_t up = h + s.pad_top - r * s.dilation_h;
                if (up < 0 || up % s.stride_h != 0 || up / s.stride_h >= s.P) continue;
                for (int64_t tap = 0; tap < s.S; tap++) {
                    const T* from = columns + (((c * s.R + r) * s.S + tap) * s.P + up / s.stride_h) * s.Q;
                    const int64_t left = s.pad_left - tap * s.dilation_w;  // w = q * stride - left
                    const int64_t first = left > 0 ? ceil_div(left, s.stride_w) : 0;
                    const int64_t end = s.W + left > 0 ? least(s.Q, ceil_div(s.W + left, s.stride_w)) : 0;
                    for (int64_t q = first; q < end; q++) to[q * s.stride_w - left] += from[q];
                }
            }
        }
    });
}

}  // namespace

template <typename T>
void conv_fprop_im2col_explicit(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
    const int64_t filters = s.K / s.groups;
    const int64_t pixels = s.P * s.Q;
    const bool pointwise = is_pointwise(s);
    const Scratch<T> room(pointwise ? 1 : s.C * s.R * s.S * pixels);
    for (int64_t n = 0; n < s.N; n++) {
        const T* columns = pointwise ? x + n * s.C * pixels : room.get();
        if (!pointwise) unfold(s, x + n * s.C * s.H * s.W, room.get());
        for (int64_t g = 0; g < s.groups; g++) {
            gemm<T>({.m = filters,
                     .n = pixels,
                     .k = window(s),
                     .a = w + g * filters * window(s),
                     .a_row = window(s),
                     .a_col = 1,
                     .b = columns + g * window(s) * pixels,
                     .b_row = pixels,
                     .b_col = 1,
                     .bias = nullptr,
                     .c = y + (n * s.groups + g) * filters * pixels,
                     .c_row = pixels,
                     .row_bias = bias == nullptr ? nullptr : bias + g * filters});
        }
    }
}

template <typename T>
void conv_dgrad_im2col_explicit(const ConvShape& s, const T* dy, const T* w, T* dx) {
    const int64_t filters = s.K / s.groups;
    const int64_t pixels = s.P * s.Q;
    const bool pointwise = is_pointwise(s);
    const Scratch<T> room(pointwise ? 1 : s.C * s.R * s.S * pixels);
    // The steps of a product lie a row of w apart; where that is whole pages they all fall into one set of the cache, and
    // w' is made a matrix of its own first.
    constexpr int64_t kPage = 4096 / static_cast<int64_t>(sizeof(T));
    constexpr int64_t kFewPixels = 128;  // too few tiles would read it
    const bool turned = window(s) % kPage == 0 && s.N * pixels > kFewPixels;
    const Scratch<T> own(turned ? s.K * window(s) : 1);
    if (turned) {
        constexpr int64_t kRows = 64;  // of a task
        const int64_t parts = window(s) / kRows;
        parallel(s.groups * parts, s.K * window(s), [&](int64_t task) {
            const int64_t of_group = task / parts * filters * window(s);
            const int64_t row = task % parts * kRows;
            copy_transposed(w + of_group + row, window(s), filters, kRows, own.get() + of_group + row * filters,
                            filters);
        });
    }
    for (int64_t n = 0; n < s.N; n++) {
        T* image = dx + n * s.C * s.H * s.W;
        T* columns = pointwise ? image : room.get();
        for (int64_t g = 0; g < s.groups; g++) {
            gemm<T>({.m = window(s),
                     .n = pixels,
                     .k = filters,
                     .a = (turned ? own.get() : w) + g * filters * window(s),
                     .a_row = turned ? filters : 1,
                     .a_col = turned ? 1 : window(s),
                     .b = dy + (n * s.groups + g) * filters * pixels,
                     .b_row = pixels,
                     .b_col = 1,
                     .bias = nullptr,
                     .c = columns + g * window(s) * pixels,
                     .c_row = pixels});
        }
        if (!pointwise) fold(s, columns, image);
    }
}

template <typename T>
void conv_wgrad_im2col_explicit(const ConvShape& s, const T* dy, const T* x, T* dw) {
    const int64_t filters = s.K / s.groups;
    const int64_t pixels = s.P * s.Q;
    const bool pointwise = is_pointwise(s);
    const Scratch<T> room(pointwise ? 1 : s.C * s.R * s.S * pixels);
    if (s.N == 0) parallel(s.K, [&](int64_t k) { fill(dw + k * window(s), T(0), window(s)); });
    for (int64_t n = 0; n < s.N; n++) {
        const T* columns = pointwise ? x + n * s.C * pixels : room.get();
        if (!pointwise) unfold(s, x + n * s.C * s.H * s.W, room.get());
        for (int64_t g = 0; g < s.groups; g++) {
            gemm<T>({.m = filters,
                     .n = window(s),
                     .k = pixels,
                     .a = dy + (n * s.groups + g) * filters * pixels,
                     .a_row = pixels,
                     .a_col = 1,
                     .b = columns + g * window(s) * pixels,
                     .b_row = 1,
                     .b_col = pixels,
                     .bias = nullptr,
                     .c = dw + g * filters * window(s),
                     .c_row = window(s),
                     .accumulate = n > 0});
        }
    }
}

#define PYCNN_INSTANTIATE(T)                                                                      \
    template void conv_fprop_im2col(const ConvShape&, const T*, const T*, const T*, T*);          \
    template void conv_dgrad_im2col(const ConvShape&, const T*, const T*, T*);                    \
    template void conv_wgrad_im2col(const ConvShape&, const T*, const T*, T*);                    \
    template void conv_fprop_im2col_explicit(const ConvShape&, const T*, const T*, const T*, T*); \
    template void conv_dgrad_im2col_explicit(const ConvShape&, const T*, const T*, T*);           \
    template void conv_wgrad_im2col_explicit(const ConvShape&, const T*, const T*, T*);
PYCNN_INSTANTIATE(float)
PYCNN_INSTANTIATE(double)
#undef PYCNN_INSTANTIATE

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
