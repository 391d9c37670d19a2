// Where the taps of a filter look: what kernels share that never store columns, on whatever units they multiply.
#pragma once

#include "common.cuh"

namespace pycnn {

// Somewhere in an image, or a step from there.  `other` is an offset in the other operand, negative past the end of k.
template <typename Index>
struct alignas(16) Place {
    Index offset, h, w, other;
};

// A row outside of every image, however often it is added to another row.
template <typename Index>
__device__ __forceinline__ Index nowhere() {
    return -(static_cast<Index>(1) << (8 * sizeof(Index) - 2));
}

// A ring of places along k: four tiles, which is as many as are ever prepared and not yet copied, or more.
template <int tile_k, typename Index>
struct PlaceRing {
    Place<Index> place[4][tile_k];

    __device__ __forceinline__ const Place<Index>& at(Index tile, int k) const {
        return place[static_cast<int>(tile) & 3][k];
    }

    // Works out a tile's places, a thread each, by another warp each time.
    template <int threads, typename PlaceOf>
    __device__ __forceinline__ void prepare(Index tile, const PlaceOf& place_of) {
        static_assert((threads & (threads - 1)) == 0 && tile_k <= 32, "a warp prepares a tile");
        const int k = (static_cast<int>(threadIdx.x) - 32 * static_cast<int>(tile)) & (threads - 1);
        if (k < tile_k) place[static_cast<int>(tile) & 3][k] = place_of(tile * tile_k + k);
    }
};

}  // namespace pycnn
