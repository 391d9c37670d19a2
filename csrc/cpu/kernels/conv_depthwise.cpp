// Depthwise convolution: a channel meets one filter, so a pass is a few taps over one plane and loads are the limit.
//
//      x, one plane             columns q .. q + lanes of kRows rows of y, in registers
//     . . . . . . . . .           +-----------+
//     . +-----------+ .      p    | acc[0]    |    every tap (r, s) is one multiply-add a row:
//     . | tap (r,s) | .   <--     | acc[1]    |      acc[j] += w[r][s] * x[row(p + j, r)][column(q, s) ...]
//     . +-----------+ .           | acc[2]    |    The planes are read where they lie, without a copy: lanes that
//     . . . . . . . . .           | acc[3]    |    would fall beside the plane are masked, rows that would fall
//                                 +-----------+    above or below it are read from a row of zeros.
//
// Which row and which lanes a tap meets is the same for every plane, so it is worked out once (Table).  A stride of two
// reads two vectors and keeps every second lane; dgrad's strided result is put together from its column phases.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/masked.h"
#include "cpu/kernels/taps.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int kRows = 4;

// How the pixels that neighbouring outputs meet lie in a row.
enum class Step { kOne, kTwo, kAny };

// Where a vector of outputs meets one column of the filter.
template <typename T>
struct Column {
    int64_t at;          // column of the image under lane 0; it may lie outside
    int64_t end;         // before this column lies the last one that counts
    Lanes<T> low, high;  // of the vectors at `at` and (Step::kTwo) one vector further, the lanes that lie inside
};

struct Rows {
    int64_t begin, end;
};

template <typename T>
struct Table {
    const Axis& h;
    const Axis& w;
    const int64_t vectors;      // in a row of outputs of the largest column phase
    Scratch<int64_t> row;       // by row phase, output row, r: distance of the image's row from its first; < 0: outside
    Scratch<Rows> clear;        // by row phase: the output rows that meet no padding above or below
    Scratch<Column<T>> column;  // by vector, column phase, s
    Scratch<bool> inside;       // by vector: no lane is masked
    Scratch<T> zeros;           // a row of the image
    bool adjacent = true;       // the taps of a column of the filter meet a row of the image after the other

    Table(const Axis& rows, const Axis& columns)
        : h(rows),
          w(columns),
          vectors(ceil_div(w.count, kLanes<T>)),
          row(h.count * h.met),
          clear(h.phases),
          column(vectors * w.met),
          inside(vectors),
          zeros(w.size) {
        constexpr int64_t kL = kLanes<T>;
        fill(zeros.get(), T(0), w.size);
        for (int64_t i = 0; i < h.phases; i++) {
            const Phase& phase = h.phase.get()[i];
            int64_t* to = row.get() + phase.tap * h.count;
            Rows& rows_inside = clear.get()[i];
            rows_inside = {0, phase.count};
            for (int64_t t = phase.tap; t < phase.tap + phase.taps; t++) {
                const Inside rows_of_tap(first_of(h, t), h.stride, h.size, phase.count);
                rows_inside = {most(rows_inside.begin, rows_of_tap.begin), least(rows_inside.end, rows_of_tap.end)};
            }
            for (int64_t r = 1; r < phase.taps; r++) {
                adjacent = adjacent && first_of(h, tap_of(phase, r)) - first_of(h, tap_of(phase, r - 1)) == 1;
            }
            for (int64_t p = 0; p < phase.count; p++) {
                for (int64_t r = 0; r < phase.taps; r++) {
                    const int64_t y = first_of(h, tap_of(phase, r)) + p * h.stride;
                    *to++ = y >= 0 && y < h.size ? y * w.size : -1;
                }
            }
        }
        for (int64_t v = 0; v < vectors; v++) {
            inside.get()[v] = true;
            for (int64_t t = 0; t < w.met; t++) {
                const int64_t at = first_of(w, t) + v * kL * w.stride;
                // Beyond the last output a lane is zero too: wgrad multiplies it by a zero of its own.
                const int64_t end = least(w.size, at + (w.count - v * kL) * w.stride);
                column.get()[v * w.met + t] = {at, end, lanes_within<T>(at, end), lanes_within<T>(at + kL, end)};
                inside.get()[v] &=
                    at >= 0 && at + (kL - 1) * w.stride < end && at + (w.stride > 1 ? 2 : 1) * kL <= w.size;
            }
        }
    }

