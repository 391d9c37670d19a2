// windows: the windows of an image side by side, and the sum of windows back into an image.
//
//     unfold2d   y[n, c, r, s, p, q]  = x[n, c, h, w], 0 outside the image,     h = p*stride_h - before_h + r*dilation_h
//     fold2d     dx[n, c, h, w]       = sum of y[n, c, r, s, p, q] over the (r, p), (s, q) with that h, and w alike
//
// y lies as written; or, of unfold2d with rows_first, as (n, p, c, r, s, q): the window's elements of each output row
// together, so that rows become images and taps channels.  A 3-D convolution has its depth unfolded so.
//
// Who owns what: in unfold2d a thread owns vectors of neighbours of y (stream.cuh) and gathers; in fold2d it owns one
// element of dx and gathers the windows that hold it, a warp 32 neighbours in memory.
//
// Launch      unfold2d: ceil(size of y / (warps * 128 * vectors)) blocks, half of that for 2 bytes; fold2d: ceil(size of
//             dx / (warps * 32)).  Both on along y past 2^31 - 1.
// Shared      none: what overlapping windows share is in L1.
// Determinism copies; and one thread sums each element, tap by tap.  No atomics.
// Cost        the bytes of x and y: y is taps/(stride_h * stride_w) times as large.
// Limit       bandwidth.  unfold2d stores 128 bits at a time and loads single elements, through L1, because rows of
//             windows start anywhere.
// Reference   Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing", 2006;
//             torch.nn.functional.unfold and fold.
#include "moved.cuh"

namespace pycnn {

// Passed by value; pycnn/backends/cuda/windows.py packs the same fields in the same order.
struct WindowsShape {
    int64 size;          // of the output: y of unfold2d, dx of fold2d
    Divisor C, H, W;     // of the images
    Divisor R, S, P, Q;  // taps, and windows
    Divisor stride_h, stride_w;
    int64 before_h, before_w;  // where the first window starts, beyond the image; less than 0: inside it
    int64 dilation_h, dilation_w;
    int64 rows_first;
};

// Where an element of y comes from.
template <typename Index>
struct WindowPlace {
    Index plane, h, w;
    Index q;  // windows along a row from there
};

template <typename Index>
__device__ __forceinline__ WindowPlace<Index> window_place(Index index, const WindowsShape& s) {
    WindowPlace<Index> place;
    place.q = take_digit(index, s.Q);
    Index p = s.rows_first ? 0 : take_digit(index, s.P);
    const Index tap_s = take_digit(index, s.S), tap_r = take_digit(index, s.R);
    place.plane = index;
    if (s.rows_first) {
        const Index c = take_digit(index, s.C);
        p = take_digit(index, s.P);
        place.plane = index * static_cast<Index>(s.C.value) + c;
    }
    place.h = p * static_cast<Index>(s.stride_h.value) - static_cast<Index>(s.before_h) +
              tap_r * static_cast<Index>(s.dilation_h);
    place.w = place.q * static_cast<Index>(s.stride_w.value) - static_cast<Index>(s.before_w) +
              tap_s * static_cast<Index>(s.dilation_w);
    return place;
}

template <ShapingTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    unfold2d(const WindowsShape s, const Moved<T>* __restrict__ x, Moved<T>* __restrict__ y) {
    constexpr int width = vector_width<Moved<T>>();
    using Index = typename IndexOf<T.wide>::type;
    const Index H = static_cast<Index>(s.H.value), W = static_cast<Index>(s.W.value);
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), s.size, aligned16(y));
    float moved[T.vectors][width];
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        WindowPlace<Index> place = window_place(static_cast<Index>(stretch.place(i)), s);
#pragma unroll
        for (int v = 0; v < width; ++v) {
            const bool exists = stretch.place(i) + v < s.size && inside(place.h, H) && inside(place.w, W);
            moved[i][v] = exists ? to_float(x[(static_cast<int64>(place.plane) * H + place.h) * W + place.w]) : 0.0f;
            if (++place.q == static_cast<Index>(s.Q.value)) {
                place = window_place(static_cast<Index>(stretch.place(i) + v + 1), s);
            } else {
                place.w += static_cast<Index>(s.stride_w.value);
            }
        }
    }
    stretch.write(y, moved);
}

// The constants of one instance; instances.toml lists those that exist.
struct FoldTile {
    int type;    // of y and dx, as StorageOf has it
    int wide;    // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;   // in a block
    int blocks;  // on an SM

    constexpr int threads() const { return warps * 32; }
};

// The window that has its tap at `offset` from where the first window starts, or -1 where there is none.
template <typename Index>
__device__ __forceinline__ Index window_at(Index offset, const Divisor& stride, const Divisor& count) {
    if (offset < 0) return -1;
    const Index window = quotient(offset, stride);
    const bool exists = window * static_cast<Index>(stride.value) == offset && window < static_cast<Index>(count.value);
    return exists ? window : -1;
}

template <FoldTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    fold2d(const WindowsShape s, const Stored<T>* __restrict__ y, Stored<T>* __restrict__ dx) {
    using Index = typename IndexOf<T.wide>::type;
    const int64 element = block_number() * T.threads() + static_cast<int64>(threadIdx.x);
    if (element >= s.size) return;

    Index plane = static_cast<Index>(element);
    const Index w = take_digit(plane, s.W) + static_cast<Index>(s.before_w);
    const Index h = take_digit(plane, s.H) + static_cast<Index>(s.before_h);
    const int64 windows = s.P.value * s.Q.value;
    const Stored<T>* image = y + plane * s.R.value * s.S.value * windows;
    float sum = 0.0f;
    for (Index r = 0; r < static_cast<Index>(s.R.value); ++r) {
        const Index p = window_at(h - r * static_cast<Index>(s.dilation_h), s.stride_h, s.P);
        if (p < 0) continue;
        const Stored<T>* row = image + r * s.S.value * windows + p * s.Q.value;
#pragma unroll 1
        for (Index tap = 0; tap < static_cast<Index>(s.S.value); ++tap) {
            const Index q = window_at(w - tap * static_cast<Index>(s.dilation_w), s.stride_w, s.Q);
            if (q >= 0) sum += to_float(row[tap * windows + q]);
        }
    }
    dx[element] = from_float<Stored<T>>(sum);
}

}  // namespace pycnn
