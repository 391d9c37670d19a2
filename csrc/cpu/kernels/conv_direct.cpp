// Direct convolution, fprop and dgrad: the register tile reads the image where it lies.
//
// Both passes are one sum over taps.  The image is copied, padding and all, into planes that hold one residue of the
// stride each, so that a tap of every output of a row lies contiguously at a fixed distance:
//
//   padded image, stride 2:   a b a b a b      planes:   a a a    tap s = 0 of q = 0, 1, 2: plane a, from column 0
//                             c d c d c d                c c c    tap s = 1:                plane b, from column 0
//                             a b a b a b                ...      tap s = 2:                plane a, from column 1
//
//   y[k][pixels] = sum over t = (c, r, s) of  w[k][t] * planes[offset[t] + pixels]
//
// The reduction of a tile runs over all t with `offset` as its gathered walk.  Pixels are counted along the planes,
// from one row to the next and one image to the next; what falls between the rows is computed and dropped.  A 1x1
// filter with stride 1 and no padding reads x itself.
//
// dgrad is the same sum over dy with the channels exchanged.  With a stride, dx falls apart into one set of pixels for
// each residue, which meets only its own taps: tap r meets dx[h] where (h + pad - r * dilation) is a multiple of
// stride.
//
// A task is (group, block of pixels, block of filters); its planes fit L2.  Scratch is bounded by that.  Deterministic:
// every output is one sum in one order, whatever the number of threads.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/microkernel.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/taps.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kPlaneBytes = 512 << 10;  // of a block of pixels: they stay in L2 beside a sliver of filters
constexpr int64_t kTasks = 16;              // enough to keep several threads evenly busy

// How the work is cut: blocks of images x rows x columns, and the layout of their planes.
struct Layout {
    bool in_place = false;  // x serves as its own planes
    int64_t images, rows, columns;
    int64_t image_blocks, row_blocks, column_blocks;
    int64_t channels;  // in a block of the reduction
    int64_t row;       // elements of a row of a plane
    int64_t image, plane, channel;
    enum { kByRow, kByImage, kByBlock } strips;  // what a strip may run on through

    int64_t blocks() const { return image_blocks * row_blocks * column_blocks; }
};

