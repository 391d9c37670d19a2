// What the Winograd convolutions share: the transforms, the cut into tiles, and the product of one Winograd point.
//
// An image is cut into tiles of m x m outputs that read (m + 2) x (m + 2) inputs.  Everything lies with channels along
// the vector, one plane for each of the (m + 2)^2 Winograd points:
//
//   V [channel block][point][tile][channel]     transformed inputs
//   U [point][channel][filter of a panel]       transformed filters
//   M [point][tile][filter of a panel]          products: M = V U, one small matrix product a point
#pragma once

#include "cpu/cook_toom.h"
#include "cpu/kernels/masked.h"
#include "cpu/kernels/microkernel.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Register tile of the products: 2 vectors of filters and as many rows as the registers hold.
constexpr int kPointVectors = 2;
constexpr int kPointRows = PYCNN_VECTOR_BYTES == 64 ? 12 : PYCNN_VECTOR_BYTES == 32 ? 6 : 4;
template <typename T>
constexpr int kPointPanel = kPointVectors * kLanes<T>;
// Planes of different points lie a line further apart than their size, or a tile's points would share a cache set.
template <typename T>
constexpr int64_t kPointGap = 64 / static_cast<int64_t>(sizeof(T));

// out = matrix in, one dimension.  `MATRIX` is known while compiling: zeros cost nothing, and rows that come from
// points p and -p share their even and odd halves.
template <const auto& MATRIX, int ROW, int FIRST, int STEP, typename V>
PYCNN_INLINE V row_product(const V* in) {
    V sum{};
    bool any = false;
#pragma GCC unroll 8
    for (int j = FIRST; j < MATRIX.kColumns; j += STEP) {
        const double c = MATRIX.at[ROW][j];
        if (c == 0) continue;
        const V term = in[j] * static_cast<decltype(in[j][0] + 0)>(c);
        sum = any ? sum + term : term;
        any = true;
    }
    return sum;
}

template <const auto& MATRIX, int ROW = 0, typename V>
PYCNN_INLINE void apply_rows(const V* in, V* out) {
    constexpr int kRows = MATRIX.kRows;
    if constexpr (ROW % 2 == 1 && ROW + 1 < kRows) {
        const V even = row_product<MATRIX, ROW, 0, 2>(in);
        const V odd = row_product<MATRIX, ROW, 1, 2>(in);
        out[ROW] = even + odd;
        out[ROW + 1] = even - odd;
        if constexpr (ROW + 2 < kRows) apply_rows<MATRIX, ROW + 2>(in, out);
    } else {
        out[ROW] = row_product<MATRIX, ROW, 0, 1>(in);
        if constexpr (ROW + 1 < kRows) apply_rows<MATRIX, ROW + 1>(in, out);
    }
}

// The same for AT, whose columns are the ones in pairs: sums feed the even rows, differences the odd ones.
template <const auto& MATRIX, int ROW = 0, typename V>
PYCNN_INLINE void combine_rows(const V* paired, V* out) {
    out[ROW] = row_product<MATRIX, ROW, 0, 1>(paired);
    if constexpr (ROW + 1 < MATRIX.kRows) combine_rows<MATRIX, ROW + 1>(paired, out);
}

template <int ROWS, int COLUMNS>
constexpr Matrix<ROWS, COLUMNS> paired(const Matrix<ROWS, COLUMNS>& at) {
    Matrix<ROWS, COLUMNS> halves = at;  // of each pair of columns, even rows keep the first and odd rows the second
    for (int i = 0; i < ROWS; i++) {
        for (int j = 1; j + 1 < COLUMNS; j += 2) {
            halves.at[i][j] = i % 2 == 0 ? at.at[i][j] : 0;
            halves.at[i][j + 1] = i % 2 == 0 ? 0 : at.at[i][j];
        }
    }
    return halves;
}

template <const auto& AT>
struct Paired {
    static constexpr auto matrix = paired(AT);
};

template <const auto& AT, typename V>
PYCNN_INLINE void apply_columns(const V* in, V* out) {
    constexpr int kColumns = AT.kColumns;
    V sums[kColumns];
    sums[0] = in[0];
    sums[kColumns - 1] = in[kColumns - 1];
#pragma GCC unroll 4
    for (int j = 1; j + 1 < kColumns; j += 2) {
        sums[j] = in[j] + in[j + 1];
        sums[j + 1] = in[j] - in[j + 1];
    }
    combine_rows<Paired<AT>::matrix>(sums, out);
}

// Some channels of an image, and the window of tiles to transform.
template <typename T>
struct TileSource {
    const T* plane;  // the first channel's
    int64_t plane_stride;
    int64_t channels;  // 1..lanes; the other lanes read as zero
    int64_t H, W;      // zero outside
    int64_t row, column;
    int64_t tiles;  // along the row
};