    // Tap `r` of a row phase, counted downwards in the image; dgrad's taps go upwards.
    int64_t tap_of(const Phase& phase, int64_t r) const {
        const Tap* tap = h.tap.get() + phase.tap;
        return phase.tap + (tap[0].offset <= tap[phase.taps - 1].offset ? r : phase.taps - 1 - r);
    }
    // What tap `t` of output 0 meets.
    static int64_t first_of(const Axis& axis, int64_t t) {
        const Tap& tap = axis.tap.get()[t];
        return tap.offset * axis.stride + axis.residue.get()[tap.residue] - axis.before;
    }
    const int64_t* rows_of(const Phase& phase, int64_t first) const {
        return row.get() + phase.tap * h.count + first * phase.taps;
    }
    const Column<T>* columns_of(int64_t vector, const Phase& phase) const {
        return column.get() + vector * w.met + phase.tap;
    }
};

template <typename T, Step STEP, bool INSIDE>
PYCNN_INLINE Vec<T> load_column(const T* row, const Column<T>& c, const Axis& w) {
    constexpr int64_t kL = kLanes<T>;
    if constexpr (STEP == Step::kOne) {
        return INSIDE ? load(row + c.at) : load_lanes(row + c.at, c.low);
    } else if constexpr (STEP == Step::kTwo) {
        using Even = detail::Alternate<T, 0>;
        const T* from = row + c.at;
        if constexpr (INSIDE) return Even::of(load(from), load(from + kL));
        return Even::of(load_lanes(from, c.low), load_lanes(from + kL, c.high));
    } else {
        Vec<T> value = {};
        for (int64_t l = 0; l < kL; l++) {
            const int64_t at = c.at + l * w.stride;
            if (at >= 0 && at < c.end) value[l] = row[at];
        }
        return value;
    }
}

// A column and the next one with a stride of two: the even and the odd lanes of the same vectors.
template <typename T, bool INSIDE>
PYCNN_INLINE void load_pair(const T* row, const Column<T>& c, Vec<T>* to) {
    constexpr int64_t kL = kLanes<T>;
    const T* from = row + c.at;
    const Vec<T> low = INSIDE ? load(from) : load_lanes(from, c.low);
    const Vec<T> high = INSIDE ? load(from + kL) : load_lanes(from + kL, c.high);
    to[0] = detail::Alternate<T, 0>::of(low, high);
    to[1] = detail::Alternate<T, 1>::of(low, high);
}

// The columns of one phase of a filter.
template <typename T>
struct Across {
    const Column<T>* columns;  // by s
    const T* weight;           // by r, s
    int64_t taps;
};

// A vector of outputs in each of some rows: to[row][0 .. count) = bias + the sum over r and s.  Or two vectors, of the
// even and of the odd columns, that are zipped.
template <typename T>
struct Strip {
    const T* x;
    const int64_t* down;  // Table::row of the first of the rows
    Across<T> across[2];
    int64_t taps_h;
    Rows clear;  // of the rows [0, rows), those that meet no padding above or below
    int64_t rows;
    T bias;
    T* to;
    int64_t to_row, count;
};

