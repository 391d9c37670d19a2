// Winograd convolution F(2x2, 3x3), F(4x4, 3x3), F(6x6, 3x3), F(2x2, 5x5), F(4x4, 5x5) in the packed layout.
//
//   for each chunk of tiles:
//     V = BT x B of every tile and block of channels
//     for each panel of filters, for each piece of the chunk:
//       for each group of channel blocks: U = G w GT of the panel (or as it was kept); M (+)= V U, point by point
//       y = clamp(AT M A + bias + residual)
//
//   V [point][channel block][tile][channel]     U [block of filters][point][channel][filter]
//   M [point][tile][filter of the panel]
//
// With channels along the vectors both transforms are sums of whole vectors: nothing is transposed, and the
// columns that a tile shares with its right neighbour are transformed once.  M and U of a panel stay in L2.  Filters kept as
// U are (m + r - 1)^2 / r^2 times larger: where few tiles pass by, reading them from memory takes longer than transforming
// them again, which costs about as much as four tiles.
//
// The cut depends on the shape alone, and every output is one sum over the channels in order: results do not depend on
// the number of threads.
//
// Reference: Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/packed_tile.h"
#include "cpu/kernels/winograd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

// U = G w GT for one channel and one vector of filters: taps `tap` apart, points `point` apart.  The taps of the next
// block of channels are fetched meanwhile.
template <int TILE, int TAPS>
PYCNN_INLINE void transform_taps(const float* taps, int64_t tap, float* u, int64_t point) {
    using Tile = CookToom<TILE, TAPS>;
    Vec<float> half[Tile::kSize][TAPS];
#pragma GCC unroll 5
    for (int s = 0; s < TAPS; s++) {
        Vec<float> column[TAPS];
#pragma GCC unroll 5
        for (int r = 0; r < TAPS; r++) {
            __builtin_prefetch(taps + (TAPS * TAPS + r * TAPS + s) * tap);
            column[r] = load(taps + (r * TAPS + s) * tap);
        }
        Vec<float> out[Tile::kSize];
        apply_rows<Tile::G>(column, out);
#pragma GCC unroll 8
        for (int r = 0; r < Tile::kSize; r++) half[r][s] = out[r];
    }
#pragma GCC unroll 8
    for (int r = 0; r < Tile::kSize; r++) {
        Vec<float> out[Tile::kSize];
        apply_rows<Tile::G>(half[r], out);
#pragma GCC unroll 8
        for (int s = 0; s < Tile::kSize; s++) store(u + (r * Tile::kSize + s) * point, out[s]);
    }
}

template <int TILE, int TAPS>
struct Packed {
    using Tile = CookToom<TILE, TAPS>;
    static constexpr int kSize = Tile::kSize;
    static constexpr int64_t kPoints = kSize * kSize;
    static constexpr int64_t kPanel = kPackedVectors * kBlock;
    static constexpr int64_t kSquare = kBlock * kBlock;

    const PackedWinograd& p;
    const int64_t blocks;  // of channels
    const int64_t filter;  // floats of a filter's tap: of a block of channels
    const int64_t group;   // blocks whose U is made at a time
    const TileGrid grid;
    const int64_t panels, pieces;
    const bool shared;  // few chunks: one after the other, each on all threads
    const int64_t v_block, v_point, u_point, u_vector, m_point;
    const Scratch<Run> run;

    // M of a chunk about 448 KiB, V at most 4 MiB; see winograd.cpp.
    static int64_t tiles_wanted(int64_t channels, int64_t all) {
        const int64_t by_parts = most(64, all / 8);
        const int64_t by_products = (int64_t{448} << 10) / (kPoints * kPanel * 4);
        const int64_t by_inputs = (int64_t{4} << 20) / (kPoints * channels * 4);
        const int64_t tiles = least(by_parts, least(by_products, by_inputs));
        return most(2 * kPackedRows, tiles / kPackedRows * kPackedRows);
    }

    int64_t group_wanted() const {  // U of a group about 288 KiB
        return p.transformed != nullptr ? blocks : most(1, (int64_t{288} << 10) / (kPoints * kPanel * kBlock * 4));
    }

