// Convolution in the packed layout, first layers that read planes, and fully connected layers: one sum over runs.
//
//   y[pixel][k] = bias[k] + sum over runs and their steps of x[pixel + run][step] * w[k][run][step]
//
// There are no columns and no copies: a run is one filter tap of one block of channels, at a fixed distance from the
// output pixel's own place.  Padding is a border of zeros that lies around x in memory.
//
// A task is (image, stretch of pixels, panels of filters).  Within it a panel (two vectors of filters, over the whole
// reduction) stays in L2 while the pixels pass by.  The cut depends on the shape alone, every output is one sum in one
// order: results do not depend on the number of threads.
//
// Cost: R * S * C * K multiply-adds a pixel at the peak of the multiply-adders (a tile of 14 x 2 vectors was measured at
// 99 % of it from L2); what is left over of rows that are no multiple of 14 runs in lower tiles, down to 4 x 2 at the
// same rate.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/packed_tile.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kTasks = 16;                // enough to keep several threads evenly busy
constexpr int64_t kStretchBytes = 256 << 10;  // of x, read again by every panel: beside a panel in L2

struct RunSum {
    PackedTile tile;  // of the first pixel and the first panel
    int64_t images, rows, columns;
    int64_t vectors;
    int64_t x_image, x_row;
    int64_t y_image, y_row;
    int64_t residual_image, residual_row;
    int64_t x_bytes;     // of one image
    int64_t lanes_last;  // floats of the last vector that y has room for
};

// Tiles [begin, end) of an image, counted along its rows.
void sum_tiles(const RunSum& s, int64_t image, int64_t begin, int64_t end, int64_t vector) {
    const int64_t in_row = ceil_div(s.columns, kPackedRows);
    const int64_t vectors = least(kPackedVectors, s.vectors - vector);
    PackedTile tile = s.tile;
    tile.w += vector * tile.w_vector;
    if (tile.bias != nullptr) tile.bias += vector * kBlock;
    const bool partial = vector + vectors == s.vectors && s.lanes_last < kBlock;
    float spill[kPackedRows * kPackedVectors * kBlock];
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = i / in_row;
        const int64_t part = i % in_row;
        const int64_t first = part * (s.columns / in_row) + least(part, s.columns % in_row);
        const int64_t height = s.columns / in_row + (part < s.columns % in_row);
        tile.x = s.tile.x + image * s.x_image + row * s.x_row + first * tile.x_step;
        if (s.tile.residual != nullptr) {
            tile.residual = s.tile.residual + image * s.residual_image + row * s.residual_row +
                            first * tile.residual_step + vector * tile.residual_vector;
        }
        float* y = s.tile.y + image * s.y_image + row * s.y_row + first * s.tile.y_step + vector * s.tile.y_vector;
        if (!partial) {
            tile.y = y;
            packed_tile_any(height, vectors, tile);
            continue;
        }
        tile.y = spill;
        tile.y_step = kPackedVectors * kBlock;
        tile.y_vector = kBlock;
        packed_tile_any(height, vectors, tile);
        for (int64_t p = 0; p < height; p++) {
            const float* from = spill + p * tile.y_step;
            copy(y + p * s.tile.y_step, from, (vectors - 1) * kBlock + s.lanes_last);
        }
    }
}

void sum_runs(RunSum s) {
    if (s.images * s.rows * s.columns * s.vectors == 0) return;
    const PackedTile& t = s.tile;
    const bool flat = s.x_row == s.columns * t.x_step && s.y_row == s.columns * t.y_step &&
                      (t.residual == nullptr || s.residual_row == s.columns * t.residual_step);
    if (flat) {
        s.columns *= s.rows;
        s.rows = 1;
    }
    const int64_t panels = ceil_div(s.vectors, kPackedVectors);
    const int64_t tiles = s.rows * ceil_div(s.columns, kPackedRows);
    // Every stretch reads all filters of its panels, and every share of the panels all of the stretch's pixels.
    const int64_t fewest = least(tiles, ceil_div(s.x_bytes, kStretchBytes));
    const double filter_bytes =
        4.0 * static_cast<double>(s.vectors * kBlock * (t.full * t.depth + (t.runs - t.full) * t.tail));
    int64_t stretches = fewest;
    int64_t shares = 1;
    double lowest = -1;
    for (int64_t k = 1; k <= panels; k++) {
        const int64_t cut = least(tiles, most(fewest, ceil_div(kTasks, s.images * k)));
        const double idle =
            s.images * cut * k < kTasks ? static_cast<double>(kTasks) / static_cast<double>(s.images * cut * k) : 1;
        const double traffic =
            idle * (static_cast<double>(cut) * filter_bytes + static_cast<double>(k) * static_cast<double>(s.x_bytes));
        if (lowest < 0 || traffic < lowest) {
            lowest = traffic;
            stretches = cut;
            shares = k;
        }
    }
    parallel(s.images * stretches * shares, [&](int64_t task) {
        const int64_t share = task % shares;
        const int64_t stretch = task / shares % stretches;
        const int64_t begin = tiles * stretch / stretches;
        const int64_t end = tiles * (stretch + 1) / stretches;
        for (int64_t panel = panels * share / shares; panel < panels * (share + 1) / shares; panel++) {
            sum_tiles(s, task / shares / stretches, begin, end, panel * kPackedVectors);
        }
    });
}

}  // namespace