// A filter of 3x3 whose rows of taps meet neighbouring rows of the image: a row is loaded once and serves three (with
// DOWN 2, a vertical stride of two: one or two) rows of outputs.
template <typename T, Step STEP, bool INSIDE, int DOWN>
void sum_3x3(const Table<T>& table, const Strip<T>& strip) {
    const T* zeros = table.zeros.get();
    const Across<T>& across = strip.across[0];
    const Column<T> column[3] = {across.columns[0], across.columns[1], across.columns[2]};
    const int64_t* down = strip.down;
    Vec<T> seen[3][3];
    const auto see = [&](int r) {
        const T* from = down[r] < 0 ? zeros : strip.x + down[r];
#pragma GCC unroll 3
        for (int s = 0; s < 3; s++) seen[r][s] = load_column<T, STEP, INSIDE>(from, column[s], table.w);
    };
    Vec<T> weight[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; t++) weight[t] = broadcast(across.weight[t]);
    const Vec<T> bias = broadcast(strip.bias);
#pragma GCC unroll 3
    for (int r = 0; r < 3 - DOWN; r++) see(r);
    for (int64_t row = 0; row < strip.rows; row++) {
#pragma GCC unroll 3
        for (int r = 3 - DOWN; r < 3; r++) see(r);
        Vec<T> sum = bias;
#pragma GCC unroll 9
        for (int t = 0; t < 9; t++) sum += weight[t] * seen[t / 3][t % 3];
        store_part(strip.to + row * strip.to_row, sum, strip.count);
#pragma GCC unroll 9
        for (int t = 0; t < 9 - 3 * DOWN; t++) seen[t / 3][t % 3] = seen[t / 3 + DOWN][t % 3];
        down += 3;
    }
}