// Transforms a run of tiles of a block of channels into V, points `point_stride` apart and tiles `tile_stride` apart:
// MATRIX x (MATRIX x tile)^T, where tiles start STEP columns apart.
//
// Rows first, while a vector still lies along the image; then each transformed row of all channels is transposed and
// its tiles are finished with channels along the vector.
template <typename T, const auto& MATRIX, int STEP>
static void transform_tiles(const TileSource<T>& from, T* to, int64_t point_stride, int64_t tile_stride) {
    constexpr int kIn = MATRIX.kColumns;
    constexpr int kOut = MATRIX.kRows;
    constexpr int kVectors = (kIn + kLanes<T> - 1) / kLanes<T>;
    constexpr int kTiles = (kVectors * kLanes<T> - (kIn - STEP)) / STEP;
    // Rows of every channel are more streams than the hardware follows: they are asked for two lines ahead.
    constexpr int64_t kAhead = 128 / static_cast<int64_t>(sizeof(T)) + kLanes<T>;
    Vec<T> rows[kOut][kVectors][kLanes<T>];
    if (from.channels < kLanes<T>) {
        for (auto& row : rows) {
            for (auto& vector : row) {
                for (int64_t c = from.channels; c < kLanes<T>; c++) vector[c] = Vec<T>{};
            }
        }
    }
    for (int64_t t = 0; t < from.tiles; t += kTiles) {
        for (int v = 0; v < kVectors; v++) {
            const int64_t column = from.column + t * STEP + v * kLanes<T>;
            const Lanes<T> lanes = lanes_within<T>(column, from.W);
            const T* at = from.plane + from.row * from.W + column;
            for (int64_t c = 0; c < from.channels; c++, at += from.plane_stride) {
                Vec<T> in[kIn];
                Vec<T> out[kOut];
#pragma GCC unroll 8
                for (int i = 0; i < kIn; i++) {
                    __builtin_prefetch(at + i * from.W + kAhead);
                    const bool inside = from.row + i >= 0 && from.row + i < from.H;
                    in[i] = inside ? load_lanes(at + i * from.W, lanes) : Vec<T>{};
                }
                apply_rows<MATRIX>(in, out);
#pragma GCC unroll 8
                for (int i = 0; i < kOut; i++) rows[i][v][c] = out[i];
            }
        }
        const int64_t tiles = least(kTiles, from.tiles - t);
        for (int i = 0; i < kOut; i++) {
            Vec<T> columns[kVectors * kLanes<T>];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; v++) {
#pragma GCC unroll 16
                for (int l = 0; l < kLanes<T>; l++) columns[v * kLanes<T> + l] = rows[i][v][l];
                transpose<T>(columns + v * kLanes<T>);
            }
#pragma GCC unroll 8
            for (int k = 0; k < kTiles; k++) {
                if (k >= tiles) break;
                Vec<T> out[kOut];
                apply_rows<MATRIX>(columns + k * STEP, out);
                T* point = to + (t + k) * tile_stride + i * kOut * point_stride;
#pragma GCC unroll 8
                for (int j = 0; j < kOut; j++) store(point + j * point_stride, out[j]);
            }
        }
    }
}