template <typename T>
Layout layout_of(const TapSum<T>& p) {
    constexpr int64_t kBudget = kPlaneBytes / static_cast<int64_t>(sizeof(T));
    constexpr int64_t kPanel = kTileVectors * kLanes<T>;
    const int64_t residues = p.h.residues * p.w.residues;
    const bool pointwise = p.h.phases * p.w.phases * residues == 1 && p.h.reach + p.w.reach == 0 && p.h.before == 0 &&
                           p.w.before == 0 && p.h.stride * p.w.stride == 1 && p.h.step * p.w.step == 1;
    Layout l;
    l.images = 1;
    l.rows = p.h.count;
    l.columns = p.w.count;
    l.channels = p.channels;
    const bool row = p.h.size == 1 && p.h.count == 1 && p.w.count <= p.w.size;  // no padding after it either
    if (pointwise && row && p.w.count >= kPanel && (p.images == 1 || p.w.count >= 4 * kPanel)) {
        const int64_t blocks = least(p.w.count / kPanel, ceil_div(p.channels * p.w.count, kBudget));
        l.in_place = true;
        l.strips = Layout::kByRow;
        l.columns = ceil_div(p.w.count, blocks);
        l.row = l.image = l.plane = l.channel = p.w.size;
    } else {
        const auto room = [&](int64_t channels, int64_t rows, int64_t columns) {
            return channels * residues * (rows + p.h.reach) * (columns + p.w.reach);
        };
        while (l.columns > kPanel && room(p.channels, 1, l.columns) > kBudget) l.columns = ceil_div(l.columns, 2);
        if (room(p.channels, 1, l.columns) > 2 * kBudget) {
            l.channels = most(1, 2 * kBudget / room(1, 1, l.columns));
        }
        // Vectors that cover a block of these rows and images, by each of the three ways to lay strips.
        const auto vectors = [&](int64_t rows, int64_t images, auto way) {
            const int64_t row = l.columns + p.w.reach;
            const int64_t image = (rows - 1) * row + l.columns;
            if (way == Layout::kByRow) return images * rows * ceil_div(l.columns, kLanes<T>);
            if (way == Layout::kByImage) return images * ceil_div(image, kLanes<T>);
            return ceil_div((images - 1) * (rows + p.h.reach) * row + image, kLanes<T>);
        };
        const auto best = [&](int64_t rows, int64_t images) {
            auto way = Layout::kByRow;  // stores whole vectors, so others must save a twentieth
            if (l.columns < kPanel || 20 * vectors(rows, images, Layout::kByImage) < 19 * vectors(rows, images, way)) {
                way = Layout::kByImage;
            }
            if (vectors(rows, images, Layout::kByBlock) < vectors(rows, images, way)) way = Layout::kByBlock;
            return way;
        };
        // As many rows as fit, or as few less as waste fewer vectors.
        while (l.rows > 1 && room(l.channels, l.rows, l.columns) > kBudget) l.rows--;
        const int64_t most_rows = l.rows;
        double lowest = 0;
        for (int64_t rows = most_rows; 2 * rows > most_rows; rows--) {
            const int64_t even = ceil_div(p.h.count, ceil_div(p.h.count, rows));
            const double waste = static_cast<double>(vectors(even, 1, best(even, 1))) / static_cast<double>(even);
            if (lowest == 0 || waste < 0.97 * lowest) {
                lowest = waste;
                l.rows = even;
            }
        }
        if (l.rows == p.h.count && l.columns == p.w.count) {
            l.images = most(1, least(p.images, kBudget / room(l.channels, l.rows, l.columns)));
            l.images = ceil_div(p.images, ceil_div(p.images, l.images));
        }
        l.strips = best(l.rows, l.images);
        l.row = l.columns + p.w.reach;
        l.image = (l.rows + p.h.reach) * l.row;
        l.plane = l.images * l.image;
        // An odd number of cache lines: neighbouring channels fall into different sets.
        constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
        l.channel = (ceil_div(residues * l.plane, kLine) | 1) * kLine;
    }
    l.image_blocks = ceil_div(p.images, l.images);
    l.row_blocks = ceil_div(p.h.count, l.rows);
    l.column_blocks = ceil_div(p.w.count, l.columns);
    return l;
}

// A block's place: its first image, row and column, and how many it really has.
struct Block {
    int64_t image, images, row, rows, column, columns;
};

template <typename T>
Block block_of(const TapSum<T>& p, const Layout& l, int64_t index) {
    const auto start = [](int64_t part, int64_t parts, int64_t all) { return part * all / parts; };
    const int64_t column = index % l.column_blocks;
    const int64_t row = index / l.column_blocks % l.row_blocks;
    const int64_t image = index / (l.column_blocks * l.row_blocks);
    Block b;
    b.column = start(column, l.column_blocks, p.w.count);
    b.columns = start(column + 1, l.column_blocks, p.w.count) - b.column;
    b.row = start(row, l.row_blocks, p.h.count);
    b.rows = start(row + 1, l.row_blocks, p.h.count) - b.row;
    b.image = start(image, l.image_blocks, p.images);
    b.images = start(image + 1, l.image_blocks, p.images) - b.image;
    return b;
}

// Channels [c0, c0 + count) of a block into their planes.
template <typename T>
void fill_planes(const TapSum<T>& p, const Layout& l, const Block& b, int64_t group, int64_t c0, int64_t count,
                 T* planes) {
    for (int64_t c = 0; c < count; c++) {
        for (int64_t n = 0; n < b.images; n++) {
            const T* from = p.x + (((b.image + n) * p.groups + group) * p.channels + c0 + c) * p.h.size * p.w.size;
            fill_planes_of(p, from, b.row, b.rows + p.h.reach, b.column, l.row, planes + c * l.channel + n * l.image,
                           l.plane, true);
        }
    }
}

// Where a tile's columns go: `count` of them, from column `from` of the tile to element `to` of an output plane on.
struct Segment {
    int64_t from, count, to;
};

struct Strip {
    int64_t start;  // in the planes
    int64_t vectors;
    int64_t segment, segments;
    bool whole;  // one segment, all of the tile, dense
};