// Any filter: kRows rows of outputs at a time share each weight.
template <typename T, Step STEP, bool INSIDE, int PHASES>
void sum_any(const Table<T>& table, const Strip<T>& strip) {
    constexpr int64_t kL = kLanes<T>;
    const int64_t x_row = table.h.stride * table.w.size;
    const int64_t* down = strip.down;
    T* to = strip.to;
    const auto block = [&]<int ROWS>() {
        Vec<T> acc[PHASES][ROWS];
#pragma GCC unroll 8
        for (int j = 0; j < PHASES * ROWS; j++) acc[j / ROWS][j % ROWS] = broadcast(strip.bias);
        for (int64_t r = 0; r < strip.taps_h; r++) {
            // Only single rows can meet the padding: the rows of a block are one stride apart.
            const T* from = ROWS == 1 && down[r] < 0 ? table.zeros.get() : strip.x + down[r];
#pragma GCC unroll 2
            for (int i = 0; i < PHASES; i++) {
                const Across<T>& across = strip.across[i];
                for (int64_t s = 0; s < across.taps; s++) {
                    const Vec<T> factor = broadcast(across.weight[r * across.taps + s]);
#pragma GCC unroll 4
                    for (int j = 0; j < ROWS; j++) {
                        acc[i][j] +=
                            factor * load_column<T, STEP, INSIDE>(from + j * x_row, across.columns[s], table.w);
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; j++, to += strip.to_row) {
            if constexpr (PHASES == 1) {
                store_part(to, acc[0][j], strip.count);
            } else {
                store_part(to, detail::Zip<T, 0>::of(acc[0][j], acc[1][j]), least(kL, strip.count));
                store_part(to + kL, detail::Zip<T, kL / 2>::of(acc[0][j], acc[1][j]), most(0, strip.count - kL));
            }
        }
        down += ROWS * strip.taps_h;
    };
    for (int64_t row = 0; row < strip.rows;) {
        if (row >= strip.clear.begin && row + kRows <= strip.clear.end) {
            block.template operator()<kRows>();
            row += kRows;
        } else {
            block.template operator()<1>();
            row++;
        }
    }
}

// Even and odd columns of dgrad of a 3x3 filter with a stride of two: EVEN and ODD of its columns meet them, DOWN of
// its rows.
template <typename T, bool INSIDE, int DOWN, int EVEN, int ODD>
void sum_zipped(const Table<T>& table, const Strip<T>& strip) {
    constexpr int64_t kL = kLanes<T>;
    constexpr int kTaps = 3;
    static_assert(EVEN + ODD == kTaps);
    const Column<T>* even = strip.across[0].columns;
    const Column<T>* odd = strip.across[1].columns;
    const Column<T> column[kTaps] = {even[0], EVEN > 1 ? even[1] : odd[0], odd[ODD - 1]};
    Vec<T> weight[DOWN][kTaps];
#pragma GCC unroll 6
    for (int t = 0; t < DOWN * kTaps; t++) {
        const int s = t % kTaps;
        const Across<T>& across = strip.across[s < EVEN ? 0 : 1];
        weight[t / kTaps][s] = broadcast(across.weight[t / kTaps * across.taps + (s < EVEN ? s : s - EVEN)]);
    }
    const Vec<T> bias = broadcast(strip.bias);
    const int64_t low = least(kL, strip.count);
    const int64_t high = strip.count - low;
    const int64_t* down = strip.down;
    T* to = strip.to;
    for (int64_t row = 0; row < strip.rows; row++, down += DOWN, to += strip.to_row) {
        Vec<T> sum[2] = {bias, bias};
#pragma GCC unroll 2
        for (int r = 0; r < DOWN; r++) {
            const T* from = down[r] < 0 ? table.zeros.get() : strip.x + down[r];
#pragma GCC unroll 3
            for (int s = 0; s < kTaps; s++) {
                sum[s < EVEN ? 0 : 1] += weight[r][s] * load_column<T, Step::kOne, INSIDE>(from, column[s], table.w);
            }
        }
        store_part(to, detail::Zip<T, 0>::of(sum[0], sum[1]), low);
        store_part(to + kL, detail::Zip<T, kL / 2>::of(sum[0], sum[1]), high);
    }
}

// Even and odd columns of even and odd rows of the same: one tap of a column of the filter meets the rows of one phase,
// `single`, and two those of the other, `both`, which are those of `single` and the ones before (AFTER) or after them.
template <typename T, bool INSIDE, bool AFTER, int EVEN, int ODD>
void sum_quartered(const Table<T>& table, const Strip<T>& single, const Strip<T>& both) {
    constexpr int64_t kL = kLanes<T>;
    constexpr int kTaps = 3;
    static_assert(EVEN + ODD == kTaps);
    const Column<T>* even = single.across[0].columns;
    const Column<T>* odd = single.across[1].columns;
    const Column<T> column[kTaps] = {even[0], EVEN > 1 ? even[1] : odd[0], odd[ODD - 1]};
    const auto weight_of = [&](const Strip<T>& strip, int r, int s) {
        const Across<T>& across = strip.across[s < EVEN ? 0 : 1];
        return broadcast(across.weight[r * across.taps + (s < EVEN ? s : s - EVEN)]);
    };
    Vec<T> one[kTaps], first[kTaps], second[kTaps], above[kTaps], below[kTaps];
#pragma GCC unroll 3
    for (int s = 0; s < kTaps; s++) {
        one[s] = weight_of(single, 0, s);
        first[s] = weight_of(both, 0, s);
        second[s] = weight_of(both, 1, s);
    }
    const auto see = [&](int64_t at, Vec<T>* seen) __attribute__((always_inline)) {
        const T* from = at < 0 ? table.zeros.get() : single.x + at;
#pragma GCC unroll 3
        for (int s = 0; s < kTaps; s++) seen[s] = load_column<T, Step::kOne, INSIDE>(from, column[s], table.w);
    };
    const int64_t low = least(kL, single.count);
    const int64_t high = single.count - low;
    const auto put = [&](const Vec<T>* sum, T* to) __attribute__((always_inline)) {
        store_part(to, detail::Zip<T, 0>::of(sum[0], sum[1]), low);
        store_part(to + kL, detail::Zip<T, kL / 2>::of(sum[0], sum[1]), high);
    };
    const Vec<T> bias = broadcast(single.bias);
    see(both.down[0], above);
    for (int64_t row = 0; row < single.rows; row++) {
        see(both.down[2 * row + 1], below);
        Vec<T> sum[2] = {bias, bias};
        Vec<T> sums[2] = {bias, bias};
#pragma GCC unroll 3
        for (int s = 0; s < kTaps; s++) {
            const int phase = s < EVEN ? 0 : 1;
            sum[phase] += one[s] * (AFTER ? below[s] : above[s]);
            sums[phase] += first[s] * above[s];
        }
#pragma GCC unroll 3
        for (int s = 0; s < kTaps; s++) {
            sums[s < EVEN ? 0 : 1] += second[s] * below[s];
            above[s] = below[s];
        }
        put(sum, single.to + row * single.to_row);
        put(sums, both.to + row * both.to_row);
    }
}

template <typename T, Step STEP, bool INSIDE>
void sum_strip(const Table<T>& table, const Strip<T>& strip) {
    if constexpr (STEP == Step::kOne) {
        if (strip.across[1].columns != nullptr) {
            const int64_t even = strip.across[0].taps;
            if (even + strip.across[1].taps == 3 && strip.taps_h == 1) {
                return even == 1 ? sum_zipped<T, INSIDE, 1, 1, 2>(table, strip)
                                 : sum_zipped<T, INSIDE, 1, 2, 1>(table, strip);
            }
            if (even + strip.across[1].taps == 3 && strip.taps_h == 2) {
                return even == 1 ? sum_zipped<T, INSIDE, 2, 1, 2>(table, strip)
                                 : sum_zipped<T, INSIDE, 2, 2, 1>(table, strip);
            }
            return sum_any<T, STEP, INSIDE, 2>(table, strip);
        }
    }
    if constexpr (STEP != Step::kAny) {
        const bool three = strip.taps_h == 3 && strip.across[0].taps == 3 && table.adjacent;
        if (three && table.h.stride == 1) return sum_3x3<T, STEP, INSIDE, 1>(table, strip);
        if (three && table.h.stride == 2) return sum_3x3<T, STEP, INSIDE, 2>(table, strip);
    }
    sum_any<T, STEP, INSIDE, 1>(table, strip);
}

// The strip of one row phase's rows [begin, end) and one vector of columns, all but its columns and where it goes.
template <typename T>
Strip<T> strip_of(const Table<T>& table, const Phase& phase, const T* x, int64_t begin, int64_t end, T bias) {
    const Rows& clear = table.clear.get()[&phase - table.h.phase.get()];
    Strip<T> strip = {};
    strip.x = x;
    strip.down = table.rows_of(phase, begin);
    strip.taps_h = phase.taps;
    strip.clear = {clear.begin - begin, clear.end - begin};
    strip.rows = end - begin;
    strip.bias = bias;
    return strip;
}

// The columns of one of its column phases.
template <typename T>
Across<T> across_of(const Table<T>& table, const Phase& rows, const Phase& columns, int64_t vector, const T* weight) {
    return {table.columns_of(vector, columns), weight + rows.tap * table.w.met + rows.taps * columns.tap, columns.taps};
}

// Both column phases of a stride of two, and where they go; `y_row` is the first of the rows.
template <typename T>
void zip_columns(const Table<T>& table, const Phase& rows, int64_t vector, const T* weight, T* y_row, Strip<T>& strip) {
    constexpr int64_t kL = kLanes<T>;
    const Axis& w = table.w;
    const Phase* phases = w.phase.get();
    const int64_t even = phases[0].first;  // the one that starts at column 0
    strip.across[0] = across_of(table, rows, phases[even], vector, weight);
    strip.across[1] = across_of(table, rows, phases[1 - even], vector, weight);
    strip.to = y_row + vector * kL * w.step;
    strip.to_row = table.h.step * w.out_size;
    strip.count = least(kL * w.step, w.out_size - vector * kL * w.step);
}

// Of dgrad of a 3x3 filter with a stride of two, the rows [begin, end) that both row phases have; returns their number,
// 0 of another sum.
template <typename T>
int64_t sum_quarters(const Table<T>& table, const T* x, int64_t begin, int64_t end, const T* weight, T bias, T* y) {
    const Axis& h = table.h;
    const Axis& w = table.w;
    if (h.step != 2 || w.step != 2 || h.phases != 2 || w.phases != 2 || h.met != 3 || w.met != 3) return 0;
    if (!table.adjacent) return 0;
    const int64_t single = h.phase.get()[0].taps == 1 ? 0 : 1;
    const Phase& one = h.phase.get()[single];
    const Phase& two = h.phase.get()[1 - single];
    const int64_t met = table.first_of(h, one.tap);
    const bool after = met == table.first_of(h, table.tap_of(two, 1));
    if (!after && met != table.first_of(h, table.tap_of(two, 0))) return 0;
    end = least(end, least(one.count, two.count));
    if (end <= begin) return 0;
    for (int64_t v = 0; v < table.vectors; v++) {
        Strip<T> of_one = strip_of(table, one, x, begin, end, bias);
        Strip<T> of_two = strip_of(table, two, x, begin, end, bias);
        zip_columns(table, one, v, weight, y + (one.first + begin * h.step) * w.out_size, of_one);
        zip_columns(table, two, v, weight, y + (two.first + begin * h.step) * w.out_size, of_two);
        const auto sum = [&]<bool INSIDE, bool AFTER>() {
            of_one.across[0].taps == 1 ? sum_quartered<T, INSIDE, AFTER, 1, 2>(table, of_one, of_two)
                                       : sum_quartered<T, INSIDE, AFTER, 2, 1>(table, of_one, of_two);
        };
        if (table.inside.get()[v]) {
            after ? sum.template operator()<true, true>() : sum.template operator()<true, false>();
        } else {
            after ? sum.template operator()<false, true>() : sum.template operator()<false, false>();
        }
    }
    return end - begin;
}

// Rows [begin, end) of every row phase of one plane.  `weight` holds its filter in the order of the phases, `line` room
// for a vector of every row.
template <typename T, Step STEP>
void sum_plane(const Table<T>& table, const T* x, int64_t begin, int64_t end, const T* weight, T bias, T* y, T* line) {
    constexpr int64_t kL = kLanes<T>;
    const Axis& h = table.h;
    const Axis& w = table.w;
    const Phase* phases = w.phase.get();
    const bool zipped = w.step == 2 && w.phases == 2;
    if (STEP == Step::kOne) begin += sum_quarters(table, x, begin, end, weight, bias, y);
    for (int64_t i = 0; i < h.phases; i++) {
        const Phase& ph = h.phase.get()[i];
        const int64_t rows = least(end, ph.count) - begin;
        if (rows <= 0) continue;
        T* const y_row = y + (ph.first + begin * h.step) * w.out_size;
        Strip<T> strip = strip_of(table, ph, x, begin, begin + rows, bias);
        for (int64_t v = 0; v < table.vectors; v++) {
            const auto sum = [&] {
                if (STEP != Step::kAny && table.inside.get()[v]) {
                    sum_strip<T, STEP, STEP != Step::kAny>(table, strip);
                } else {
                    sum_strip<T, STEP, false>(table, strip);
                }
            };
            if (zipped) {
                zip_columns(table, ph, v, weight, y_row, strip);
                sum();
                continue;
            }
            if (w.step == 1) {
                strip.across[0] = across_of(table, ph, phases[0], v, weight);
                strip.to = y_row + v * kL;
                strip.to_row = h.step * w.out_size;
                strip.count = least(kL, w.out_size - v * kL);
                sum();
                continue;
            }
            for (int64_t j = 0; j < w.phases; j++) {
                strip.across[0] = across_of(table, ph, phases[j], v, weight);
                strip.to = line;
                strip.to_row = kL;
                strip.count = kL;
                sum();
                const int64_t count = least(kL, phases[j].count - v * kL);
                for (int64_t r = 0; r < rows; r++) {
                    T* to = y_row + r * h.step * w.out_size + v * kL * w.step + phases[j].first;
                    store_segment(to, line + r * kL, count, w.step, false);
                }
            }
        }
    }
}

// How many planes make a task worth its start, where enough tasks remain.
int64_t planes_of(int64_t planes, int64_t bands, int64_t size) {
    constexpr int64_t kElements = 64 << 10;
    constexpr int64_t kTasks = 8;
    return most(1, least(kElements / most(1, size), planes * bands / kTasks));
}

constexpr int kTile = 3;  // rows and columns of taps that wgrad sums at once

// sums[r][s] += dy * x under a tile of taps of one plane: they share each vector of the gradient.  DOWN as in sum_3x3:
// a row of the image is loaded once for all rows of the tile; 0 stands for taps that do not meet neighbouring rows.
template <typename T, Step STEP, int DOWN>
void dot_plane(const Table<T>& table, const T* x, const T* dy, const int64_t* tap_r, const int64_t* tap_s,
               Vec<T>* sums) {
    constexpr int64_t kL = kLanes<T>;
    constexpr int kKept = DOWN == 0 ? 0 : kTile - DOWN;  // rows of the tile that the row before has already loaded
    const Axis& h = table.h;
    const Axis& w = table.w;
    const T* zeros = table.zeros.get();
    const int64_t r[kTile] = {tap_r[0], tap_r[1], tap_r[2]};
    for (int64_t v = 0; v < table.vectors; v++) {
        const Column<T>* columns = table.column.get() + v * w.met;
        const Column<T> column[kTile] = {columns[tap_s[0]], columns[tap_s[1]], columns[tap_s[2]]};
        const int64_t count = least(kL, w.out_size - v * kL);
        const bool paired = column[1].at == column[0].at + 1;
        const auto dot = [&]<bool INSIDE>() {
            const int64_t* down = table.row.get();
            const T* from_dy = dy + v * kL;
            Vec<T> acc[kTile * kTile];
            for (int t = 0; t < kTile * kTile; t++) acc[t] = sums[t];
            Vec<T> seen[kTile][kTile];
            const auto see = [&](int i) {
                const int64_t at = down[r[i]];
                const T* from = at < 0 ? zeros : x + at;
                if (STEP == Step::kTwo && paired) {
                    load_pair<T, INSIDE>(from, column[0], seen[i]);
                    seen[i][2] = load_column<T, STEP, INSIDE>(from, column[2], w);
                    return;
                }
#pragma GCC unroll 3
                for (int j = 0; j < kTile; j++) seen[i][j] = load_column<T, STEP, INSIDE>(from, column[j], w);
            };
#pragma GCC unroll 3
            for (int i = 0; i < kKept; i++) see(i);
            for (int64_t p = 0; p < h.out_size; p++, down += h.met, from_dy += w.out_size) {
                const Vec<T> gradient = load_part(from_dy, count);
#pragma GCC unroll 3
                for (int i = kKept; i < kTile; i++) see(i);
#pragma GCC unroll 9
                for (int t = 0; t < kTile * kTile; t++) acc[t] += gradient * seen[t / kTile][t % kTile];
#pragma GCC unroll 9
                for (int t = 0; t < kKept * kTile; t++) {
                    seen[t / kTile][t % kTile] = seen[t / kTile + DOWN][t % kTile];
                }
            }
            for (int t = 0; t < kTile * kTile; t++) sums[t] = acc[t];
        };
        if (STEP != Step::kAny && table.inside.get()[v]) {
            dot.template operator()<STEP != Step::kAny>();
        } else {
            dot.template operator()<false>();
        }
    }
}

// The next plane, if it is a small one: it is over before the hardware sees a stream in it.
template <typename T>
void ask_for(const T* plane, int64_t size) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    constexpr int64_t kSmall = 4096 / static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < size && size <= kSmall; i += kLine) __builtin_prefetch(plane + i);
}

template <typename T, Step STEP>
auto dot_of(int down) {
    return down == 1 ? dot_plane<T, STEP, 1> : (down == 2 ? dot_plane<T, STEP, 2> : dot_plane<T, STEP, 0>);
}

}  // namespace

