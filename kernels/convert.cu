// convert: float32, float16 and bfloat16 into one another.
//
//     y[i] = x[i], rounded to nearest even where y has fewer bits; NaN stays NaN, what is too large becomes infinite
//
// Between float16 and bfloat16 by way of float32, which holds every number of both: one rounding.
//
// Who owns what: a thread owns `vectors` vectors of eight neighbours, `threads` vectors apart; stream.cuh has the
// drawing.
//
// Launch      ceil(size / (warps * 256 * vectors)) blocks of warps * 32 threads; past 2^31 - 1 the grid goes on along
//             y.
// Shared      none.
// Determinism each element is computed by one thread from its own operand.
// Cost        the bytes of x and of y.
// Limit       bandwidth of the memory: vectors * 16 or 32 bytes a thread are in flight.
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ConvertTile {
    int from, to;  // what x and y store, as StorageOf has it
    int vectors;   // of eight elements, a thread
    int warps;     // in a block
    int blocks;    // on an SM

    constexpr int threads() const { return warps * 32; }
};

template <ConvertTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    convert(const int64 size, const typename StorageOf<T.from>::type* __restrict__ x,
            typename StorageOf<T.to>::type* __restrict__ y) {
    const Stretch<T.threads(), T.vectors, 8> stretch(block_number(), size, aligned16(x, y));
    float value[T.vectors][8];
    stretch.read(x, value);
    stretch.write(y, value);
}

}  // namespace pycnn