// The strips that cover one phase of a block, with their segments; returns their number.
template <typename T>
int64_t strips_of(const TapSum<T>& p, const Layout& l, const Block& b, const Phase& ph, const Phase& pw, Strip* strips,
                  Segment* segments) {
    const int64_t rows = least(b.rows, ph.count - b.row);
    const int64_t columns = least(b.columns, pw.count - b.column);
    if (rows <= 0 || columns <= 0) return 0;
    const int64_t image_step = p.groups * p.outputs * p.h.out_size * p.w.out_size;
    const auto place = [&](int64_t n, int64_t row, int64_t column) {
        return (b.image + n) * image_step + (ph.first + (b.row + row) * p.h.step) * p.w.out_size + pw.first +
               (b.column + column) * p.w.step;
    };
    int64_t count = 0;
    int64_t used = 0;
    if (l.strips == Layout::kByRow) {
        for (int64_t line = 0; line < b.images * rows; line++) {
            const int64_t n = line / rows;
            const int64_t row = line % rows;
            const Strips cut(ceil_div(columns, kLanes<T>));
            for (int64_t i = 0; i < cut.count; i++) {
                const int64_t panel = cut.width(i) * kLanes<T>;
                int64_t start = cut.start(i) * kLanes<T>;
                // The last one is moved back to end with the row (in place it must), where nothing is added up twice.
                if (start + panel > columns && columns >= panel && l.channels == p.channels) start = columns - panel;
                const int64_t width = least(panel, columns - start);
                const bool whole = width == panel && p.w.step == 1;
                strips[count++] = {n * l.image + row * l.row + start, cut.width(i), used, 1, whole};
                segments[used++] = {0, width, place(n, row, start)};
            }
        }
        return count;
    }
    const int64_t run = l.strips == Layout::kByImage ? 1 : b.images;  // images that a strip may run through
    for (int64_t image = 0; image < b.images; image += run) {
        const int64_t origin = image * l.image;
        const int64_t end = origin + (run - 1) * l.image + (rows - 1) * l.row + columns;
        const Strips cut(ceil_div(end - origin, kLanes<T>));
        for (int64_t i = 0; i < cut.count; i++) {
            const int64_t start = origin + cut.start(i) * kLanes<T>;
            const int64_t stop = least(start + cut.width(i) * kLanes<T>, end);
            const int64_t first = used;
            for (int64_t at = start; at < stop;) {
                const int64_t n = at / l.image;
                const int64_t row = at % l.image / l.row;
                const int64_t column = at % l.image % l.row;
                const int64_t next = least(stop, at - column + l.row);
                if (row < rows && column < columns) {
                    segments[used++] = {at - start, least(columns - column, next - at), place(n, row, column)};
                }
                at = next;
            }
            if (used > first) strips[count++] = {start, cut.width(i), first, used - first, false};
        }
    }
    return count;
}

// The filters of outputs [o, o + rows) for one phase and channels [c0, c1): to[t * rows + i], t = (c, r, s).
template <typename T>
void pack_filters(const TapSum<T>& p, const T* filters, const Phase& ph, const Phase& pw, int64_t c0, int64_t c1,
                  int64_t rows, T* to) {
    to += c0 * ph.taps * pw.taps * rows;
    if (p.h.phases * p.w.phases == 1 && p.filter_output > p.filter_channel) {  // t runs along memory
        pack_sliver(filters + c0 * p.filter_channel, p.filter_output, 1, rows, (c1 - c0) * p.filter_channel, to);
        return;
    }
    if (p.h.phases * p.w.phases == 1 && p.filter_output == 1) {  // dgrad of 1x1: the outputs lie side by side
        pack_sliver(filters + c0 * p.filter_channel, 1, p.filter_channel, rows, c1 - c0, to);
        return;
    }
    for (int64_t c = c0; c < c1; c++) {
        if (p.h.phases * p.w.phases == 1 && p.filter_output == ph.taps * pw.taps) {  // dgrad, all taps in order
            copy_transposed(filters + c * p.filter_channel, p.filter_output, rows, p.filter_output, to, rows);
            to += rows * p.filter_output;
            continue;
        }
        for (int64_t r = 0; r < ph.taps; r++) {
            for (int64_t s = 0; s < pw.taps; s++) {
                const T* from = filters + c * p.filter_channel + p.h.tap.get()[ph.tap + r].index * p.filter_row +
                                p.w.tap.get()[pw.tap + s].index;
                for (int64_t i = 0; i < rows; i++) to[i] = from[i * p.filter_output];
                to += rows;
            }
        }
    }
}

