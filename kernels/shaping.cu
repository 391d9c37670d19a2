// shaping: padding and concatenation, which move elements of 4 or 2 bytes and
// compute nothing.
//
//     pad2d    y[plane, h, w] = x[plane, h - top, w - left] inside the image, else `value`
//     concat   y[o, offset + i] = x[o, i] for each of up to kParts arrays seen as (outer, length), in one launch
//
// Who owns what: in pad2d a thread owns vectors of neighbours of y (stream.cuh) and gathers; in concat a block
// owns a chunk of one array (tensors.cuh), a thread vectors of neighbours of it, which it sends to y.
//
// Launch      pad2d: ceil(size of y / (warps * 128 * vectors)) blocks, half of that for 2 bytes, on along y past
//             2^31 - 1.  concat: one block a chunk of that size of each array.
// Shared      none.
// Determinism copies.
// Cost        pad2d: the bytes of y and of x; concat: twice those of y.
// Limit       bandwidth.  concat moves 128 bits at a time where lengths and offsets are whole vectors and all pointers
//             multiples of 16 bytes; pad2d's loads are of one element, through L1, because rows of x start anywhere.
// Reference   torch.nn.functional.pad, torch.cat.
#include "moved.cuh"
#include "tensors.cuh"

namespace pycnn {

// Passed by value; pycnn/backends/cuda/shaping.py packs the same fields in the same order.
struct PadShape {
    int64 size;             // of y
    Divisor rows, columns;  // of a plane of y
    int64 H, W;             // of a plane of x
    int64 top, left;
};

template <ShapingTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    pad2d(const PadShape s, const float value, const Moved<T>* __restrict__ x, Moved<T>* __restrict__ y) {
    constexpr int width = vector_width<Moved<T>>();
    using Index = typename IndexOf<T.wide>::type;
    const Index H = static_cast<Index>(s.H), W = static_cast<Index>(s.W);
    const Index rows = static_cast<Index>(s.rows.value), columns = static_cast<Index>(s.columns.value);
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), s.size, aligned16(y));
    float moved[T.vectors][width];
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        Index plane = static_cast<Index>(stretch.place(i));
        Index column = take_digit(plane, s.columns);
        Index row = take_digit(plane, s.rows);
#pragma unroll
        for (int v = 0; v < width; ++v) {
            const Index h = row - static_cast<Index>(s.top), w = column - static_cast<Index>(s.left);
            const bool exists = stretch.place(i) + v < s.size && inside(h, H) && inside(w, W);
            moved[i][v] = exists ? to_float(x[(static_cast<int64>(plane) * H + h) * W + w]) : value;
            if (++column == columns) {
                column = 0;
                if (++row == rows) {
                    row = 0;
                    ++plane;
                }
            }
        }
    }
    stretch.write(y, moved);
}

enum { kParts = 32 };  // in one launch

// Passed by value; pycnn/backends/cuda/shaping.py packs the same fields in the same order.
struct ConcatShape {
    int64 length;          // of a row of y
    Divisor part[kParts];  // length of a row of each array
    int64 offset[kParts];  // where it begins in y's
};

template <ShapingTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    concat(const Arrays<kParts> arrays, const ConcatShape s, const Pointers<const Moved<T>, kParts> parts,
           Moved<T>* __restrict__ y) {
    constexpr int width = vector_width<Moved<T>>();
    using Index = typename IndexOf<T.wide>::type;
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    const Moved<T>* x = parts.pointer[array];
    const int64 part = s.part[array].value, offset = s.offset[array];
    const bool vectors = (part | offset | s.length) % width == 0 && aligned16(y);
    const Stretch<T.threads(), T.vectors, width> stretch(block - arrays.first[array], arrays.size[array], aligned16(x));
    float moved[T.vectors][width];
    stretch.read(x, moved);
    if (vectors && stretch.whole) {
#pragma unroll
        for (int i = 0; i < T.vectors; ++i) {
            Index row = static_cast<Index>(stretch.place(i));
            const Index column = take_digit(row, s.part[array]);
            // Counted in vectors, or the compiler sees the path below in it and takes the stores apart.
            const int64 vector = (row * s.length + offset + column) / width;
            write_vector(y + vector * width, moved[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        Index row = static_cast<Index>(stretch.place(i));
        Index column = take_digit(row, s.part[array]);
#pragma unroll
        for (int v = 0; v < width; ++v) {
            if (stretch.place(i) + v < stretch.size) {
                y[row * s.length + offset + column] = from_float<Moved<T>>(moved[i][v]);
            }
            if (++column == static_cast<Index>(part)) {
                column = 0;
                ++row;
            }
        }
    }
}

}  // namespace pycnn