    explicit Packed(const PackedWinograd& problem)
        : p(problem),
          blocks(ceil_div(p.x.channels, kBlock)),
          filter(least(kBlock, p.x.channels) * kBlock),
          group(least(blocks, group_wanted())),
          grid(p.images, p.y.height, p.y.width, TILE,
               tiles_wanted(blocks * kBlock, p.images * ceil_div(p.y.height, TILE) * ceil_div(p.y.width, TILE))),
          panels(ceil_div(p.y.channels, kPanel)),
          pieces(least(grid.units_in_chunk, ceil_div(4, panels))),
          shared(grid.chunks < 8 && grid.chunks % num_threads() != 0),
          v_block(grid.chunk_tiles() * kBlock),
          v_point(blocks * v_block + kBlock),
          u_point(p.transformed != nullptr ? blocks * kSquare : group * kSquare + kBlock),
          u_vector(kPoints * u_point),
          m_point(ceil_div(grid.units_in_chunk, pieces) * grid.unit * kPanel + kBlock),
          run(static_cast<std::size_t>(blocks)) {
        for (int64_t i = 0; i < blocks; i++) run.get()[i] = {.x = i * v_block, .w = i * kSquare};
    }

    void compute() {
        if (shared) {
            for (int64_t i = 0; i < grid.chunks; i++) chunk(i);
        } else {
            parallel(grid.chunks, [&](int64_t i) { chunk(i); });
        }
    }

    void chunk(int64_t index) {
        const int64_t first = index * grid.units_in_chunk;
        const int64_t units = least(grid.units_in_chunk, grid.units - first);
        const Scratch<float> v(static_cast<std::size_t>(kPoints * v_point));
        parallel(blocks * units, [&](int64_t task) {
            const int64_t block = task / units;
            const int64_t unit = task % units;
            transform_unit(block, grid.at(first + unit), v.get() + block * v_block + unit * grid.unit * kBlock);
        });
        parallel(panels * pieces, [&](int64_t task) {
            const int64_t piece = task % pieces;
            const int64_t begin = units * piece / pieces;
            const int64_t end = units * (piece + 1) / pieces;
            if (begin < end) panel(task / pieces, first, begin, end, v.get());
        });
    }

    void transform_unit(int64_t block, const TileGrid::Unit& unit, float* to) const {
        const float* plane = p.x.data + unit.plane * p.x.image + block * p.x.block;
        const int64_t row = unit.row * TILE - p.pad_top;
        if (!is_packed(p.x)) {
            transform_tiles<float, Tile::BT, TILE>({.plane = plane,
                                                    .plane_stride = p.x.lane,
                                                    .channels = least(kBlock, p.x.channels - block * kBlock),
                                                    .H = p.x.height,
                                                    .W = p.x.width,
                                                    .row = row,
                                                    .column = unit.column * TILE - p.pad_left,
                                                    .tiles = unit.tiles},
                                                   to, v_point, kBlock);
            return;
        }
        const int64_t top = most(0, -row);
        const int64_t bottom = least(kSize, p.x.height - row);
        Vec<float> half[kSize][kSize];
        for (int64_t t = 0; t < unit.tiles; t++, to += kBlock) {
            const int64_t column = (unit.column + t) * TILE - p.pad_left;
            for (int j = t == 0 ? 0 : kSize - TILE; j < kSize; j++) {
                Vec<float> in[kSize];
                Vec<float> out[kSize];
                const float* at = plane + row * p.x.row + (column + j) * p.x.pixel;
                if (column + j < 0 || column + j >= p.x.width) {
#pragma GCC unroll 8
                    for (int i = 0; i < kSize; i++) half[i][j] = Vec<float>{};
                    continue;
                }
                if (top == 0 && bottom == kSize) {
#pragma GCC unroll 8
                    for (int i = 0; i < kSize; i++) in[i] = load(at + i * p.x.row);
                } else {
#pragma GCC unroll 8
                    for (int i = 0; i < kSize; i++) {
                        in[i] = i >= top && i < bottom ? load(at + i * p.x.row) : Vec<float>{};
                    }
                }
                apply_rows<Tile::BT>(in, out);
#pragma GCC unroll 8
                for (int i = 0; i < kSize; i++) half[i][j] = out[i];
            }
#pragma GCC unroll 8
            for (int i = 0; i < kSize; i++) {
                Vec<float> out[kSize];
                apply_rows<Tile::BT>(half[i], out);
#pragma GCC unroll 8
                for (int j = 0; j < kSize; j++) store(to + (i * kSize + j) * v_point, out[j]);
#pragma GCC unroll 8
                for (int j = 0; j < kSize - TILE; j++) half[i][j] = half[i][j + TILE];
            }
        }
    }

