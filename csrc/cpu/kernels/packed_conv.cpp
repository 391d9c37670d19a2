// Convolution in the packed layout and on arrays, and fully connected layers: one sum over runs.
//
//   y[pixel][k] = bias[k] + sum over runs and their steps of x[pixel + run][step] * w[k][run][step]
//
// There are no columns, no copies and no padding: a run is one filter tap of one block of channels, at a fixed distance
// from the output pixel's own place, and outputs are taken together that meet the image with the same taps.
//
//        1     Q - 2     1
//      +---+-----------+---+
//    1 | a |     b     | c |      for instance 3x3 taps with a padding of 1: nine pieces,
//      +---+-----------+---+      b sums rows 1 and 2 of the taps, d columns 1 and 2, e all of them
//      |   |           |   |
//      | d |     e     | f |      tiles of pixels go along the rows of b and e, down the columns of d and f
//      |   |           |   |
//      +---+-----------+---+
//    1 | g |     h     | i |
//      +---+-----------+---+
//
// A task is (image, stretch of tiles, panels of filters).  Within it a panel (two vectors of filters, over the whole
// reduction) stays in L2 while the pixels pass by.  The cut depends on the shape alone, every output is one sum in one
// order: results do not depend on the number of threads.
//
// Cost: R * S * C * K multiply-adds a pixel, without those of the padding, at the peak of the multiply-adders (a tile of
// 14 x 2 vectors was measured at 99 % of it from L2); what is left over of rows that are no multiple of 14 runs in lower
// tiles, down to 4 x 2 at the same rate.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/masked.h"
#include "cpu/kernels/packed_tile.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kTasks = 16;                // enough to keep several threads evenly busy
constexpr int64_t kStretchBytes = 256 << 10;  // of x, read again by every panel: beside a panel in L2
constexpr int64_t kFew = 1 << 18;             // multiply-adds that are done before another thread has heard of them
constexpr int64_t kHeld = 8 * kPackedRows;    // pixels that go to planes together, in whole lines of memory
constexpr int64_t kLowest = 4;                // a tile of fewer pixels takes as long as one of this many

// Outputs along one axis, [begin, end), that meet the input with the same taps, [first, last).
struct Range {
    int64_t begin, end, first, last;
};

struct Ranges {
    const Scratch<Range> memory;
    Range* all;
    int64_t count = 0;
    int64_t taps = 0;  // of all of them together

    Ranges(const TapAxis& axis, int64_t outputs, int64_t size)
        : memory(static_cast<std::size_t>(least(outputs, 2 * axis.count + 1))), all(memory.get()) {
        for (int64_t i = 0; i < outputs; i++) {
            int64_t first = 0;
            int64_t last = axis.count;
            const auto inside = [&](int64_t tap) {
                const int64_t at = i * axis.stride + axis.offset[tap];
                return at >= 0 && at < size;
            };
            while (first < last && !inside(first)) first++;
            while (first < last && !inside(last - 1)) last--;
            if (count == 0 || all[count - 1].first != first || all[count - 1].last != last) {
                all[count++] = {i, i, first, last};
                taps += last - first;
            }
            all[count - 1].end++;
        }
    }
};

// Outputs of every image that have their runs in common, and how they are covered with tiles.
struct Piece {
    int64_t row, column;    // of the first one
    int64_t lines, pixels;  // of a line
    bool upright;           // whether lines are columns
    int64_t in_line;        // tiles of a line
    int64_t first_tile;     // of those of the image
    int64_t first_run, runs, full;
    int64_t depth;  // steps of a full run

    Piece(const Range& rows, const Range& columns)
        : row(rows.begin), column(columns.begin), lines(rows.end - rows.begin), pixels(columns.end - columns.begin) {
        const auto time = [](int64_t count, int64_t length) {
            return count * most(length, ceil_div(length, kPackedRows) * kLowest);
        };
        upright = time(pixels, lines) < time(lines, pixels);
        if (upright) {
            lines = columns.end - columns.begin;
            pixels = rows.end - rows.begin;
        }
        in_line = ceil_div(pixels, kPackedRows);
    }

    int64_t tiles() const { return lines * in_line; }
};