template <typename T>
void depthwise_sum(const TapSum<T>& p) {
    constexpr int64_t kElements = 16 << 10;
    const Table<T> table(p.h, p.w);
    const int64_t planes = p.images * p.groups;
    const int64_t filter_size = p.h.taps * p.w.taps;
    const int64_t taps = p.h.met * p.w.met;
    // Large planes are cut into bands of rows, small ones are taken several at a time.
    const int64_t band = most(1, kElements / most(1, p.w.out_size) / kRows) * kRows;
    const int64_t bands = ceil_div(p.h.count, band);
    const int64_t some = planes_of(planes, bands, p.h.out_size * p.w.out_size);
    // The taps in the order of the phases, rows before columns within one.
    const Scratch<int64_t> order(taps);
    for (int64_t i = 0; i < p.h.phases * p.w.phases; i++) {
        const Phase& ph = p.h.phase.get()[i / p.w.phases];
        const Phase& pw = p.w.phase.get()[i % p.w.phases];
        int64_t* to = order.get() + ph.tap * p.w.met + ph.taps * pw.tap;
        for (int64_t j = 0; j < ph.taps * pw.taps; j++) {
            const Tap& r = p.h.tap.get()[table.tap_of(ph, j / pw.taps)];
            to[j] = r.index * p.w.taps + p.w.tap.get()[pw.tap + j % pw.taps].index;
        }
    }
    const int64_t line_size = p.w.step == 1 ? 0 : least(band, p.h.count) * kLanes<T>;
    const auto sum = p.w.stride == 1 ? sum_plane<T, Step::kOne>
                                     : (p.w.stride == 2 ? sum_plane<T, Step::kTwo> : sum_plane<T, Step::kAny>);
    parallel(ceil_div(planes, some) * bands, [&](int64_t task) {
        const int64_t first = task / bands * some;
        const int64_t begin = task % bands * band;
        const Scratch<T> scratch(line_size + taps);
        T* const line = scratch.get();
        T* const weight = line + line_size;
        for (int64_t at = first; at < least(planes, first + some); at++) {
            const T* filter = p.filters + at % p.groups * filter_size;
            for (int64_t t = 0; t < taps; t++) weight[t] = filter[order.get()[t]];
            ask_for(p.x + (at + 1) * p.h.size * p.w.size, p.h.size * p.w.size);
            sum(table, p.x + at * p.h.size * p.w.size, begin, begin + band, weight,
                p.bias == nullptr ? T(0) : p.bias[at % p.groups], p.y + at * p.h.out_size * p.w.out_size, line);
        }
    });
}