    // The filters of one panel on the chunk's units [begin, end).
    void panel(int64_t index, int64_t first, int64_t begin, int64_t end, const float* v) const {
        const int64_t vectors = least(kPackedVectors, ceil_div(p.y.channels, kBlock) - index * kPackedVectors);
        const bool kept = p.transformed != nullptr;
        const Scratch<float> u(static_cast<std::size_t>(kept ? 1 : kPackedVectors * u_vector));
        const Scratch<float> m(static_cast<std::size_t>(kPoints * m_point));
        const int64_t tiles = (end - 1 - begin) * grid.unit + grid.at(first + end - 1).tiles;
        for (int64_t block = 0; block < blocks; block += group) {
            const int64_t count = least(group, blocks - block);
            if (!kept) {
                for (int64_t j = 0; j < vectors; j++) {
                    transform_filters(index * kPackedVectors + j, block, count, u.get() + j * u_vector);
                }
            }
            const float* from = kept ? p.transformed + index * kPackedVectors * u_vector : u.get();
            const int64_t tail = p.x.channels % kBlock;
            const bool last = block + count == blocks && tail != 0;
            for (int64_t point = 0; point < kPoints; point++) {
                PackedTile tile = {.x = nullptr,
                                   .x_step = kBlock,
                                   .x_lane = 1,
                                   .run = run.get(),
                                   .runs = count,
                                   .full = count - last,
                                   .depth = kBlock,
                                   .tail = tail,
                                   .w = from + point * u_point,
                                   .w_vector = u_vector,
                                   .bias = nullptr,
                                   .accumulate = block > 0,
                                   .residual = nullptr,
                                   .residual_step = 0,
                                   .residual_vector = 0,
                                   .clamp = {},
                                   .y = nullptr,
                                   .y_step = kPanel,
                                   .y_vector = kBlock};
                const float* x = v + point * v_point + block * v_block + begin * grid.unit * kBlock;
                float* y = m.get() + point * m_point;
                packed_tiles(tiles, [&](int64_t at, int64_t height) {
                    tile.x = x + at * kBlock;
                    tile.y = y + at * kPanel;
                    packed_tile_any(height, vectors, tile);
                });
            }
        }
        for (int64_t unit = begin; unit < end; unit++) {
            const float* from = m.get() + (unit - begin) * grid.unit * kPanel;
            for (int64_t j = 0; j < vectors; j++) {
                restore_unit(index * kPackedVectors + j, grid.at(first + unit), from + j * kBlock);
            }
        }
    }

    // U of one vector of filters and some blocks of channels.
    void transform_filters(int64_t vector, int64_t block, int64_t count, float* u) const {
        const float* taps = p.filters + (vector * blocks + block) * TAPS * TAPS * filter;
        for (int64_t i = 0; i < count; i++, taps += TAPS * TAPS * filter) {
            const int64_t channels = least(kBlock, p.x.channels - (block + i) * kBlock);
            for (int64_t c = 0; c < channels; c++) {
                transform_taps<TILE, TAPS>(taps + c * kBlock, filter, u + (i * kBlock + c) * kBlock, u_point);
            }
        }
    }

