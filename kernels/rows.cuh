// Arrays (outer, length, inner) seen by their middle axis: who walks along it, for softmax and for one-hot gradients.
//
// A block's threads are groups x rows x lanes (reduce.cuh).  A group owns `lanes` neighbours of the inner axis at one
// place of the outer, lane l the l-th of them, and its rows share the length:
//
//      inner = 1: a group reads a run of memory         inner >= 32: each row reads 32 neighbours
//          length -> row 0 | row 1 | row 2 | row 0 ...      length   lane 0 1 2 ...
//                                                             |      row 0
//                                                             v      row 1
//                                                                    row 0
//
// The host chooses lanes by inner and rows by length, so that a short axis takes few threads and a block many groups.
#pragma once

#include "reduce.cuh"
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct RowsTile {
    int type;    // of the arrays, as StorageOf has it
    int warps;   // in a block
    int blocks;  // on an SM

    constexpr int threads() const { return warps * 32; }
};

// Passed by value; pycnn/backends/cuda/layout.py packs the same fields in the same order.
struct RowsShape {
    int64 outer, length, inner;
    int64 lanes, rows;

    __device__ __forceinline__ RowLayout layout() const { return {static_cast<int>(lanes), static_cast<int>(rows)}; }
};

// The calling thread's share: places base + k * step for k = row, row + rows, ... below length.
struct RowsPlace {
    int64 outer, inner, base;
    int row;
    int64 length;  // 0 for a thread that has none
};

template <RowsTile T>
__device__ __forceinline__ RowsPlace rows_place(const RowsShape& s) {
    const RowLayout layout = s.layout();
    const int thread = static_cast<int>(threadIdx.x), together = layout.lanes * layout.rows;
    const int64 item = block_number() * (T.threads() / together) + thread / together;
    const int64 tiles = (s.inner + layout.lanes - 1) / layout.lanes;
    RowsPlace place;
    place.outer = tiles == 1 ? item : item / tiles;
    place.inner = (item - place.outer * tiles) * layout.lanes + thread % layout.lanes;
    place.base = place.outer * s.length * s.inner + place.inner;
    place.row = thread / layout.lanes % layout.rows;
    place.length = place.outer < s.outer && place.inner < s.inner ? s.length : 0;
    return place;
}

}  // namespace pycnn