// A TapSum cut into tasks.  run() packs the filters, fills shared planes, then runs the tasks.
template <typename T>
class DirectSum {
  public:
    explicit DirectSum(const TapSum<T>& sum)
        : p(sum),
          l(layout_of(sum)),
          phases(p.h.phases * p.w.phases),
          first_tap(phases + 1),
          taps(count_taps()),
          offsets(taps * l.channels),
          slivers(ceil_div(p.outputs, kTileRows)),
          packed(!filters_in_order() || tiles() > (p.filter_output == 1 ? 1 : 6)),
          filters(packed ? p.groups * p.outputs * p.channels * taps : 1),
          blocks(p.groups * l.blocks()),
          shared(blocks < kTasks && l.channels == p.channels),
          planes_size(l.channels * l.channel + kPanel),
          shared_planes(shared && !l.in_place ? blocks * planes_size : 1) {}

    void run() {
        place_taps();
        if (packed) pack();
        if (shared && !l.in_place) fill_shared();
        const int64_t shares = shared ? least(slivers, ceil_div(2 * kTasks, most(blocks, 1))) : 1;
        parallel(blocks * shares, [&](int64_t task) {
            const int64_t share = task % shares;
            compute(task / shares, share * slivers / shares, (share + 1) * slivers / shares);
        });
    }

  private:
    static constexpr int64_t kPanel = kTileVectors * kLanes<T>;

    const Phase& row_phase(int64_t phase) const { return p.h.phase.get()[phase / p.w.phases]; }
    const Phase& column_phase(int64_t phase) const { return p.w.phase.get()[phase % p.w.phases]; }

    // first_tap[i] is where phase i's taps begin among those of all phases; returns their number.
    int64_t count_taps() {
        int64_t count = 0;
        for (int64_t i = 0; i < phases; i++) {
            first_tap.get()[i] = count;
            count += row_phase(i).taps * column_phase(i).taps;
        }
        first_tap.get()[phases] = count;
        return count;
    }

    // Filters whose taps are walked in the order of memory are read in place, unless many tiles will use them; those of
    // a 1x1 dgrad, of which every step lies in another line, unless two will.
    bool filters_in_order() const { return phases == 1 && taps == p.h.taps * p.w.taps; }
    int64_t tiles() const { return l.blocks() * ceil_div(l.images * l.rows * l.columns, kPanel); }

    // offset[t] of each phase, one phase after the other; the same for every block.
    void place_taps() {
        for (int64_t i = 0; i < phases; i++) {
            const Phase& ph = row_phase(i);
            const Phase& pw = column_phase(i);
            int32_t* to = offsets.get() + first_tap.get()[i] * l.channels;
            for (int64_t c = 0; c < l.channels; c++) {
                for (int64_t r = 0; r < ph.taps; r++) {
                    for (int64_t s = 0; s < pw.taps; s++) {
                        const Tap& y = p.h.tap.get()[ph.tap + r];
                        const Tap& x = p.w.tap.get()[pw.tap + s];
                        *to++ = static_cast<int32_t>(c * l.channel + (y.residue * p.w.residues + x.residue) * l.plane +
                                                     y.offset * l.row + x.offset);
                    }
                }
            }
        }
    }

    T* packed_at(int64_t group, int64_t phase, int64_t sliver) const {
        const int64_t first = first_tap.get()[phase];
        const int64_t count = first_tap.get()[phase + 1] - first;
        return filters.get() + p.channels * ((group * taps + first) * p.outputs + sliver * kTileRows * count);
    }