struct RunSum {
    PackedTile tile;  // what all tiles have in common
    int64_t images;
    PackedView x, y;
    const PackedView* residual;
    int64_t stride_h, stride_w;
    const Run* runs;
    const Piece* pieces;
    int64_t tiles;    // of all pieces
    int64_t vectors;  // of filters
    int64_t steps;    // of the whole reduction
};

// To places that are no whole vectors: `pixels` x (`channels` of one or two vectors) from `from`.
void store_apart(const float* from, int64_t pixels, int64_t channels, float* to, int64_t pixel, int64_t lane,
                 int64_t vector) {
    constexpr int64_t kStep = kPackedVectors * kBlock;
    for (int64_t first = 0; first < channels; first += kBlock, from += kBlock, to += vector) {
        const int64_t count = least(kBlock, channels - first);
        if (lane == 1) {
            for (int64_t p = 0; p < pixels; p++) copy(to + p * pixel, from + p * kStep, count);
        } else if (pixel == 1) {
            for (int64_t p = 0; p < pixels; p += kBlock) {
                Vec<float> square[kBlock];
#pragma GCC unroll 16
                for (int i = 0; i < kBlock; i++) square[i] = load(from + least(p + i, pixels - 1) * kStep);
                transpose<float>(square);
                const Lanes<float> lanes = lanes_within<float>(0, pixels - p);
                for (int64_t c = 0; c < count; c++) store_lanes(to + c * lane + p, square[c], lanes);
            }
        } else {
            for (int64_t c = 0; c < count; c++) {
                for (int64_t p = 0; p < pixels; p++) to[c * lane + p * pixel] = from[p * kStep + c];
            }
        }
    }
}

// Tiles [begin, end) of an image.
void sum_tiles(const RunSum& s, int64_t image, int64_t begin, int64_t end, int64_t vector) {
    const int64_t vectors = least(kPackedVectors, s.vectors - vector);
    PackedTile tile = s.tile;
    tile.w += vector * tile.w_vector;
    if (tile.bias != nullptr) tile.bias += vector * kBlock;
    const bool whole = is_packed(s.y);
    const float* x = s.x.data + image * s.x.image;
    float* y = s.y.data + image * s.y.image + vector * s.y.block;
    const float* residual =
        s.residual == nullptr ? nullptr : s.residual->data + image * s.residual->image + vector * s.residual->block;
    float apart[kHeld * kPackedVectors * kBlock];
    int64_t held = 0;  // pixels in there, the last ones of this line
    const Piece* at = s.pieces;
    while (at->first_tile + at->tiles() <= begin) at++;
    for (int64_t i = begin; i < end; i++) {
        if (i == at->first_tile + at->tiles()) at++;
        const Piece& piece = *at;
        const int64_t line = (i - piece.first_tile) / piece.in_line;
        const int64_t part = (i - piece.first_tile) % piece.in_line;
        const int64_t rest = piece.pixels % piece.in_line;
        const int64_t first = part * (piece.pixels / piece.in_line) + least(part, rest);
        const int64_t height = piece.pixels / piece.in_line + (part < rest);
        const int64_t row = piece.row + (piece.upright ? first : line);
        const int64_t column = piece.column + (piece.upright ? line : first);
        tile.x = x + row * s.stride_h * s.x.row + column * s.stride_w * s.x.pixel;
        tile.x_step = piece.upright ? s.stride_h * s.x.row : s.stride_w * s.x.pixel;
        tile.run = s.runs + piece.first_run;
        tile.runs = piece.runs;
        tile.full = piece.full;
        tile.depth = piece.depth;
        if (residual != nullptr) {
            tile.residual = residual + row * s.residual->row + column * s.residual->pixel;
            tile.residual_step = piece.upright ? s.residual->row : s.residual->pixel;
        }
        float* to = y + row * s.y.row + column * s.y.pixel;
        const int64_t pixel = piece.upright ? s.y.row : s.y.pixel;
        tile.y = whole ? to : apart + held * kPackedVectors * kBlock;
        tile.y_step = whole ? pixel : kPackedVectors * kBlock;
        tile.y_vector = whole ? s.y.block : kBlock;
        packed_tile_any(height, vectors, tile);
        if (whole) continue;
        held += height;
        if (i + 1 < end && part + 1 < piece.in_line && held + kPackedRows <= kHeld) continue;
        const int64_t channels = least(vectors * kBlock, s.y.channels - vector * kBlock);
        store_apart(apart, held, channels, to - (held - height) * pixel, pixel, s.y.lane, s.y.block);
        held = 0;
    }
}

