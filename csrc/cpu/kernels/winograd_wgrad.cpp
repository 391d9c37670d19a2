// Winograd filter gradient F(3x3, 2x2), F(3x3, 4x4), F(3x3, 6x6), F(5x5, 2x2), F(5x5, 4x4): the "outputs" are the taps,
// the "filter" is a tile of dy, and the sum over tiles and batch is taken on the Winograd points:
//
//   for each slab of filters, for each chunk of tiles (of one group):
//     V = BT x B of every tile and channel, D = G dy GT of every tile and filter
//     for each block of channels x filters: M += VT D, point by point, summed over the chunk's tiles
//   dw = AT M A
//
// With a dilation the pixels of dy that have one residue of it meet those of x that have one: each pair of residues is
// copied out, x with its padding, and they are summed as so many more images.
//
// The cut depends on the shape alone and every sum runs over the tiles in order: results do not depend on the number of
// threads.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/winograd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T, int TAPS, int TILE>
struct FilterGradient {
    using Tile = CookToom<TAPS, TILE>;
    static constexpr int kArea = TAPS * TAPS;
    static constexpr int64_t kPoints = Tile::kSize * Tile::kSize;
    static constexpr int64_t kPanel = kPointPanel<T>;
    static constexpr int64_t kLine = kLanes<T>;
    static constexpr int64_t kSize = static_cast<int64_t>(sizeof(T));
    static constexpr int64_t kSteps = 64;  // tiles summed at a time: V and D of a point and block stay in L1

    const WinogradWgrad<T>& p;
    const int64_t height;    // channels of a block of M
    const int64_t width;     // panels of a block of M
    const int64_t blocks_c;  // blocks along the channels
    const int64_t panels;    // of all filters of a group
    const int64_t slab;      // panels whose M is held at one time
    const TileGrid grid;
    const int64_t v_point, v_block, d_point, d_block, m_point, m_block;
    int64_t multiplies = 0;

    static int64_t block_height(int64_t channels) {  // M of a block about half of L2
        const int64_t wanted = (int64_t{592} << 10) / (kPoints * 2 * kPanel * kSize) / kLine * kLine;
        return least(most(kLine, wanted), ceil_div(channels, kLine) * kLine);
    }

    // M of a slab at most 64 MiB, unless one pair of panels takes more.
    static int64_t slab_panels(int64_t panels, int64_t width, int64_t channels) {
        const int64_t each = kPoints * channels * kPanel * kSize;
        return least(panels, most(1, (int64_t{64} << 20) / each / width) * width);
    }

    // V and D of a chunk about as large as M, which is read and written once a chunk; between 4 and 24 MiB.
    static int64_t tiles_wanted(int64_t channels, int64_t filters) {
        const int64_t products = kPoints * channels * filters * kSize;
        const int64_t room = most(int64_t{4} << 20, least(products, int64_t{24} << 20));
        return most(kSteps, room / (kPoints * (channels + filters) * kSize) / kSteps * kSteps);
    }

    explicit FilterGradient(const WinogradWgrad<T>& problem)
        : p(problem),
          height(block_height(p.C)),
          width(least(2, ceil_div(p.K, kPanel))),
          blocks_c(ceil_div(p.C, height)),
          panels(ceil_div(p.K, kPanel)),
          slab(slab_panels(panels, width, blocks_c * height)),
          grid(p.N, p.P, p.Q, TILE, tiles_wanted(blocks_c * height, slab * kPanel)),
          v_point(grid.chunk_tiles() * height + kPointGap<T>),
          v_block(v_point * kPoints),
          d_point(grid.chunk_tiles() * kPanel + kPointGap<T>),
          d_block(d_point * kPoints),
          m_point(height * kPanel + kPointGap<T>),
          m_block(m_point * kPoints) {}

    // One chunk and enough blocks for every thread: a block's M is summed, restored and forgotten by one task.
    bool fused() const { return grid.chunks == 1 && blocks_c * ceil_div(slab, width) >= 8; }

