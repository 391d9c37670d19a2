// Direct convolution, wgrad: dw[k][c][r][s] = sum over pixels of dy[k][pixel] * x[c][pixel's tap (r, s)].
//
// The reduction of a tile runs over pixels, its rows are filters and its vectors lie along channels:
//
//   x, padded, channels last      [row][column][channel]     a tap is a fixed distance, a stride a longer step
//   dy where it lies              [k][p][q]                  read as `rows` streams along memory
//   dw, as it is summed           [tap][k][channel]
//
// With few channels a whole row of taps lies together, (s, c) next to each other: then a vector holds those, and the
// taps are the rows r alone.  A 6-channel 5x5 filter is 5 taps of 30 lanes instead of 25 of 6.  Where that still leaves
// many lanes empty and filters abound, they take the lanes instead: conv_direct_wgrad_few.cpp.
//
// A task is (slice of the images' rows, group, block of lanes, block of filters).  The slices depend on the shape
// only; each sums into its own copy of dw, and the copies are added in order: deterministic for any thread count.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/microkernel.h"
#include "cpu/kernels/pack.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kTasks = 16;              // enough to keep several threads evenly busy
constexpr int64_t kImageBytes = 384 << 10;  // of a block of x, channels last: it stays in L2

// How the work is cut.  `lane` counts (s, c) pairs where the taps of a row are joined, else channels.
struct Plan {
    bool joined;
    int64_t channels, filters;  // of a group
    int64_t lanes, taps;
    int64_t lane_block, lane_blocks, filter_block, filter_blocks;
    int64_t rows, images;  // of outputs in a block; more than one image only if it is whole
    int64_t row_blocks;    // in all images
    int64_t slices;
    // With one tap along an axis only every stride-th row (column) of the image is kept; `step` is what is left of the
    // stride between two outputs, `skip` is between two kept rows of x.
    int64_t skip_h, skip_w, step_h, step_w;
    int64_t columns;  // kept of the padded image
};

template <typename T>
Plan plan_of(const ConvShape& s) {
    Plan p;
    p.channels = s.C / s.groups;
    p.filters = s.K / s.groups;
    p.skip_h = s.R == 1 ? s.stride_h : 1;
    p.skip_w = s.S == 1 ? s.stride_w : 1;
    p.step_h = s.stride_h / p.skip_h;
    p.step_w = s.stride_w / p.skip_w;
    p.columns = (s.Q - 1) * p.step_w + (s.S - 1) * s.dilation_w + 1;
    const int64_t alone = ceil_div(p.channels, kLanes<T>) * s.S;
    const int64_t together = ceil_div(p.channels * s.S, kLanes<T>);
    p.joined =
        s.dilation_w == 1 && s.S > 1 && (together < alone || p.channels < 2 * kLanes<T>) && p.channels <= 4 * kLanes<T>;
    p.lanes = p.joined ? p.channels * s.S : p.channels;
    p.taps = p.joined ? s.R : s.R * s.S;
    const Strips strips(ceil_div(p.lanes, kLanes<T>));
    p.lane_block = ceil_div(strips.vectors, strips.count) * kLanes<T>;
    if (strips.vectors % 6 == 4) p.lane_block = 2 * kLanes<T>;  // twos: threes would leave a block of one
    p.lane_blocks = ceil_div(p.lanes, p.lane_block);
    const int64_t pixel = p.joined ? p.channels : p.lane_block;
    const int64_t budget = kImageBytes / static_cast<int64_t>(sizeof(T));
    const int64_t reach = (s.R - 1) * s.dilation_h + 1;
    p.rows = s.P;
    while (p.rows > 1 && ((p.rows - 1) * p.step_h + reach) * p.columns * pixel > budget) p.rows = ceil_div(p.rows, 2);
    const int64_t slivers = ceil_div(p.filters, kTileRows);
    p.images = 1;
    if (p.rows == s.P && s.groups * p.lane_blocks * ceil_div(slivers, 8) >= kTasks) {
        p.images = most(1, least(s.N, budget / (((p.rows - 1) * p.step_h + reach) * p.columns * pixel)));
    }
    p.row_blocks = ceil_div(s.N, p.images) * ceil_div(s.P, p.rows);
    p.filter_block = slivers;
    // A block of filters repeats the transposition of x, a slice repeats dw: cut first where less is repeated.
    const bool slice_first = 4 * s.K * p.channels * s.R * s.S < s.N * s.C * s.P * s.Q;
    p.slices = 1;
    while (s.groups * p.lane_blocks * ceil_div(slivers, p.filter_block) * p.slices < kTasks) {
        const int64_t pixels = ceil_div(p.row_blocks, p.slices) * p.images * p.rows * s.Q;
        const bool can_slice = p.slices < p.row_blocks && pixels > 1024;
        if (p.filter_block > 8 && !(slice_first && can_slice)) {
            p.filter_block = ceil_div(p.filter_block, 2);
        } else if (can_slice) {
            p.slices = least(p.row_blocks, 2 * p.slices);
        } else if (p.filter_block > 4) {
            p.filter_block = ceil_div(p.filter_block, 2);
        } else {
            break;
        }
    }
    p.filter_blocks = ceil_div(slivers, p.filter_block);
    return p;
}