void sum_runs(const RunSum& s) {
    const int64_t panels = ceil_div(s.vectors, kPackedVectors);
    const int64_t tiles = s.tiles;
    // Every stretch reads all filters of its panels, and every share of the panels all of the stretch's pixels.
    const int64_t x_bytes = 4 * s.x.channels * s.x.height * s.x.width;
    const int64_t fewest = least(tiles, ceil_div(x_bytes, kStretchBytes));
    const double filter_bytes = 4.0 * static_cast<double>(s.vectors * kBlock * s.steps);
    int64_t stretches = fewest;
    int64_t shares = 1;
    double lowest = -1;
    for (int64_t k = 1; k <= panels; k++) {
        const int64_t cut = least(tiles, most(fewest, ceil_div(kTasks, s.images * k)));
        const double idle =
            s.images * cut * k < kTasks ? static_cast<double>(kTasks) / static_cast<double>(s.images * cut * k) : 1;
        const double traffic =
            idle * (static_cast<double>(cut) * filter_bytes + static_cast<double>(k) * static_cast<double>(x_bytes));
        if (lowest < 0 || traffic < lowest) {
            lowest = traffic;
            stretches = cut;
            shares = k;
        }
    }
    const auto part = [&](int64_t task) {
        const int64_t share = task % shares;
        const int64_t stretch = task / shares % stretches;
        const int64_t begin = tiles * stretch / stretches;
        const int64_t end = tiles * (stretch + 1) / stretches;
        if (begin == end) return;
        for (int64_t panel = panels * share / shares; panel < panels * (share + 1) / shares; panel++) {
            sum_tiles(s, task / shares / stretches, begin, end, panel * kPackedVectors);
        }
    };
    const int64_t tasks = s.images * stretches * shares;
    if (s.images * s.y.height * s.y.width * s.y.channels * s.steps > kFew) return parallel(tasks, part);
    for (int64_t task = 0; task < tasks; task++) part(task);
}

// Whether the pixels of all rows lie as one row would.
bool is_flat(const PackedView& view, int64_t stride_h, int64_t stride_w, int64_t columns) {
    return stride_h * view.row == columns * stride_w * view.pixel;
}

bool is_dense(const TapAxis& axis) {
    for (int64_t tap = 1; tap < axis.count; tap++) {
        if (axis.offset[tap] != axis.offset[tap - 1] + 1) return false;
    }
    return true;
}

}  // namespace

