// Winograd convolution F(2x2, 3x3), F(4x4, 3x3), F(6x6, 3x3): fprop, and dgrad as the same with turned filters.
//
//   for each chunk of tiles (of one group):
//     V = BT x B of every tile and channel
//     for each panel of filters, for each piece of the chunk:
//       for each block of channels: U = G w GT of the panel; M (+)= V U, point by point
//       y = AT M A + bias
//
// M and U of a panel stay in L2 and V of one point in L1.  The filters are transformed again for every chunk: that
// costs a twentieth of the chunk's products and less than reading the (m + 2)^2 / 9 times larger U from memory would.
//
// The cut into chunks, pieces and blocks depends on the shape alone, and every output is one sum over the channels in
// order: results do not depend on the number of threads.
//
// Reference: Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015.
#include "cpu/kernels/winograd.h"

#include "cpu/kernels/kernels.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T, int TILE>
struct Forward {
    using Tile = CookToom<TILE, 3>;
    static constexpr int64_t kPoints = Tile::kSize * Tile::kSize;
    static constexpr int64_t kPanel = kPointPanel<T>;
    static constexpr int64_t kLine = kLanes<T>;
    static constexpr int64_t kAhead = 6;  // channels whose filters are fetched before they are needed

    const Winograd<T>& p;
    const int64_t depth;  // channels of a block
    const int64_t blocks;
    const TileGrid grid;
    const int64_t panels, pieces;
    const bool shared;  // few chunks: one after the other, each on all threads
    const int64_t v_point, v_block, u_point, m_point;
    int64_t multiplies = 0;

    // M of a chunk about 448 KiB, V at most 8 MiB.  A chunk that one thread takes from end to end stays in its core's
    // cache, so small problems are cut into eight where that leaves each enough tiles to pay for its filters.
    static int64_t tiles_wanted(int64_t channels, int64_t all) {
        const int64_t by_parts = most(64, all / 8);
        const int64_t by_products = (int64_t{448} << 10) / (kPoints * kPanel * static_cast<int64_t>(sizeof(T)));
        const int64_t by_inputs = (int64_t{8} << 20) / (kPoints * channels * static_cast<int64_t>(sizeof(T)));
        return most(2 * kPointRows, least(by_parts, least(by_products, by_inputs)) / kPointRows * kPointRows);
    }

    static int64_t depth_wanted() {  // U of a block about 256 KiB
        return most(kLine, (int64_t{288} << 10) / (kPoints * kPanel * static_cast<int64_t>(sizeof(T))) / kLine * kLine);
    }

    explicit Forward(const Winograd<T>& problem)
        : p(problem),
          depth(least(depth_wanted(), ceil_div(p.C, kLine) * kLine)),
          blocks(ceil_div(p.C, depth)),
          grid(p.N, p.P, p.Q, TILE, tiles_wanted(blocks * depth, p.N * ceil_div(p.P, TILE) * ceil_div(p.Q, TILE))),
          panels(ceil_div(p.K, kPanel)),
          pieces(least(grid.units_in_chunk, ceil_div(4, panels))),
          shared(grid.chunks * p.groups < 8 && grid.chunks * p.groups % num_threads() != 0),
          v_point(grid.chunk_tiles() * depth + kPointGap<T>),
          v_block(v_point * kPoints),
          u_point(depth * kPanel + kPointGap<T>),
          m_point(ceil_div(grid.units_in_chunk, pieces) * grid.unit * kPanel + kPointGap<T>) {}

    int64_t workspace(int64_t threads) const {
        const int64_t per_task = kPoints * (u_point + m_point);
        const int64_t chunks = shared ? 1 : least(threads, grid.chunks * p.groups);
        const int64_t tasks = shared ? least(threads, panels * pieces) : chunks;
        return (chunks * blocks * v_block + tasks * per_task) * static_cast<int64_t>(sizeof(T));
    }

    int64_t run() {
        const int64_t chunks = grid.chunks * p.groups;
        if (shared) {
            for (int64_t i = 0; i < chunks; i++) chunk(i);
        } else {
            parallel(chunks, [&](int64_t i) { chunk(i); });
        }
        return multiplies;
    }

    void chunk(int64_t index) {
        const int64_t group = index / grid.chunks;
        const int64_t first = index % grid.chunks * grid.units_in_chunk;
        const int64_t units = least(grid.units_in_chunk, grid.units - first);
        const Scratch<T> v(static_cast<std::size_t>(blocks * v_block));
        parallel(ceil_div(p.C, kLine) * units, [&](int64_t task) {
            const int64_t c = task / units * kLine;
            const int64_t unit = task % units;
            transform_unit(group, c, grid.at(first + unit),
                           v.get() + c / depth * v_block + unit * grid.unit * depth + c % depth);
        });
        parallel(panels * pieces, [&](int64_t task) {
            const int64_t piece = task % pieces;
            const int64_t begin = units * piece / pieces;
            const int64_t end = units * (piece + 1) / pieces;
            if (begin < end) panel(group, task / pieces * kPanel, first, begin, end, v.get());
        });
    }

    void transform_unit(int64_t group, int64_t c, const TileGrid::Unit& unit, T* to) const {
        const TileSource<T> source = {
            .plane = p.x + ((unit.plane * p.groups + group) * p.C + c) * p.H * p.W,
            .plane_stride = p.H * p.W,
            .channels = least(kLine, p.C - c),
            .H = p.H,
            .W = p.W,
            .row = unit.row * TILE - p.pad_top,
            .column = unit.column * TILE - p.pad_left,
            .tiles = unit.tiles,
        };
        transform_tiles<T, Tile::BT, TILE>(source, to, v_point, depth);
    }

