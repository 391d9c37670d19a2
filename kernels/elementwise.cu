// elementwise: activations, their gradients, and the sum of two arrays; float32, or 16
// bits stored and float32 computed.
//
//     unary   relu_fwd      y = x where not x <= 0, else 0 (NaN stays)
//             tanh_fwd      y = tanh(x)
//             sigmoid_fwd   y = 1 / (1 + exp(-x)), by the exponential of a negative number on both sides
//     binary  relu_bwd      dx = dy where not y <= 0, else 0 (a NaN in y lets the gradient through)
//             tanh_bwd      dx = dy * (1 - y^2)
//             sigmoid_bwd   dx = dy * y * (1 - y)
//             add           y = a + b
//
// Who owns what: a thread owns `vectors` vectors of four neighbours, eight of 16 bits, `threads` vectors apart;
// stream.cuh has the drawing.
//
// Launch      ceil(size / (warps * 128 * vectors)) blocks of warps * 32 threads, half of that in 16 bits; past 2^31 - 1
//             the grid goes on along y.  One stretch a block and no loop over stretches: blocks that end make room for
//             others.
// Shared      none.
// Determinism each element is computed by one thread from its own operands.
// Cost        8 bytes an element of unary, 12 of binary; half of that in 16 bits.
// Limit       bandwidth of the memory: vectors * 16 bytes a thread and operand are in flight.  expf and tanhf take some
//             30 instructions an element, half of what an H100 issues in the memory's time for its 8 bytes.
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ElementwiseTile {
    int type;     // of all arrays, as StorageOf has it
    int op;       // of UnaryOp or BinaryOp
    int vectors;  // of 128 bits, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

enum UnaryOp { kRelu = 0, kTanh = 1, kSigmoid = 2 };
enum BinaryOp { kReluBwd = 0, kTanhBwd = 1, kSigmoidBwd = 2, kAdd = 3 };

template <int op>
__device__ __forceinline__ float unary_of(float x) {
    if constexpr (op == kRelu) {
        return x <= 0.0f ? 0.0f : x;
    } else if constexpr (op == kTanh) {
        return tanhf(x);
    } else {
        const float small = expf(-fabsf(x));
        return __fdividef(x < 0.0f ? small : 1.0f, 1.0f + small);  // 2 ulp: the divisor is from 1 to 2
    }
}

template <int op>
__device__ __forceinline__ float binary_of(float a, float b) {
    if constexpr (op == kReluBwd) {
        return b <= 0.0f ? 0.0f : a;
    } else if constexpr (op == kTanhBwd) {
        return a * fmaf(-b, b, 1.0f);
    } else if constexpr (op == kSigmoidBwd) {
        return a * b * (1.0f - b);
    } else {
        return a + b;
    }
}

template <ElementwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    unary(const int64 size, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), size, aligned16(x, y));
    float value[T.vectors][width];
    stretch.read(x, value);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int v = 0; v < width; ++v) value[i][v] = unary_of<T.op>(value[i][v]);
    }
    stretch.write(y, value);
}

template <ElementwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    binary(const int64 size, const Stored<T>* __restrict__ a, const Stored<T>* __restrict__ b,
           Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), size, aligned16(a, b, y));
    float left[T.vectors][width], right[T.vectors][width];
    stretch.read(a, left);
    stretch.read(b, right);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int v = 0; v < width; ++v) left[i][v] = binary_of<T.op>(left[i][v], right[i][v]);
    }
    stretch.write(y, left);
}

}  // namespace pycnn