// A 1x1 filter sees a small image as one row: a walk without ends of rows in it.
template <typename T>
ConvShape in_one_row(const ConvShape& s) {
    ConvShape row = s;
    constexpr int64_t kPixel = kTileVectors * kLanes<T> * static_cast<int64_t>(sizeof(T));
    if (!is_pointwise(s) || s.H * s.W * kPixel > kImageBytes) return row;
    row.H = row.P = row.stride_h = row.stride_w = 1;
    row.W = row.Q = s.H * s.W;
    return row;
}

// Kept rows [first, first + count) of the padded image, channels last: to[row][column][channel], `pixel` elements a
// column.  `line` has room for the kept columns of a row of every channel.
template <typename T>
void channels_last(const ConvShape& s, const Plan& p, const T* planes, int64_t channels, int64_t first, int64_t count,
                   int64_t pixel, T* line, T* to) {
    const Inside x(-s.pad_left, p.skip_w, s.W, p.columns);
    const int64_t width = x.end - x.begin;
    for (int64_t row = 0; row < count; row++) {
        T* at = to + row * p.columns * pixel;
        const int64_t h = (first + row) * p.skip_h - s.pad_top;
        if (h < 0 || h >= s.H) {
            fill(at, T(0), p.columns * pixel);
            continue;
        }
        fill(at, T(0), x.begin * pixel);
        fill(at + x.end * pixel, T(0), (p.columns - x.end) * pixel);
        const T* from = planes + h * s.W + x.begin * p.skip_w - s.pad_left;
        if (p.skip_w == 1) {
            copy_transposed(from, s.H * s.W, channels, width, at + x.begin * pixel, pixel);
            continue;
        }
        for (int64_t c = 0; c < channels; c++) copy_strided(line + c * width, from + c * s.H * s.W, p.skip_w, width);
        copy_transposed(line, width, channels, width, at + x.begin * pixel, pixel);
    }
}

}  // namespace