    int64_t workspace(int64_t threads) const {
        const int64_t blocks = blocks_c * ceil_div(slab, width);
        const int64_t products = fused() ? least(threads, blocks) * width : blocks_c * slab;
        return (blocks_c * v_block + slab * d_block + products * m_block) * kSize;
    }

    int64_t run() {
        const Scratch<T> v(static_cast<std::size_t>(blocks_c * v_block));
        const Scratch<T> d(static_cast<std::size_t>(slab * d_block));
        for (int64_t group = 0; group < p.groups; group++) {
            for (int64_t first = 0; first < panels; first += slab) {
                const int64_t held = least(slab, panels - first);
                if (fused()) {
                    transform(group, first, held, 0, v.get(), d.get());
                    fused_blocks(group, first, held, v.get(), d.get());
                } else {
                    chunked(group, first, held, v.get(), d.get());
                }
            }
        }
        return multiplies;
    }

    void fused_blocks(int64_t group, int64_t first, int64_t held, const T* v, const T* d) {
        const int64_t tiles = chunk_tiles(0);
        parallel(blocks_c * ceil_div(held, width), [&](int64_t task) {
            const int64_t block = task % blocks_c;
            const int64_t panel = task / blocks_c * width;
            const int64_t count = least(width, held - panel);
            const Scratch<T> m(static_cast<std::size_t>(count * m_block));
            accumulate(block, panel, count, 0, kPoints, tiles, v, d, m.get(), false);
            for (int64_t i = 0; i < count; i++) restore(group, block, first + panel + i, m.get() + i * m_block);
        });
    }

    void chunked(int64_t group, int64_t first, int64_t held, T* v, T* d) {
        const Scratch<T> m(static_cast<std::size_t>(blocks_c * held * m_block));
        const int64_t pairs = ceil_div(held, width);
        for (int64_t chunk = 0; chunk < grid.chunks; chunk++) {
            transform(group, first, held, chunk, v, d);
            const int64_t tiles = chunk_tiles(chunk);
            parallel(blocks_c * pairs * Tile::kSize, [&](int64_t task) {
                const int64_t block = task / Tile::kSize % blocks_c;
                const int64_t panel = task / Tile::kSize / blocks_c * width;
                const int64_t point = task % Tile::kSize * Tile::kSize;
                accumulate(block, panel, least(width, held - panel), point, point + Tile::kSize, tiles, v, d,
                           m.get() + (block * held + panel) * m_block, chunk > 0);
            });
        }
        parallel(blocks_c * held, [&](int64_t task) {
            const int64_t block = task / held;
            if (grid.chunks > 0) {
                restore(group, block, first + task % held, m.get() + task * m_block);
            } else {
                clear(group, block, first + task % held);
            }
        });
    }

    int64_t chunk_units(int64_t chunk) const {
        return least(grid.units_in_chunk, grid.units - chunk * grid.units_in_chunk);
    }
    int64_t chunk_tiles(int64_t chunk) const {
        const int64_t units = chunk_units(chunk);
        return (units - 1) * grid.unit + grid.at(chunk * grid.units_in_chunk + units - 1).tiles;
    }

