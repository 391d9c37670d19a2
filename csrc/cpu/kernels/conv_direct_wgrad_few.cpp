// Direct convolution, wgrad with few input channels: the vectors lie along the filters.
//
//   dw[k][c][r][s] = sum over pixels of x[c][pixel's tap (r, s)] * dy[k][pixel]
//
// Three channels fill no vector, nor do the taps of a row joined to them; the filters do.  So the operands change
// places: the rows of a tile are taps, each a number of x that is broadcast, and its vectors are filters:
//
//   x, padded, by row            [residue of the stride][row][channel][column]
//                                (r, c) count through as one index of a fixed distance, a tap s is an offset
//   dy, channels last            [pixel][filter]            transposed once: a task sums all taps of its filters
//   dw, as it is summed          [s][r, c][filter]
//
// A task is (slice of the rows of all images, group, strip of filters).  The slices depend on the shape only; each
// sums into its own copy of dw, and the copies are added in order: deterministic for any thread count.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/microkernel.h"
#include "cpu/kernels/pack.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kTasks = 16;             // enough to keep several threads evenly busy
constexpr int64_t kSlicePixels = 256;      // at least: a slice's sums are written and added up once
constexpr int64_t kBandBytes = 192 << 10;  // of x and of dy: both stay in L2

}  // namespace

template <typename T>
bool few_channels_pay(const ConvShape& s, int64_t other) {
    if (s.dilation_h != 1 && s.R != 1) return false;
    constexpr int64_t kTransposed = 5;  // multiply-adds that take as long as transposing a vector
    const int64_t vectors = ceil_div(s.K / s.groups, kLanes<T>);
    return 10 * vectors * (s.C / s.groups * s.R * s.S + kTransposed) < 9 * other;
}