template <typename T>
void conv_wgrad_direct(const ConvShape& shape, const T* dy, const T* x, T* dw) {
    if (is_depthwise(shape)) return depthwise_wgrad(shape, dy, x, dw);
    const ConvShape s = in_one_row<T>(shape);
    const Plan p = plan_of<T>(s);
    if (few_channels_pay<T>(s, p.filters * p.taps * ceil_div(p.lanes, kLanes<T>))) {
        return few_channels_wgrad(s, dy, x, dw);
    }
    const int64_t reach = (s.R - 1) * s.dilation_h + 1;
    const int64_t blocks_an_image = ceil_div(s.P, p.rows);
    const int64_t pixel = p.joined ? p.channels : p.lane_block;
    const int64_t image_size = ((p.rows - 1) * p.step_h + reach) * p.columns * pixel;
    const int64_t sum_size = p.taps * p.filters * p.lane_block;  // of one slice, group and block of lanes
    const int64_t sums = s.groups * p.lane_blocks;
    const Scratch<T> partial(p.slices * sums * sum_size);
    // Of the pixels of a block, in its image: the walk has no ends of rows, which a processor would fail to foresee.
    const Scratch<int32_t> offsets(p.rows * s.Q);
    for (int64_t i = 0; i < p.rows; i++) {
        for (int64_t j = 0; j < s.Q; j++) {
            offsets.get()[i * s.Q + j] = static_cast<int32_t>((i * p.step_h * p.columns + j * p.step_w) * pixel);
        }
    }
    // partial[slice][group][lane block][tap][filter][lane]
    parallel(p.slices * sums * p.filter_blocks, [&](int64_t task) {
        const int64_t filter_part = task % p.filter_blocks;
        const int64_t sum = task / p.filter_blocks % sums;
        const int64_t slice = task / p.filter_blocks / sums;
        const int64_t group = sum / p.lane_blocks;
        const int64_t lane = sum % p.lane_blocks * p.lane_block;
        const int64_t vectors = ceil_div(least(p.lane_block, p.lanes - lane), kLanes<T>);
        const int64_t k0 = filter_part * p.filter_block * kTileRows;
        const int64_t k1 = least(p.filters, k0 + p.filter_block * kTileRows);
        const int64_t c0 = p.joined ? 0 : lane;
        const int64_t channels = p.joined ? p.channels : least(p.lane_block, p.channels - c0);
        T* to = partial.get() + (slice * sums + sum) * sum_size;
        const Scratch<T> image(p.images * image_size + 2 * kTileVectors * kLanes<T>);
        const Scratch<T> line(p.skip_w > 1 ? channels * p.columns : 1);
        const int64_t block0 = slice * p.row_blocks / p.slices;
        const int64_t block1 = (slice + 1) * p.row_blocks / p.slices;
        for (int64_t block = block0; block < block1; block++) {
            const int64_t n = block / blocks_an_image * p.images;
            const int64_t images = least(p.images, s.N - n);
            const int64_t part = block % blocks_an_image;
            const int64_t row0 = part * s.P / blocks_an_image;
            const int64_t rows = (part + 1) * s.P / blocks_an_image - row0;
            for (int64_t i = 0; i < images; i++) {
                const T* planes = x + (((n + i) * s.groups + group) * p.channels + c0) * s.H * s.W;
                channels_last(s, p, planes, channels, row0 * p.step_h, (rows - 1) * p.step_h + reach, pixel, line.get(),
                              image.get() + i * image_size);
            }
            const int64_t row = p.columns * pixel;
            for (int64_t k = k0; k < k1; k += kTileRows) {
                const T* gradient = dy + (((n * s.groups + group) * p.filters + k) * s.P + row0) * s.Q;
                for (int64_t tap = 0; tap < p.taps; tap++) {
                    const int64_t r = p.joined ? tap : tap / s.S;
                    const int64_t column = p.joined ? 0 : tap % s.S * s.dilation_w;
                    tile_any<T, true>(
                        least(kTileRows, k1 - k), vectors,
                        {.depth = rows * s.Q,
                         .a = gradient,
                         .a_step = 1,
                         .a_row = s.P * s.Q,
                         .b = image.get() + r * s.dilation_h * row + column * pixel + (p.joined ? lane : 0),
                         .b_step = 0,
                         .b_offset = offsets.get(),
                         .c = to + (tap * p.filters + k) * p.lane_block,
                         .c_row = p.lane_block,
                         .accumulate = block > block0,
                         .repeat = images,
                         .a_repeat = s.K * s.P * s.Q,
                         .b_repeat = image_size});
                }
            }
        }
        if (block0 == block1) {
            for (int64_t tap = 0; tap < p.taps; tap++) {
                fill(to + (tap * p.filters + k0) * p.lane_block, T(0), (k1 - k0) * p.lane_block);
            }
        }
    });
    // Add the slices in order, and put the taps last.
    parallel(s.K, [&](int64_t filter) {
        const int64_t group = filter / p.filters;
        const int64_t k = filter % p.filters;
        T* to = dw + filter * p.channels * s.R * s.S;
        for (int64_t block = 0; block < p.lane_blocks; block++) {
            const int64_t lane = block * p.lane_block;
            const int64_t lanes = least(p.lane_block, p.lanes - lane);
            for (int64_t tap = 0; tap < p.taps; tap++) {
                T* from =
                    partial.get() + (group * p.lane_blocks + block) * sum_size + (tap * p.filters + k) * p.lane_block;
                for (int64_t slice = 1; slice < p.slices; slice++) {
                    const T* more = from + slice * sums * sum_size;
                    for (int64_t i = 0; i < p.lane_block; i += kLanes<T>)
                        store(from + i, load(from + i) + load(more + i));
                }
                for (int64_t i = 0; p.joined && i < lanes; i++) {
                    to[(lane + i) % p.channels * s.R * s.S + tap * s.S + (lane + i) / p.channels] = from[i];
                }
            }
            if (p.joined) continue;
            const T* from = partial.get() + (group * p.lane_blocks + block) * sum_size + k * p.lane_block;
            if (p.taps == 1) {
                copy(to + lane, from, lanes);
            } else {
                copy_transposed(from, p.filters * p.lane_block, p.taps, lanes, to + lane * p.taps, p.taps);
            }
        }
    });
}

template void conv_wgrad_direct(const ConvShape&, const float*, const float*, float*);
template void conv_wgrad_direct(const ConvShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