    // Outputs of a unit for one vector of filters, from M to y.
    void restore_unit(int64_t vector, const TileGrid::Unit& unit, const float* m) const {
        const Vec<float> bias = p.bias != nullptr ? load(p.bias + vector * kBlock) : Vec<float>{};
        const int64_t row = unit.row * TILE;
        if (!is_packed(p.y)) {
            restore_tiles<float, Tile::AT, TILE>(m, kPanel, m_point, bias,
                                                 {.plane = p.y.data + unit.plane * p.y.image + vector * p.y.block,
                                                  .plane_stride = p.y.lane,
                                                  .channels = least(kBlock, p.y.channels - vector * kBlock),
                                                  .P = p.y.height,
                                                  .Q = p.y.width,
                                                  .row = row,
                                                  .column = unit.column * TILE,
                                                  .tiles = unit.tiles,
                                                  .low = p.clamp.low,
                                                  .high = p.clamp.high});
            return;
        }
        const int64_t rows = least(TILE, p.y.height - row);
        float* y = p.y.data + unit.plane * p.y.image + vector * p.y.block + row * p.y.row;
        const PackedView* r = p.residual;
        const float* residual =
            r == nullptr ? nullptr : r->data + unit.plane * r->image + vector * r->block + row * r->row;
        for (int64_t t = 0; t < unit.tiles; t++, m += kPanel) {
            const int64_t column = (unit.column + t) * TILE;
            const int64_t columns = least(TILE, p.y.width - column);
            Vec<float> out[TILE][TILE];
            restore_tile<float, Tile::AT>(m, m_point, out);
            if (rows == TILE && columns == TILE) {
#pragma GCC unroll 8
                for (int i = 0; i < TILE; i++) {
#pragma GCC unroll 8
                    for (int j = 0; j < TILE; j++) {
                        finish(out[i][j] + bias,
                               residual == nullptr ? nullptr : residual + i * r->row + (column + j) * r->pixel,
                               y + i * p.y.row + (column + j) * p.y.pixel);
                    }
                }
            } else {
                for (int64_t i = 0; i < rows; i++) {
                    for (int64_t j = 0; j < columns; j++) {
                        finish(out[i][j] + bias,
                               residual == nullptr ? nullptr : residual + i * r->row + (column + j) * r->pixel,
                               y + i * p.y.row + (column + j) * p.y.pixel);
                    }
                }
            }
        }
    }

    __attribute__((always_inline)) void finish(Vec<float> value, const float* residual, float* y) const {
        if (residual != nullptr) value += load(residual);
        store(y, clamped<float>(value, p.clamp.low, p.clamp.high));
    }
};

template <int TILE, int TAPS>
void transform_all(int64_t K, int64_t C, const float* filters, float* transformed) {
    constexpr int64_t kPoints = CookToom<TILE, TAPS>::kSize * CookToom<TILE, TAPS>::kSize;
    constexpr int64_t kSquare = kBlock * kBlock;
    const int64_t blocks = ceil_div(C, kBlock);
    const int64_t depth = least(kBlock, C);
    parallel(ceil_div(K, kBlock) * blocks, [&](int64_t task) {
        const int64_t vector = task / blocks;
        const int64_t block = task % blocks;
        const float* taps = filters + task * TAPS * TAPS * depth * kBlock;
        float* u = transformed + (vector * kPoints * blocks + block) * kSquare;
        for (int64_t c = 0; c < depth; c++) {
            transform_taps<TILE, TAPS>(taps + c * kBlock, depth * kBlock, u + c * kBlock, blocks * kSquare);
        }
    });
}

// use.operator()<TILE, TAPS>() for the sizes asked for.
template <typename Use>
void with_sizes(int64_t tile, int64_t taps, const Use& use) {
    if (taps == 5) return tile == 2 ? use.template operator()<2, 5>() : use.template operator()<4, 5>();
    switch (tile) {
        case 2:
            return use.template operator()<2, 3>();
        case 4:
            return use.template operator()<4, 3>();
        default:
            return use.template operator()<6, 3>();
    }
}

}  // namespace

void packed_winograd(const PackedWinograd& p) {
    if (p.images * p.y.height * p.y.width * p.y.channels == 0) return;
    with_sizes(p.tile, p.taps, [&]<int TILE, int TAPS>() { Packed<TILE, TAPS>(p).compute(); });
}

void packed_winograd_filters(int64_t tile, int64_t taps, int64_t K, int64_t C, const float* filters,
                             float* transformed) {
    with_sizes(tile, taps, [&]<int TILE, int TAPS>() { transform_all<TILE, TAPS>(K, C, filters, transformed); });
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