template <typename T>
void few_channels_wgrad(const ConvShape& s, const T* dy, const T* x, T* dw) {
    const int64_t channels = s.C / s.groups;
    const int64_t filters = s.K / s.groups;
    const int64_t lines = s.R * channels;  // rows of the image that a pixel meets
    const int64_t residues = least(s.stride_w, (s.S - 1) * s.dilation_w + 1);
    const int64_t width = s.Q + (s.S - 1) * s.dilation_w / s.stride_w;
    const Strips strips(ceil_div(filters, kLanes<T>));
    const int64_t line_blocks = ceil_div(lines, kTileRows);
    // How many rows of outputs are summed at once, and how many of x they meet.
    const auto rows_met = [&](int64_t rows) { return (rows - 1) * s.stride_h + s.R; };
    const auto x_size = [&](int64_t rows) { return residues * rows_met(rows) * channels * width; };
    const auto dy_size = [&](int64_t rows) { return rows * s.Q * kTileVectors * kLanes<T>; };
    constexpr int64_t kBudget = kBandBytes / static_cast<int64_t>(sizeof(T));
    int64_t band = s.P;
    while (band > 1 && (x_size(band) > kBudget || dy_size(band) > kBudget)) band = ceil_div(band, 2);
    const int64_t all_rows = s.N * s.P;
    const int64_t wanted = ceil_div(kTasks, s.groups * strips.count);
    const int64_t slices = most(1, least(least(wanted, all_rows), all_rows * s.Q / kSlicePixels));
    const int64_t strip_size = s.S * lines * kTileVectors * kLanes<T>;
    const int64_t sums = s.groups * strips.count;
    const Scratch<T> partial(slices * sums * strip_size);  // [slice][group][strip][s][r, c][filter]
    parallel(slices * sums, [&](int64_t task) {
        const int64_t sum = task % sums;
        const int64_t slice = task / sums;
        const int64_t group = sum / strips.count;
        const int64_t strip = sum % strips.count;
        const int64_t vectors = strips.width(strip);
        const int64_t panel = vectors * kLanes<T>;
        const int64_t k0 = strips.start(strip) * kLanes<T>;
        const int64_t count = least(panel, filters - k0);
        T* const to = partial.get() + task * strip_size;
        const Scratch<T> image(x_size(band));
        const Scratch<T> gradient(dy_size(band));
        if (count < panel) fill(gradient.get(), T(0), dy_size(band));
        const int64_t begin = slice * all_rows / slices;
        const int64_t end = (slice + 1) * all_rows / slices;
        if (begin == end) fill(to, T(0), strip_size);
        for (int64_t row = begin; row < end;) {
            const int64_t n = row / s.P;
            const int64_t p = row % s.P;
            const int64_t rows = least(least(band, end - row), s.P - p);
            const int64_t met = rows_met(rows);
            const int64_t residue_size = met * channels * width;
            const T* planes = x + (n * s.groups + group) * channels * s.H * s.W;
            for (int64_t i = 0; i < met; i++) {
                const int64_t h = p * s.stride_h - s.pad_top + i;
                for (int64_t c = 0; c < channels; c++) {
                    for (int64_t residue = 0; residue < residues; residue++) {
                        T* at = image.get() + residue * residue_size + (i * channels + c) * width;
                        if (h < 0 || h >= s.H) {
                            fill(at, T(0), width);
                        } else {
                            copy_row(at, width, planes + (c * s.H + h) * s.W, residue - s.pad_left, s.stride_w, s.W);
                        }
                    }
                }
            }
            copy_transposed(dy + (((n * s.groups + group) * filters + k0) * s.P + p) * s.Q, s.P * s.Q, count,
                            rows * s.Q, gradient.get(), panel);
            for (int64_t block = 0; block < line_blocks; block++) {
                const int64_t line = block * lines / line_blocks;
                const int64_t some = (block + 1) * lines / line_blocks - line;
                for (int64_t tap = 0; tap < s.S; tap++) {
                    const int64_t column = tap * s.dilation_w;
                    tile_any<T, false>(
                        some, vectors,
                        {.depth = s.Q,
                         .a = image.get() + column % s.stride_w * residue_size + line * width + column / s.stride_w,
                         .a_step = 1,
                         .a_row = width,
                         .b = gradient.get(),
                         .b_step = panel,
                         .b_offset = nullptr,
                         .c = to + (tap * lines + line) * panel,
                         .c_row = panel,
                         .accumulate = row > begin,
                         .repeat = rows,
                         .a_repeat = s.stride_h * channels * width,
                         .b_repeat = s.Q * panel});
                }
            }
            row += rows;
        }
    });
    // Add the slices in order, and put the filters first.
    parallel(sums * lines, [&](int64_t task) {
        const int64_t sum = task / lines;
        const int64_t line = task % lines;
        const int64_t group = sum / strips.count;
        const int64_t strip = sum % strips.count;
        const int64_t panel = strips.width(strip) * kLanes<T>;
        const int64_t k0 = strips.start(strip) * kLanes<T>;
        T* const first = partial.get() + sum * strip_size + line * panel;
        for (int64_t tap = 0; tap < s.S; tap++) {
            for (int64_t i = 0; i < panel; i += kLanes<T>) {
                T* const at = first + tap * lines * panel + i;
                Vec<T> total = load(at);
                for (int64_t slice = 1; slice < slices; slice++) total += load(at + slice * sums * strip_size);
                store(at, total);
            }
        }
        T* const to =
            dw + (group * filters + k0) * channels * s.R * s.S + (line % channels * s.R + line / channels) * s.S;
        copy_transposed(first, lines * panel, s.S, least(panel, filters - k0), to, channels * s.R * s.S);
    });
}

template bool few_channels_pay<float>(const ConvShape&, int64_t);
template bool few_channels_pay<double>(const ConvShape&, int64_t);
template void few_channels_wgrad(const ConvShape&, const float*, const float*, float*);
template void few_channels_wgrad(const ConvShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