void packed_conv(const PackedConv& p) {
    const int64_t blocks = ceil_div(p.x.channels, kBlock);
    const Scratch<int64_t> run(static_cast<std::size_t>(blocks * p.count));
    for (int64_t block = 0; block < blocks; block++) {
        for (int64_t tap = 0; tap < p.count; tap++) {
            run.get()[block * p.count + tap] = block * p.x.block + p.taps[tap];
        }
    }
    const PackedView none = {};
    const PackedView& residual = p.residual != nullptr ? *p.residual : none;
    sum_runs({
        .tile = {.x = p.x.data,
                 .x_step = p.x_step,
                 .run = run.get(),
                 .runs = blocks * p.count,
                 .full = p.x.channels / kBlock * p.count,
                 .depth = kBlock,
                 .tail = p.x.channels % kBlock,
                 .w = p.filters,
                 .w_run = kBlock * kBlock,
                 .w_vector = blocks * p.count * kBlock * kBlock,
                 .bias = p.bias,
                 .accumulate = false,
                 .residual = residual.data,
                 .residual_step = kBlock,
                 .residual_vector = residual.block,
                 .relu = p.relu,
                 .y = p.y.data,
                 .y_step = p.y_step,
                 .y_vector = p.y.block},
        .images = p.images,
        .rows = p.y.height,
        .columns = p.y.width,
        .vectors = ceil_div(p.y.channels, kBlock),
        .x_image = p.x.image,
        .x_row = p.x_row,
        .y_image = p.y.image,
        .y_row = p.y.row,
        .residual_image = residual.image,
        .residual_row = residual.row,
        .x_bytes = 4 * blocks * kBlock * p.x.height * p.x.width,
        .lanes_last = kBlock,
    });
}

void planes_conv(const PlanesConv& p) {
    const bool dense = p.dilation_w == 1;  // the taps of a filter row are then one run
    const int64_t in_row = dense ? 1 : p.S;
    const int64_t runs = p.channels * p.R * in_row;
    const Scratch<int64_t> run(static_cast<std::size_t>(runs));
    int64_t* at = run.get();
    for (int64_t c = 0; c < p.channels; c++) {
        for (int64_t r = 0; r < p.R; r++) {
            for (int64_t s = 0; s < in_row; s++) {
                *at++ = (c * p.height + r * p.dilation_h) * p.width + s * p.dilation_w;
            }
        }
    }
    const int64_t depth = dense ? p.S : 1;
    sum_runs({
        .tile = {.x = p.x,
                 .x_step = p.stride_w,
                 .run = run.get(),
                 .runs = runs,
                 .full = runs,
                 .depth = depth,
                 .tail = 0,
                 .w = p.filters,
                 .w_run = depth * kBlock,
                 .w_vector = p.channels * p.R * p.S * kBlock,
                 .bias = p.bias,
                 .accumulate = false,
                 .residual = nullptr,
                 .residual_step = 0,
                 .residual_vector = 0,
                 .relu = p.relu,
                 .y = p.y.data,
                 .y_step = kBlock,
                 .y_vector = p.y.block},
        .images = p.images,
        .rows = p.y.height,
        .columns = p.y.width,
        .vectors = ceil_div(p.y.channels, kBlock),
        .x_image = p.channels * p.height * p.width,
        .x_row = p.stride_h * p.width,
        .y_image = p.y.image,
        .y_row = p.y.row,
        .residual_image = 0,
        .residual_row = 0,
        .x_bytes = 4 * p.channels * p.height * p.width,
        .lanes_last = kBlock,
    });
}

void packed_linear(const PackedLinear& p) {
    const int64_t run = 0;
    const int64_t vectors = ceil_div(p.outputs, kBlock);
    sum_runs({
        .tile = {.x = p.x,
                 .x_step = p.inputs,
                 .run = &run,
                 .runs = 1,
                 .full = 1,
                 .depth = p.inputs,
                 .tail = 0,
                 .w = p.filters,
                 .w_run = 0,
                 .w_vector = p.inputs * kBlock,
                 .bias = p.bias,
                 .accumulate = false,
                 .residual = nullptr,
                 .residual_step = 0,
                 .residual_vector = 0,
                 .relu = p.relu,
                 .y = p.y,
                 .y_step = p.outputs,
                 .y_vector = kBlock},
        .images = 1,
        .rows = 1,
        .columns = p.rows,
        .vectors = vectors,
        .x_image = 0,
        .x_row = 0,
        .y_image = 0,
        .y_row = 0,
        .residual_image = 0,
        .residual_row = 0,
        .x_bytes = 4 * p.rows * p.inputs,
        .lanes_last = p.outputs - (vectors - 1) * kBlock,
    });
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
