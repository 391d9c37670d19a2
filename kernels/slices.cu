// sum_slices: adds up the partial results of a split reduction, always in the same order: float32, the sum
// in float32 or rounded once to 16 bits.
//
//     out[i] = slices[0][i] + slices[1][i] + ... + slices[count - 1][i]
//
// Who owns what   thread i of the grid owns out[i]; a block owns warps * 32 neighbours.
//
//          i = 0 1 2 3 ...                           size - 1
//      slices[0]  + + + + + + + + + + + + + + + + + + +
//      slices[1]  + + + + + + + + + + + + + + + + + + +      each thread walks down its column
//         ...     |
//      out        v
//
// Launch      ceil(size / (warps * 32)) blocks; past 2^31 - 1 the grid goes on along y.
// Shared      none.
// Determinism one thread sums each result, in the order of the slices: bit for bit the same in every run.
// Cost        count * size additions.
// Limit       bandwidth: count * size * 4 bytes read, and size * 4 or 2 written.
#include "arch/half.cuh"

namespace pycnn {

struct SlicesTile {
    int type;   // of the sum, as StorageOf has it
    int warps;  // of a block

    constexpr int threads() const { return warps * 32; }
};

template <SlicesTile T>
__global__ void __launch_bounds__(T.threads())
    sum_slices(const int64 count, const int64 size, const float* __restrict__ slices, Stored<T>* __restrict__ out) {
    const int64 block = static_cast<int64>(blockIdx.y) * gridDim.x + blockIdx.x;
    const int64 i = block * T.threads() + threadIdx.x;
    if (i >= size) return;
    float sum = 0.0f;
    for (int64 slice = 0; slice < count; ++slice) sum += slices[slice * size + i];
    out[i] = from_float<Stored<T>>(sum);
}

}  // namespace pycnn