    // V of all channels and D of the slab's filters, for one chunk.
    void transform(int64_t group, int64_t first, int64_t held, int64_t chunk, T* v, T* d) const {
        const int64_t units = chunk_units(chunk);
        const int64_t inputs = ceil_div(p.C, kLine);
        const int64_t filters = least(held * kPanel, p.K - first * kPanel);
        parallel((inputs + ceil_div(filters, kLine)) * units, [&](int64_t task) {
            const int64_t local = task % units;
            const TileGrid::Unit unit = grid.at(chunk * grid.units_in_chunk + local);
            const int64_t c = task / units * kLine;
            const int64_t k = c - inputs * kLine;
            if (k < 0) {
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
                T* to = v + c / height * v_block + local * grid.unit * height + c % height;
                transform_tiles<T, Tile::BT, TILE>(source, to, v_point, height);
            } else {
                const TileSource<T> source = {
                    .plane = p.dy + ((unit.plane * p.groups + group) * p.K + first * kPanel + k) * p.P * p.Q,
                    .plane_stride = p.P * p.Q,
                    .channels = least(kLine, filters - k),
                    .H = p.P,
                    .W = p.Q,
                    .row = unit.row * TILE,
                    .column = unit.column * TILE,
                    .tiles = unit.tiles,
                };
                T* to = d + k / kPanel * d_block + local * grid.unit * kPanel + k % kPanel;
                transform_tiles<T, Tile::G, TILE>(source, to, d_point, kPanel);
            }
        });
    }

    // M of a block of channels and `count` panels (+)= VT D at the points [begin, end).
    void accumulate(int64_t block, int64_t panel, int64_t count, int64_t begin, int64_t end, int64_t tiles, const T* v,
                    const T* d, T* m, bool more) {
        const int64_t channels = least(height, p.C - block * height);
        for (int64_t point = begin; point < end; point++) {
            for (int64_t t = 0; t < tiles; t += kSteps) {
                const T* a = v + block * v_block + point * v_point + t * height;
                for (int64_t i = 0; i < count; i++) {
                    const T* b = d + (panel + i) * d_block + point * d_point + t * kPanel;
                    point_product(channels, least(kSteps, tiles - t), a, 1, height, b,
                                  m + i * m_block + point * m_point, more || t > 0);
                }
            }
        }
        __atomic_fetch_add(&multiplies, channels * tiles * count * kPanel * (end - begin), __ATOMIC_RELAXED);
    }

    // dw of a block of channels and a panel of filters, from its M.
    void restore(int64_t group, int64_t block, int64_t panel, const T* m) const {
        const int64_t channels = least(height, p.C - block * height);
        for (int64_t k = panel * kPanel; k < least(p.K, (panel + 1) * kPanel); k += kLine) {
            const int64_t filters = least(kLine, p.K - k);
            T* to = p.dw + ((group * p.K + k) * p.C + block * height) * kArea;
            for (int64_t c = 0; c < channels; c += kLine) {
                Vec<T> taps[kArea * kLanes<T>];
                const int64_t count = least(kLine, channels - c) * kArea;
                for (int64_t i = 0; i * kArea < count; i++) {
                    Vec<T> tile[TAPS][TAPS];
                    restore_tile<T, Tile::AT>(m + (c + i) * kPanel + k % kPanel, m_point, tile);
#pragma GCC unroll 25
                    for (int tap = 0; tap < kArea; tap++) taps[i * kArea + tap] = tile[tap / TAPS][tap % TAPS];
                }
                for (int64_t from = 0; from < count; from += kLine) {
                    Vec<T>* square = taps + from;
                    transpose<T>(square);
                    const Lanes<T> lanes = lanes_within<T>(0, count - from);
                    for (int64_t l = 0; l < filters; l++)
                        store_lanes(to + (l * p.C + c) * kArea + from, square[l], lanes);
                }
            }
        }
    }

    void clear(int64_t group, int64_t block, int64_t panel) const {  // an empty batch
        const int64_t channels = least(height, p.C - block * height);
        for (int64_t k = panel * kPanel; k < least(p.K, (panel + 1) * kPanel); k++) {
            T* to = p.dw + ((group * p.K + k) * p.C + block * height) * kArea;
            for (int64_t i = 0; i < channels * kArea; i++) to[i] = T(0);
        }
    }
};

template <typename T, typename Use>
static int64_t with_tile(const WinogradWgrad<T>& p, const Use& use) {
    if (p.taps == 5) return p.tile == 2 ? use(FilterGradient<T, 5, 2>(p)) : use(FilterGradient<T, 5, 4>(p));
    switch (p.tile) {
        case 2:
            return use(FilterGradient<T, 3, 2>(p));
        case 4:
            return use(FilterGradient<T, 3, 4>(p));
        default:
            return use(FilterGradient<T, 3, 6>(p));
    }
}