    // A few channels at a time: in dgrad these are the rows of memory that a sliver's outputs lie along.
    void pack() {
        constexpr int64_t kSome = 8;  // lines that may fall into one set of the nearest cache
        const int64_t parts = ceil_div(p.channels, kSome);
        parallel(p.groups * parts, [&](int64_t task) {
            const int64_t group = task / parts;
            const int64_t c0 = task % parts * kSome;
            for (int64_t sliver = 0; sliver < slivers; sliver++) {
                const T* from = p.filters + group * p.filter_group + sliver * kTileRows * p.filter_output;
                const int64_t rows = least(kTileRows, p.outputs - sliver * kTileRows);
                for (int64_t i = 0; i < phases; i++) {
                    pack_filters(p, from, row_phase(i), column_phase(i), c0, least(p.channels, c0 + kSome), rows,
                                 packed_at(group, i, sliver));
                }
            }
        });
    }

    // Few blocks: their planes are filled first, by all threads, and a block's filters are shared out.  Many: a task
    // fills its own planes, which then are in its core's cache.
    void fill_shared() {
        const int64_t parts = least(p.channels, ceil_div(2 * kTasks, most(blocks, 1)));
        parallel(blocks * parts, [&](int64_t task) {
            const int64_t block = task / parts;
            const int64_t c0 = task % parts * p.channels / parts;
            const int64_t c1 = (task % parts + 1) * p.channels / parts;
            fill_planes(p, l, block_of(p, l, block % l.blocks()), block / l.blocks(), c0, c1 - c0,
                        shared_planes.get() + block * planes_size + c0 * l.channel);
        });
    }

    // One block of pixels, slivers [first, end) of the filters.
    void compute(int64_t block, int64_t first, int64_t end) const {
        const int64_t group = block / l.blocks();
        const Block b = block_of(p, l, block % l.blocks());
        const int64_t lines = l.images * (l.rows + p.h.reach);
        const int64_t most_strips = lines * (ceil_div(l.row, kLanes<T>) + 1) + 1;
        const Scratch<Strip> strips(most_strips);
        const Scratch<Segment> segments(2 * most_strips + lines);
        const Scratch<T> own(shared || l.in_place ? 1 : planes_size);
        for (int64_t c0 = 0; c0 < p.channels; c0 += l.channels) {
            const int64_t channels = least(l.channels, p.channels - c0);
            const T* planes = own.get();
            if (l.in_place) {
                planes = p.x + (b.image * p.groups + group) * p.channels * p.w.size + b.column;
            } else if (shared) {
                planes = shared_planes.get() + block * planes_size;
            } else {
                fill_planes(p, l, b, group, c0, channels, own.get());
            }
            for (int64_t i = 0; i < phases; i++) {
                const int64_t count = strips_of(p, l, b, row_phase(i), column_phase(i), strips.get(), segments.get());
                for (int64_t sliver = first; sliver < end; sliver++) {
                    sum_sliver(group, i, sliver, c0, channels, planes, strips.get(), count, segments.get());
                }
            }
        }
    }