    // Filters [k, k + panel) on the chunk's units [begin, end).
    void panel(int64_t group, int64_t k, int64_t first, int64_t begin, int64_t end, const T* v) {
        const Scratch<T> u(static_cast<std::size_t>(kPoints * u_point));
        const Scratch<T> m(static_cast<std::size_t>(kPoints * m_point));
        const int64_t tiles = (end - 1 - begin) * grid.unit + grid.at(first + end - 1).tiles;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t c = block * depth;
            const int64_t channels = least(depth, p.C - c);
            transform_filters(group, k, c, channels, u.get());
            for (int64_t point = 0; point < kPoints; point++) {
                const T* a = v + block * v_block + point * v_point + begin * grid.unit * depth;
                point_product(tiles, channels, a, depth, 1, u.get() + point * u_point, m.get() + point * m_point,
                              block > 0);
            }
        }
        __atomic_fetch_add(&multiplies, tiles * p.C * kPanel * kPoints, __ATOMIC_RELAXED);
        for (int64_t unit = begin; unit < end; unit++) {
            const T* from = m.get() + (unit - begin) * grid.unit * kPanel;
            for (int64_t j = 0; j < kPanel && k + j < p.K; j += kLine) {
                restore_unit(group, k + j, grid.at(first + unit), from + j);
            }
        }
    }

    // U = G w GT of filters [k, k + panel) and channels [c, c + channels).
    void transform_filters(int64_t group, int64_t k, int64_t c, int64_t channels, T* u) const {
        const T* w = p.w + group * p.w_group + k * p.w_k + c * p.w_c;
        const int64_t filters = least(kPanel, p.K - k);
        for (int64_t i = 0; i < channels; i++, w += p.w_c) {
            for (int64_t j = 0; j < kPanel; j += kLine) {
                transform_filter(w + j * p.w_k, filters - j, u + i * kPanel + j);
            }
        }
    }

    // U of one vector of filters and one channel; filters beyond `filters` give zero.
    void transform_filter(const T* w, int64_t filters, T* u) const {
        constexpr int kVectors = (9 + kLanes<T> - 1) / kLanes<T>;
        Vec<T> taps[kVectors * kLanes<T>];
#pragma GCC unroll 8
        for (int vector = 0; vector < kVectors; vector++) {
            const Lanes<T> lanes = lanes_within<T>(0, 9 - vector * kLanes<T>);
            Vec<T>* square = taps + vector * kLanes<T>;
#pragma GCC unroll 16
            for (int l = 0; l < kLanes<T>; l++) {
                const T* from = w + l * p.w_k + vector * kLanes<T>;
                __builtin_prefetch(from + kAhead * p.w_c);
                square[l] = l < filters ? load_lanes(from, lanes) : Vec<T>{};
            }
            transpose<T>(square);
        }
        Vec<T> half[Tile::kSize][3];
#pragma GCC unroll 3
        for (int s = 0; s < 3; s++) {
            const Vec<T> column[3] = {taps[p.turned ? 8 - s : s], taps[p.turned ? 5 - s : 3 + s],
                                      taps[p.turned ? 2 - s : 6 + s]};
            Vec<T> out[Tile::kSize];
            apply_rows<Tile::G>(column, out);
#pragma GCC unroll 8
            for (int r = 0; r < Tile::kSize; r++) half[r][s] = out[r];
        }
#pragma GCC unroll 8
        for (int r = 0; r < Tile::kSize; r++) {
            Vec<T> out[Tile::kSize];
            apply_rows<Tile::G>(half[r], out);
#pragma GCC unroll 8
            for (int s = 0; s < Tile::kSize; s++) store(u + (r * Tile::kSize + s) * u_point, out[s]);
        }
    }

    // Outputs of a unit for the channels [k, k + lanes), from M to y.
    void restore_unit(int64_t group, int64_t k, const TileGrid::Unit& unit, const T* m) const {
        const int64_t channels = least(kLine, p.K - k);
        const Vec<T> bias =
            p.bias == nullptr ? Vec<T>{} : load_lanes(p.bias + group * p.K + k, lanes_within<T>(0, channels));
        const TileTarget<T> target = {
            .plane = p.y + ((unit.plane * p.groups + group) * p.K + k) * p.P * p.Q,
            .plane_stride = p.P * p.Q,
            .channels = channels,
            .P = p.P,
            .Q = p.Q,
            .row = unit.row * TILE,
            .column = unit.column * TILE,
            .tiles = unit.tiles,
        };
        restore_tiles<T, Tile::AT, TILE>(m, kPanel, m_point, bias, target);
    }
};

template <typename T, typename Use>
static int64_t with_tile(const Winograd<T>& p, const Use& use) {
    switch (p.tile) {
        case 2:
            return use(Forward<T, 2>(p));
        case 4:
            return use(Forward<T, 4>(p));
        default:
            return use(Forward<T, 6>(p));
    }
}

template <typename T>
int64_t winograd(const Winograd<T>& problem) {
    return with_tile<T>(problem, [](auto&& forward) { return forward.run(); });
}

template <typename T>
int64_t winograd_workspace(const Winograd<T>& problem, int64_t threads) {
    return with_tile<T>(problem, [&](auto&& forward) { return forward.workspace(threads); });
}

template int64_t winograd(const Winograd<float>&);
template int64_t winograd(const Winograd<double>&);
template int64_t winograd_workspace(const Winograd<float>&, int64_t);
template int64_t winograd_workspace(const Winograd<double>&, int64_t);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