// One vector's worth of a tile back from its points: out = AT M AT^T, row by row.
template <typename T, const auto& AT>
PYCNN_INLINE void restore_tile(const T* from, int64_t point_stride, Vec<T> (&out)[AT.kRows][AT.kRows]) {
    constexpr int kIn = AT.kColumns;
    constexpr int kOut = AT.kRows;
    Vec<T> half[kOut][kIn];
#pragma GCC unroll 8
    for (int j = 0; j < kIn; j++) {
        Vec<T> column[kIn];
        Vec<T> done[kOut];
#pragma GCC unroll 8
        for (int i = 0; i < kIn; i++) column[i] = load(from + (i * kIn + j) * point_stride);
        apply_columns<AT>(column, done);
#pragma GCC unroll 8
        for (int i = 0; i < kOut; i++) half[i][j] = done[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < kOut; i++) apply_columns<AT>(half[i], out[i]);
}

// Some channels of an output, and the window of tiles to write.
template <typename T>
struct TileTarget {
    T* plane;  // the first channel's
    int64_t plane_stride;
    int64_t channels;  // 1..lanes
    int64_t P, Q;
    int64_t row, column;
    int64_t tiles;                             // along the row
    T low = static_cast<T>(-__builtin_inf());  // of the values written
    T high = static_cast<T>(__builtin_inf());
};

// A run of tiles from their points, `tile_stride` and `point_stride` apart, to planes: as many tiles at a time as fill
// whole vectors are transposed, and the planes written row by row.
template <typename T, const auto& AT, int TILE>
static void restore_tiles(const T* from, int64_t tile_stride, int64_t point_stride, Vec<T> bias,
                          const TileTarget<T>& to) {
    constexpr int kLine = kLanes<T>;
    constexpr int kTiles = TILE == 4 ? (kLine > 4 ? kLine / 4 : 1) : kLine / 2;
    constexpr int kWidth = kTiles * TILE;
    const int64_t rows = least(TILE, to.P - to.row);
    const int64_t end = least(to.Q, to.column + to.tiles * TILE);  // beyond it lies another unit's
    T* y = to.plane + to.row * to.Q;
    Vec<T> out[TILE][kWidth] = {};
    for (int64_t t = 0; t < to.tiles; t += kTiles) {
        const int64_t tiles = least(kTiles, to.tiles - t);
        for (int64_t r = 0; r < rows; r++) {  // the lines to be written travel while the tiles are computed
            for (int64_t l = 0; l < to.channels; l++) {
                __builtin_prefetch(y + l * to.plane_stride + r * to.Q + to.column + t * TILE, 1);
            }
        }
        for (int64_t i = 0; i < tiles; i++) {
            Vec<T> tile[TILE][TILE];
            restore_tile<T, AT>(from + (t + i) * tile_stride, point_stride, tile);
#pragma GCC unroll 8
            for (int r = 0; r < TILE; r++) {
#pragma GCC unroll 8
                for (int s = 0; s < TILE; s++) {
                    const Vec<T> value = tile[r][s] + bias;
                    out[r][i * TILE + s] = clamped<T>(value, to.low, to.high);
                }
            }
        }
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t q = 0; q < tiles * TILE; q += kLine) {
                const int64_t column = to.column + t * TILE + q;
                const int64_t width = least(kLine, end - column);
                if (width <= 0) break;
                Vec<T> square[kLine];
#pragma GCC unroll 16
                for (int l = 0; l < kLine; l++) square[l] = out[r][q + l];
                transpose<T>(square);
                T* at = y + r * to.Q + column;
                const Lanes<T> lanes = lanes_within<T>(0, width);
                for (int64_t l = 0; l < to.channels; l++) store_lanes(at + l * to.plane_stride, square[l], lanes);
            }
        }
    }
}

// c[rows x panel] (+)= a[rows x depth] b[depth x panel], in register tiles of nearly equal height.
template <typename T>
static void point_product(int64_t rows, int64_t depth, const T* a, int64_t a_row, int64_t a_step, const T* b, T* c,
                          bool accumulate) {
    const int64_t blocks = ceil_div(rows, kPointRows);
    for (int64_t i = 0, block = 0; block < blocks; block++) {
        const int64_t height = rows / blocks + (block < rows % blocks);
        tile_rows<T, kPointVectors, false, kPointRows>(static_cast<int>(height), {.depth = depth,
                                                                                  .a = a + i * a_row,
                                                                                  .a_step = a_step,
                                                                                  .a_row = a_row,
                                                                                  .b = b,
                                                                                  .b_step = kPointPanel<T>,
                                                                                  .b_offset = nullptr,
                                                                                  .c = c + i * kPointPanel<T>,
                                                                                  .c_row = kPointPanel<T>,
                                                                                  .accumulate = accumulate});
        i += height;
    }
}

// The tiles of a batch of planes in order: units are runs of tiles along a row, chunks are runs of units.
struct TileGrid {
    int64_t rows;            // rows of tiles in a plane
    int64_t columns;         // tiles in a row
    int64_t unit;            // tiles of a unit: a whole row, or a part of one too long for a chunk
    int64_t units_in_row;    // units of a row
    int64_t units;           // of the whole batch
    int64_t units_in_chunk;  // units of a chunk
    int64_t chunks;

    TileGrid(int64_t planes, int64_t P, int64_t Q, int64_t m, int64_t most_tiles)
        : rows(ceil_div(P, m)), columns(ceil_div(Q, m)) {
        units_in_row = ceil_div(columns, most_tiles);
        unit = ceil_div(columns, units_in_row);
        units = planes * rows * units_in_row;
        chunks = most(1, ceil_div(units, most(1, most_tiles / unit)));
        units_in_chunk = most(1, ceil_div(units, chunks));
        chunks = ceil_div(units, units_in_chunk);
    }

    int64_t chunk_tiles() const { return units_in_chunk * unit; }

    struct Unit {
        int64_t plane, row, column, tiles;  // its first tile, and how many
    };
    Unit at(int64_t index) const {
        const int64_t part = index % units_in_row;
        const int64_t line = index / units_in_row;
        return {line / rows, line % rows, part * unit, least(unit, columns - part * unit)};
    }
};

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