    // The outputs of one sliver at every strip, over channels [c0, c0 + channels).
    void sum_sliver(int64_t group, int64_t phase, int64_t sliver, int64_t c0, int64_t channels, const T* planes,
                    const Strip* strips, int64_t count, const Segment* segments) const {
        const int64_t o = sliver * kTileRows;
        const int64_t rows = least(kTileRows, p.outputs - o);
        const int64_t phase_taps = first_tap.get()[phase + 1] - first_tap.get()[phase];
        const int64_t out_plane = p.h.out_size * p.w.out_size;
        const T* in_place = p.filters + group * p.filter_group + o * p.filter_output + c0 * p.filter_channel;
        const T* a = packed ? packed_at(group, phase, sliver) + c0 * phase_taps * rows : in_place;
        T* y = p.y + (group * p.outputs + o) * out_plane;
        T edge[kTileRows * kPanel];
        for (const Strip* strip = strips; strip < strips + count; strip++) {
            const Segment* segment = segments + strip->segment;
            TileOperands<T> operands = {
                .depth = channels * phase_taps,
                .a = a,
                .a_step = packed ? rows : 1,
                .a_row = packed ? 1 : p.filter_output,
                .b = planes + strip->start,
                .b_step = l.channel,
                .b_offset = offsets.get() + first_tap.get()[phase] * l.channels,
                .c = strip->whole ? y + segment->to : edge,
                .c_row = strip->whole ? out_plane : kPanel,
                .accumulate = strip->whole && c0 > 0,
                .bias = p.bias != nullptr && c0 == 0 ? p.bias + group * p.outputs + o : nullptr,
            };
            if (!packed && p.filter_channel != phase_taps) {  // dgrad: the taps of the next channel lie elsewhere
                operands.a_step = phase_taps == 1 ? p.filter_channel : 1;
                if (phase_taps > 1) {
                    operands.depth = phase_taps;
                    operands.repeat = channels;
                    operands.a_repeat = p.filter_channel;
                    operands.b_repeat = l.channel;
                }
            }
            if (l.in_place) {
                constexpr int64_t kFar = 2;  // strips
                if (sliver == 0 && strip + kFar < strips + count) operands.b_next = strip[kFar].start - strip->start;
                tile_any<T, false>(rows, strip->vectors, operands);
            } else {
                tile_any<T, true>(rows, strip->vectors, operands);
            }
            if (strip->whole) continue;
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t s = 0; s < strip->segments; s++) {
                    store_segment(y + r * out_plane + segment[s].to, edge + r * kPanel + segment[s].from,
                                  segment[s].count, p.w.step, c0 > 0);
                }
            }
        }
    }

    const TapSum<T>& p;
    const Layout l;
    const int64_t phases;
    const Scratch<int64_t> first_tap;
    const int64_t taps;  // of all phases
    const Scratch<int32_t> offsets;
    const int64_t slivers;
    const bool packed;
    const Scratch<T> filters;  // packed[group][phase][sliver][t][row]
    const int64_t blocks;
    const bool shared;
    const int64_t planes_size;
    const Scratch<T> shared_planes;
};

// Planes whose offsets leave 32 bits belong to filters that reach over gigabytes; im2col takes those.
template <typename T>
bool too_far(const TapSum<T>& p) {
    const double panel = kTileVectors * kLanes<T>;
    return 1.0 * p.h.residues * p.w.residues * (1.0 + static_cast<double>(p.h.reach)) *
               (panel + static_cast<double>(p.w.reach)) >
           1e8;
}

}  // namespace

template <typename T>
void conv_fprop_direct(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
    const Axes axes(s, true);
    const TapSum<T> sum = fprop_sum(s, axes, x, w, bias, y);
    if (too_far(sum)) return conv_fprop_im2col(s, x, w, bias, y);
    if (is_depthwise(s)) return depthwise_sum(sum);
    DirectSum<T>(sum).run();
}

template <typename T>
void conv_dgrad_direct(const ConvShape& s, const T* dy, const T* w, T* dx) {
    // The planes of dy are padded with zeros that the convolution never had: harmless unless they meet an infinity.
    if (!is_pointwise(s) && !all_finite(w, s.K * (s.C / s.groups) * s.R * s.S)) {
        return conv_dgrad_im2col_explicit(s, dy, w, dx);
    }
    const Axes axes(s, false);
    const Axis& rows = axes.h;
    const Axis& columns = axes.w;
    const TapSum<T> sum = dgrad_sum(s, axes, dy, w, dx);
    if (too_far(sum)) return conv_dgrad_im2col(s, dy, w, dx);
    // Pixels that no tap meets belong to no phase.
    int64_t covered_rows = 0;
    int64_t covered_columns = 0;
    for (int64_t i = 0; i < rows.phases; i++) covered_rows += rows.phase.get()[i].count;
    for (int64_t i = 0; i < columns.phases; i++) covered_columns += columns.phase.get()[i].count;
    if (covered_rows < rows.out_size || covered_columns < columns.out_size) {
        parallel(s.N * s.C, [&](int64_t plane) { fill(dx + plane * s.H * s.W, T(0), s.H * s.W); });
    }
    if (rows.phases * columns.phases == 0) return;
    if (is_depthwise(s)) return depthwise_sum(sum);
    DirectSum<T>(sum).run();
}

template void conv_fprop_direct(const ConvShape&, const float*, const float*, const float*, float*);
template void conv_fprop_direct(const ConvShape&, const double*, const double*, const double*, double*);
template void conv_dgrad_direct(const ConvShape&, const float*, const float*, float*);
template void conv_dgrad_direct(const ConvShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
