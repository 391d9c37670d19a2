// master: the float32 copies that optimisers step in place of 16-bit parameters, many arrays in one launch.
//
//     take_over   copy = parameter       where the parameter is not the rounded copy: someone else has written it
//     widen_all   wide = half            gradients of 16 bits, for the kernels of optimizer.cu
//     round_all   parameter = copy       rounded to nearest even
//
// Who owns what: a block owns a chunk of one array, drawn in tensors.cuh, a thread of it what stream.cuh draws.
//
// Launch      one block a chunk of warps * 256 * vectors elements of each of up to kArrays arrays.
// Shared      none.
// Determinism each element by one thread.
// Cost        bytes an element: 6; take_over 4 more where something is taken over.
// Limit       bandwidth: vectors * 48 bytes a thread are in flight.
// Reference   Micikevicius et al., "Mixed Precision Training", 2018, section 3.1.
#include "tensors.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct MasterTile {
    int type;     // of the parameters, as StorageOf has it
    int vectors;  // of eight elements, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

enum { kArrays = 64 };  // in one launch

using Targets = Arrays<kArrays>;

template <MasterTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    take_over(const Targets arrays, const Pointers<float, kArrays> copies,
              const Pointers<const Stored<T>, kArrays> params) {
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    const Stored<T>* p = params.pointer[array];
    float* m = copies.pointer[array];
    const Stretch<T.threads(), T.vectors, 8> stretch(block - arrays.first[array], arrays.size[array], aligned16(p, m));
    float param[T.vectors][8], copy[T.vectors][8];
    stretch.read(p, param);
    stretch.read(m, copy);
    bool same = true;
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            if (to_float(from_float<Stored<T>>(copy[i][e])) == param[i][e]) continue;  // not so for a NaN
            copy[i][e] = param[i][e];
            same = false;
        }
    }
    if (!same) stretch.write(m, copy);
}

template <MasterTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    widen_all(const Targets arrays, const Pointers<float, kArrays> wides,
              const Pointers<const Stored<T>, kArrays> halves) {
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    const Stored<T>* x = halves.pointer[array];
    float* y = wides.pointer[array];
    const Stretch<T.threads(), T.vectors, 8> stretch(block - arrays.first[array], arrays.size[array], aligned16(x, y));
    float value[T.vectors][8];
    stretch.read(x, value);
    stretch.write(y, value);
}

template <MasterTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    round_all(const Targets arrays, const Pointers<Stored<T>, kArrays> params,
              const Pointers<const float, kArrays> copies) {
    const int block = static_cast<int>(blockIdx.x), array = array_of(arrays, block);
    Stored<T>* p = params.pointer[array];
    const float* m = copies.pointer[array];
    const Stretch<T.threads(), T.vectors, 8> stretch(block - arrays.first[array], arrays.size[array], aligned16(p, m));
    float value[T.vectors][8];
    stretch.read(m, value);
    stretch.write(p, value);
}

}  // namespace pycnn