void packed_conv(const PackedConv& p) {
    if (p.images * p.y.height * p.y.width * p.y.channels == 0) return;
    const int64_t blocks = ceil_div(p.x.channels, kBlock);
    const int64_t depth = least(kBlock, p.x.channels);
    const int64_t taps = p.rows.count * p.columns.count;
    // Where few channels-last channels fill no block, the taps of a filter row are one run: they lie behind one another
    // in x as in the filters.
    const bool joined = p.x.lane == 1 && p.x.pixel == p.x.channels && p.x.channels < kBlock && is_dense(p.columns);
    const Ranges rows(p.rows, p.y.height, p.x.height);
    const Ranges columns(p.columns, p.y.width, p.x.width);
    if (rows.count == 1 && columns.count == 1 && is_flat(p.x, p.rows.stride, p.columns.stride, p.y.width) &&
        is_flat(p.y, 1, 1, p.y.width) && (p.residual == nullptr || is_flat(*p.residual, 1, 1, p.y.width))) {
        columns.all->end *= rows.all->end;
        rows.all->end = 1;
    }
    const Scratch<Piece> pieces(static_cast<std::size_t>(rows.count * columns.count));
    const Scratch<Run> runs(static_cast<std::size_t>(blocks * rows.taps * columns.taps));
    int64_t tiles = 0;
    Piece* piece = pieces.get();
    Run* run = runs.get();
    for (const Range* r = rows.all; r < rows.all + rows.count; r++) {
        for (const Range* c = columns.all; c < columns.all + columns.count; c++) {
            *piece = Piece(*r, *c);
            piece->first_tile = tiles;
            piece->first_run = run - runs.get();
            const int64_t width = c->last - c->first;
            const int64_t used = (r->last - r->first) * (joined ? least(1, width) : width);
            piece->runs = blocks * used;
            piece->full = joined ? used : p.x.channels / kBlock * used;
            piece->depth = joined ? width * p.x.channels : kBlock;
            tiles += piece++->tiles();
            for (int64_t block = 0; block < blocks; block++) {
                for (int64_t i = r->first; i < r->last; i++) {
                    for (int64_t j = c->first; j < (joined ? least(c->first + 1, c->last) : c->last); j++) {
                        const int64_t tap = (block * p.rows.count + i) * p.columns.count + j;
                        *run++ = {.x = block * p.x.block + p.rows.offset[i] * p.x.row + p.columns.offset[j] * p.x.pixel,
                                  .w = tap * depth * kBlock};
                    }
                }
            }
        }
    }
    sum_runs({
        .tile = {.x = nullptr,
                 .x_step = 0,
                 .x_lane = p.x.lane,
                 .run = nullptr,
                 .runs = 0,
                 .full = 0,
                 .depth = 0,
                 .tail = p.x.channels % kBlock,
                 .w = p.filters,
                 .w_vector = blocks * taps * depth * kBlock,
                 .bias = p.bias,
                 .accumulate = false,
                 .residual = nullptr,
                 .residual_step = 0,
                 .residual_vector = p.residual != nullptr ? p.residual->block : 0,
                 .clamp = p.clamp,
                 .y = nullptr,
                 .y_step = 0,
                 .y_vector = 0},
        .images = p.images,
        .x = p.x,
        .y = p.y,
        .residual = p.residual,
        .stride_h = p.rows.stride,
        .stride_w = p.columns.stride,
        .runs = runs.get(),
        .pieces = pieces.get(),
        .tiles = tiles,
        .vectors = ceil_div(p.y.channels, kBlock),
        .steps = taps * p.x.channels,
    });
}

void packed_linear(const PackedLinear& p) {
    if (p.rows * p.outputs == 0) return;
    Piece rows({.begin = 0, .end = 1, .first = 0, .last = 1}, {.begin = 0, .end = p.rows, .first = 0, .last = 1});
    rows.first_tile = rows.first_run = 0;
    rows.runs = rows.full = 1;
    rows.depth = p.inputs;
    const Run run = {.x = 0, .w = 0};
    sum_runs({
        .tile = {.x = nullptr,
                 .x_step = 0,
                 .x_lane = 1,
                 .run = nullptr,
                 .runs = 0,
                 .full = 0,
                 .depth = 0,
                 .tail = 0,
                 .w = p.filters,
                 .w_vector = p.inputs * kBlock,
                 .bias = p.bias,
                 .accumulate = false,
                 .residual = nullptr,
                 .residual_step = 0,
                 .residual_vector = 0,
                 .clamp = p.clamp,
                 .y = nullptr,
                 .y_step = 0,
                 .y_vector = 0},
        .images = 1,
        .x = {.data = const_cast<float*>(p.x),
              .channels = p.inputs,
              .height = 1,
              .width = p.rows,
              .image = 0,
              .block = kBlock,
              .row = 0,
              .pixel = p.inputs,
              .lane = 1},
        .y = {.data = p.y,
              .channels = p.outputs,
              .height = 1,
              .width = p.rows,
              .image = 0,
              .block = kBlock,
              .row = 0,
              .pixel = p.outputs,
              .lane = 1},
        .residual = nullptr,
        .stride_h = 1,
        .stride_w = 1,
        .runs = &run,
        .pieces = &rows,
        .tiles = rows.tiles(),
        .vectors = ceil_div(p.outputs, kBlock),
        .steps = p.inputs,
    });
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