// The pairs of residues of a dilation as the images of a problem without one.
template <typename T>
static WinogradWgrad<T> undilated(const WinogradWgrad<T>& p) {
    WinogradWgrad<T> images = p;
    images.N = p.N * p.dilation_h * p.dilation_w;
    images.P = ceil_div(p.P, p.dilation_h);
    images.Q = ceil_div(p.Q, p.dilation_w);
    images.H = images.P + p.taps - 1;
    images.W = images.Q + p.taps - 1;
    images.pad_top = images.pad_left = 0;
    images.dilation_h = images.dilation_w = 1;
    return images;
}

// Planes (N, channels, height, width) into (N, residue of rows, residue of columns, channels, rows, columns), of which
// element (i, j) comes from (first row + residue + i * dilation, ...); zero outside.
template <typename T>
static void copy_residues(const WinogradWgrad<T>& p, int64_t channels, int64_t height, int64_t width, int64_t pad_top,
                          int64_t pad_left, int64_t rows, int64_t columns, const T* from, T* to) {
    const int64_t residues = p.dilation_h * p.dilation_w;
    parallel(p.N * residues * channels, p.N * residues * channels * rows * columns, [&](int64_t task) {
        const int64_t residue = task / channels % residues;
        const int64_t top = residue / p.dilation_w - pad_top;
        const int64_t left = residue % p.dilation_w - pad_left;
        const T* plane = from + (task / channels / residues * channels + task % channels) * height * width;
        T* row = to + task * rows * columns;
        for (int64_t i = 0; i < rows; i++, row += columns) {
            const int64_t h = top + i * p.dilation_h;
            if (h < 0 || h >= height) {
                fill(row, T(0), columns);
            } else {
                copy_row(row, columns, plane + h * width, left, p.dilation_w, width);
            }
        }
    });
}

template <typename T>
int64_t winograd_wgrad(const WinogradWgrad<T>& p) {
    const auto run = [](auto&& gradient) { return gradient.run(); };
    if (p.dilation_h * p.dilation_w == 1) return with_tile<T>(p, run);
    WinogradWgrad<T> images = undilated(p);
    const int64_t channels = p.groups * p.C;
    const int64_t filters = p.groups * p.K;
    const Scratch<T> x(static_cast<std::size_t>(images.N * channels * images.H * images.W));
    const Scratch<T> dy(static_cast<std::size_t>(images.N * filters * images.P * images.Q));
    copy_residues(p, channels, p.H, p.W, p.pad_top, p.pad_left, images.H, images.W, p.x, x.get());
    copy_residues(p, filters, p.P, p.Q, 0, 0, images.P, images.Q, p.dy, dy.get());
    images.x = x.get();
    images.dy = dy.get();
    return with_tile<T>(images, run);
}

template <typename T>
int64_t winograd_wgrad_workspace(const WinogradWgrad<T>& p, int64_t threads) {
    const WinogradWgrad<T> images = undilated(p);
    const bool dilated = p.dilation_h * p.dilation_w > 1;
    const int64_t copies = images.N * p.groups * (p.C * images.H * images.W + p.K * images.P * images.Q);
    return (dilated ? copies * static_cast<int64_t>(sizeof(T)) : 0) +
           with_tile<T>(dilated ? images : p, [&](auto&& gradient) { return gradient.workspace(threads); });
}

template int64_t winograd_wgrad(const WinogradWgrad<float>&);
template int64_t winograd_wgrad(const WinogradWgrad<double>&);
template int64_t winograd_wgrad_workspace(const WinogradWgrad<float>&, int64_t);
template int64_t winograd_wgrad_workspace(const WinogradWgrad<double>&, int64_t);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