// dw[k][tap] = sum over n, p, q of dy * x; a channel is summed in one order.
template <typename T>
void depthwise_wgrad(const ConvShape& s, const T* dy, const T* x, T* dw) {
    const Axes axes(s, true);
    const Table<T> table(axes.h, axes.w);
    const auto dot_of_tile = axes.w.stride == 1 ? dot_of<T, Step::kOne>
                                                : (axes.w.stride == 2 ? dot_of<T, Step::kTwo> : dot_of<T, Step::kAny>);
    const int64_t x_size = axes.h.size * axes.w.size;
    const int64_t y_size = axes.h.out_size * axes.w.out_size;
    const int64_t some = planes_of(s.groups, 1, most(s.N, 1) * y_size);
    // A task takes the channels of an image in the order of memory, so that the hardware foresees what it reads.
    parallel(ceil_div(s.groups, some), [&](int64_t task) {
        const int64_t first = task * some;
        const int64_t channels = least(some, s.groups - first);
        const Scratch<Vec<T>> sums(channels * kTile * kTile);
        for (int64_t r0 = 0; r0 < s.R; r0 += kTile) {
            const bool whole = table.adjacent && r0 + kTile <= s.R && s.stride_h <= 2;
            const auto dot = dot_of_tile(whole ? static_cast<int>(s.stride_h) : 0);
            for (int64_t s0 = 0; s0 < s.S; s0 += kTile) {
                // Beyond the filter's edge a tile sums the last tap again, for nobody.
                const int64_t tap_r[kTile] = {r0, least(r0 + 1, s.R - 1), least(r0 + 2, s.R - 1)};
                const int64_t tap_s[kTile] = {s0, least(s0 + 1, s.S - 1), least(s0 + 2, s.S - 1)};
                for (int64_t i = 0; i < channels * kTile * kTile; i++) sums.get()[i] = Vec<T>{};
                for (int64_t i = 0; i < s.N * channels; i++) {
                    const int64_t at = i / channels * s.groups + first + i % channels;
                    ask_for(x + (at + 1) * x_size, x_size);
                    ask_for(dy + (at + 1) * y_size, y_size);
                    dot(table, x + at * x_size, dy + at * y_size, tap_r, tap_s,
                        sums.get() + i % channels * kTile * kTile);
                }
                for (int64_t k = 0; k < channels; k++) {
                    for (int64_t i = 0; i < least(kTile, s.R - r0); i++) {
                        for (int64_t j = 0; j < least(kTile, s.S - s0); j++) {
                            dw[((first + k) * s.R + r0 + i) * s.S + s0 + j] =
                                sum_of<T>(sums.get()[(k * kTile + i) * kTile + j]);
                        }
                    }
                }
            }
        }
    });
}

template void depthwise_sum(const TapSum<float>&);
template void depthwise_sum(const TapSum<double>&);
template void depthwise_wgrad(const ConvShape&, const float*, const float*, float*);
template void depthwise_wgrad(const ConvShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
