// The heart of every matrix product on tensor cores: a block's tile of the result, summed by its warps from tiles in
// shared memory.
//
//     sum[m][n] = sum over k of a(m, k) * b(k, n)        m < tile_m, n < tile_n
//
// What a and b are is up to their loaders (tensor_conv.cuh), which bring tile_k values of k at a time into shared
// memory, in chunks of 16 bytes.
//
// Arithmetic      elements    products                                                             sums
//     1 float16   float16     exact                                                                in the tensor cores
//     2 bfloat16  bfloat16    exact                                                                in the tensor cores
//     3 tf32      float32     of operands rounded to 11 bits                                       in the tensor cores
//     4 3xtf32    float32     of operands split in two, x = high + low, each rounded to 11 bits:   in registers
//                             a*b = high*high + high*low + low*high, 2^-22 of |a||b| left out
//     5 3xfp16    float32     the same with x = high + low / 2^11 in float16, which multiplies     in registers
//                             twice as fast: for |x| up to 65504, and below 2^-14 to within 2^-36
//
// Tensor cores round sums toward zero.  Split products therefore start each tile of k anew, and add the tile's sum up in
// float32 registers; those of 3xtf32 the small terms of a step first, those of 3xfp16 the corrections apart, for their
// scale.  A register of 3xfp16 holds two float32 neighbours along k of what the same reads of 3xtf32 bring: which k that
// are is all the same, as long as it is so on both sides.
//
// Who owns what (tile 128 x 128, 8 warps as 2 x 4): a warp owns 64 x 32 as 4 x 4 fragments of 16 x 8 (see arch/mma.cuh
// for what each of its threads holds).
//
//        tile_n = 128
//      +-----+-----+-----+-----+
//      | w0  | w2  | w4  | w6  |  64       one step: 4 reads of a's fragments, 2 of b's, two at a time; 16 products
//      +-----+-----+-----+-----+
//      | w1  | w3  | w5  | w7  |
//      +-----+-----+-----+-----+
//
// Shared memory   An operand lies along k (a row for each m or n) or across (a row for each k), whichever way its
//                 elements lie side by side in memory.  Chunks are permuted within the 128 bytes of a line, so that
//                 neither the copies nor ldmatrix meet a bank twice:
//
//                     chunk c of row r goes to         c ^ (r % 8)                    rows of 128 bytes and more
//                                                      c ^ (r / 2 % 4)                rows of 64 bytes
//                                                      c ^ (2*(r % 4) + r / 4 % 2)    across, 32 bits: ldmatrix cannot
//                                                                                     transpose those; four rows of two
//                                                                                     chunks are read by themselves
// Pipeline        `stages` tiles of k: stages - 1 are on their way while one is used.  One barrier a tile.  A loader
//                 that copies by way of registers reads before a tile is multiplied and writes after it.
// Reference       Kerr et al., "CUTLASS: fast linear algebra in CUDA C++", 2017; Ootomo & Yokota, "Recovering single
//                 precision accuracy from tensor cores while surpassing the FP32 theoretical peak performance", IJHPCA
//                 36(4), 2022, section 3 (the split, and sums outside of the tensor cores).
#pragma once

#include "arch/cp_async.cuh"
#include "arch/ldmatrix.cuh"
#include "arch/mma.cuh"
#include "common.cuh"

namespace pycnn {

// What a product is computed in, by a tile's `arithmetic`.
template <int arithmetic>
struct Arithmetic;
template <>
struct Arithmetic<1> {
    using Element = float16;
    using Number = float16;
    static constexpr bool split = false;
};
template <>
struct Arithmetic<2> {
    using Element = bfloat16;
    using Number = bfloat16;
    static constexpr bool split = false;
};
template <>
struct Arithmetic<3> {
    using Element = float;
    using Number = tf32;
    static constexpr bool split = false;
};
template <>
struct Arithmetic<4> {
    using Element = float;
    using Number = tf32;
    static constexpr bool split = true;
};
template <>
struct Arithmetic<5> {
    using Element = float;
    using Number = float16;
    static constexpr bool split = true;
};

struct TensorTile {
    int arithmetic;
    int tile_m, tile_n, tile_k;  // of a block
    int warps, warps_m;          // in a block, and how many of them one above another
    int stages;                  // tiles of k in shared memory

    constexpr int threads() const { return warps * 32; }
    constexpr int warp_m() const { return tile_m / warps_m; }
    constexpr int warp_n() const { return tile_n * warps_m / warps; }
    constexpr bool sound() const {
        return warp_m() % 16 == 0 && warp_n() % 16 == 0 && warps % warps_m == 0 && stages >= 2 && stages <= 4;
    }
};

// A tile of an operand in shared memory: `extent` of m or n by tile_k of k, in chunks of 16 bytes.  `came_split`: what is
// multiplied lies there (see split_filters.cu), and not what has to be rounded or split first.
template <typename Element, int extent, int tile_k, bool along_k, bool came_split = false>
struct OperandTile {
    static constexpr int chunk = 16 / static_cast<int>(sizeof(Element));  // elements
    static constexpr int rows = along_k ? extent : tile_k, columns = (along_k ? tile_k : extent) / chunk;

    using Type = Element;
    static constexpr bool is_split = came_split;
    Element value[rows][columns * chunk];

    static __device__ __forceinline__ int place(int row, int column) {
        if constexpr (!along_k && sizeof(Element) == 4)
            return column ^ (row % 4 * 2 + row / 4 % 2);
        else
            return column ^ (columns >= 8 ? row % 8 : row / 2 % 4);
    }
    __device__ __forceinline__ Element* at(int row, int column) { return &value[row][place(row, column) * chunk]; }
    __device__ __forceinline__ const Element* at(int row, int column) const {
        return &value[row][place(row, column) * chunk];
    }
    // Element (m or n, k) of an operand across.
    __device__ __forceinline__ uint32 bits(int extent_index, int k) const {
        return static_cast<uint32>(__float_as_int(at(k, extent_index / chunk)[extent_index % chunk]));
    }
    static_assert(columns % 4 == 0 && (columns == 4 ? along_k : columns % 8 == 0), "lines of 128 bytes");
};

// Reads the fragments of a 16 x k product's left side, from row m0 of the tile on.
template <typename Element, int extent, int tile_k, bool along_k, bool came_split>
__device__ __forceinline__ void read_left(uint32 (&a)[4],
                                          const OperandTile<Element, extent, tile_k, along_k, came_split>& tile, int m0,
                                          int step) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (along_k) {
        ldmatrix(a, tile.at(m0 + lane % 16, 2 * step + lane / 16));
    } else if constexpr (sizeof(Element) == 2) {
        ldmatrix_trans(a, tile.at(16 * step + lane / 16 * 8 + lane % 8, m0 / 8 + lane / 8 % 2));
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = tile.bits(m0 + lane / 4 + i % 2 * 8, 8 * step + lane % 4 + i / 2 * 4);
    }
}

// Reads the fragments of two k x 8 products' right sides, neighbours, from column n0 of the tile on.
template <typename Element, int extent, int tile_k, bool along_k, bool came_split>
__device__ __forceinline__ void read_right(uint32 (&b0)[2], uint32 (&b1)[2],
                                           const OperandTile<Element, extent, tile_k, along_k, came_split>& tile,
                                           int n0, int step) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (along_k || sizeof(Element) == 2) {
        uint32 r[4];
        if constexpr (along_k)
            ldmatrix(r, tile.at(n0 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
        else
            ldmatrix_trans(r, tile.at(16 * step + lane / 8 % 2 * 8 + lane % 8, n0 / 8 + lane / 16));
        b0[0] = r[0], b0[1] = r[1], b1[0] = r[2], b1[1] = r[3];
    } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            b0[i] = tile.bits(n0 + lane / 4, 8 * step + lane % 4 + 4 * i);
            b1[i] = tile.bits(n0 + 8 + lane / 4, 8 * step + lane % 4 + 4 * i);
        }
    }
}

// A float32's bits become those of its high part, rounded to tf32; what is left, rounded likewise, is its low part.
// NaN, infinities and the last numbers before them, which would round to one, are all high: a product reads 11 bits of
// them.  NaN stays NaN, but an infinity times a low part of zero is NaN too.
__device__ __forceinline__ void split_tf32(uint32& high, uint32& low) {
    const auto rounded = [](uint32 bits) { return (bits + 0x1000u) & ~0x1FFFu; };
    const uint32 bits = high, nearest = rounded(bits);
    const bool parted = (bits & 0x7FFFFFFFu) < 0x7F7FF000u;
    const float left = __int_as_float(static_cast<int>(bits)) - __int_as_float(static_cast<int>(nearest));
    high = parted ? nearest : bits;
    low = parted ? rounded(static_cast<uint32>(__float_as_int(left))) : 0u;
}

// Two float32 become the float16 high parts that a register holds; what is left, 2^11 times, their low parts.  What is
// beyond float16 is all high: infinite.
__device__ __forceinline__ void split_float16(uint32& high, uint32& low, uint32 first, uint32 second) {
    const float x[2] = {__int_as_float(static_cast<int>(first)), __int_as_float(static_cast<int>(second))};
    high = pack<float16>(x[0], x[1]);
    float left[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const unsigned short bits = static_cast<unsigned short>(high >> 16 * i);
        left[i] = (bits & 0x7C00u) == 0x7C00u ? 0.0f : (x[i] - to_float(float16{bits})) * 2048.0f;
    }
    low = pack<float16>(left[0], left[1]);
}

// Two words of which each holds a high part and, above it, a low part.
__device__ __forceinline__ void take_float16(uint32& high, uint32& low, uint32 first, uint32 second) {
    high = (first & 0xFFFFu) | second << 16;
    low = first >> 16 | (second & 0xFFFF0000u);
}

template <TensorTile T>
struct TensorSums {
    static constexpr int fragments_m = T.warp_m() / 16, fragments_n = T.warp_n() / 8;
    float value[fragments_m][fragments_n][4] = {};
};

// An operand's fragments at one step of k: what is multiplied.
template <int arithmetic, int count, int registers>
struct Fragments {
    using A = Arithmetic<arithmetic>;
    static constexpr bool paired = arithmetic == 5;  // two steps of 32-bit elements are one of 16-bit ones
    uint32 high[count][registers];
    uint32 low[A::split ? count : 1][registers];

    // What was read, whole, becomes what is multiplied.
    __device__ __forceinline__ void round() {
#pragma unroll
        for (int i = 0; i < count * registers; ++i) {
            uint32& bits = high[i / registers][i % registers];
            if constexpr (arithmetic == 4)
                split_tf32(bits, low[i / registers][i % registers]);
            else if constexpr (arithmetic == 3)
                bits = tf32_bits(__int_as_float(static_cast<int>(bits)));
        }
    }

    // Two registers of one step and two of the next become fragment i's registers `at` and `at` + registers / 2.
    template <bool came_split>
    __device__ __forceinline__ void pair(int i, int at, uint32 first, uint32 second, uint32 third, uint32 fourth) {
        constexpr auto put = came_split ? take_float16 : split_float16;
        put(high[i][at], low[i][at], first, second);
        put(high[i][at + registers / 2], low[i][at + registers / 2], third, fourth);
    }
};

template <int arithmetic, int count, typename Tile, int parts>
__device__ __forceinline__ void read_lefts(Fragments<arithmetic, count, 4>& left, const Tile (&a)[parts], int m0,
                                           int step) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
        if constexpr (arithmetic == 5) {
            uint32 one[4], next[4];
            read_left(one, a[0], m0 + 16 * i, 2 * step);
            read_left(next, a[0], m0 + 16 * i, 2 * step + 1);
#pragma unroll
            for (int at = 0; at < 2; ++at)
                left.template pair<Tile::is_split>(i, at, one[at], one[at + 2], next[at], next[at + 2]);
        } else {
            read_left(left.high[i], a[0], m0 + 16 * i, step);
            if constexpr (parts == 2) read_left(left.low[i], a[1], m0 + 16 * i, step);
        }
    }
    if constexpr (!Tile::is_split) left.round();
}

template <int arithmetic, int count, typename Tile, int parts>
__device__ __forceinline__ void read_rights(Fragments<arithmetic, count, 2>& right, const Tile (&b)[parts], int n0,
                                            int step) {
#pragma unroll
    for (int j = 0; j < count; j += 2) {
        if constexpr (arithmetic == 5) {
            uint32 one[2][2], next[2][2];
            read_right(one[0], one[1], b[0], n0 + 8 * j, 2 * step);
            read_right(next[0], next[1], b[0], n0 + 8 * j, 2 * step + 1);
#pragma unroll
            for (int i = 0; i < 2; ++i)
                right.template pair<Tile::is_split>(j + i, 0, one[i][0], one[i][1], next[i][0], next[i][1]);
        } else {
            read_right(right.high[j], right.high[j + 1], b[0], n0 + 8 * j, step);
            if constexpr (parts == 2) read_right(right.low[j], right.low[j + 1], b[1], n0 + 8 * j, step);
        }
    }
    if constexpr (!Tile::is_split) right.round();
}

// Adds up one tile of k.  An operand is one tile, or, where it came split for 3xtf32, two: the high parts and the low.
template <TensorTile T, typename TileA, int parts_a, typename TileB, int parts_b>
__device__ __forceinline__ void multiply_tile(TensorSums<T>& sums, const TileA (&a)[parts_a],
                                              const TileB (&b)[parts_b]) {
    using A = Arithmetic<T.arithmetic>;
    using Number = typename A::Number;
    constexpr int fragments_m = TensorSums<T>::fragments_m, fragments_n = TensorSums<T>::fragments_n;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int m0 = warp % T.warps_m * T.warp_m(), n0 = warp / T.warps_m * T.warp_n();
    TensorSums<T> main, corrections;  // of this tile, where the arithmetic splits
#pragma unroll
    for (int step = 0; step < T.tile_k / MmaShape<Number>::k; ++step) {
        Fragments<T.arithmetic, fragments_m, 4> left;
        Fragments<T.arithmetic, fragments_n, 2> right;
        read_lefts(left, a, m0, step);
        read_rights(right, b, n0, step);
#pragma unroll
        for (int i = 0; i < fragments_m; ++i)
#pragma unroll
            for (int j = 0; j < fragments_n; ++j) {
                if constexpr (A::split) {
                    auto& small = T.arithmetic == 5 ? corrections : main;
                    mma<Number>(small.value[i][j], left.low[i], right.high[j]);
                    mma<Number>(small.value[i][j], left.high[i], right.low[j]);
                    mma<Number>(main.value[i][j], left.high[i], right.high[j]);
                } else {
                    mma<Number>(sums.value[i][j], left.high[i], right.high[j]);
                }
            }
    }
    if constexpr (A::split)
#pragma unroll
        for (int i = 0; i < fragments_m; ++i)
#pragma unroll
            for (int j = 0; j < fragments_n; ++j)
#pragma unroll
                for (int l = 0; l < 4; ++l) {
                    float tile = main.value[i][j][l];
                    if constexpr (T.arithmetic == 5) tile = fmaf(corrections.value[i][j][l], 1.0f / 2048.0f, tile);
                    sums.value[i][j][l] += tile;
                }
}

// What a block's operands take of shared memory.
template <TensorTile T, typename TileA, int parts_a, typename TileB, int parts_b>
struct alignas(128) TensorStages {
    TileA a[T.stages][parts_a];
    TileB b[T.stages][parts_b];
};

// Adds up `tiles` tiles of k, which two loaders bring to shared memory in ascending order:
//
//     fetch(tile, to)      starts the tile's copies by cp.async, zero past every edge, or reads it into registers
//     deposit(to)          what fetch() left in registers goes to shared memory
//
// prepare(tile) works something out for them, at least one barrier before.
template <TensorTile T, typename Index, typename Stages, typename LoadA, typename LoadB, typename Prepare>
__device__ __forceinline__ void tensor_mainloop(TensorSums<T>& sums, Stages& shared, Index tiles, LoadA& a, LoadB& b,
                                                const Prepare& prepare) {
    static_assert(T.sound(), "the tile does not fall apart into warps and fragments");
#pragma unroll
    for (int stage = 0; stage < T.stages; ++stage) prepare(static_cast<Index>(stage));
    __syncthreads();
#pragma unroll
    for (int stage = 0; stage < T.stages - 1; ++stage) {
        if (stage < tiles) {
            a.fetch(stage, shared.a[stage]);
            b.fetch(stage, shared.b[stage]);
            a.deposit(shared.a[stage]);
            b.deposit(shared.b[stage]);
        }
        cp_async_commit();
    }

    int used = 0, filled = T.stages - 1;  // stages
#pragma unroll 1
    for (Index tile = 0; tile < tiles; ++tile) {
        cp_async_wait<T.stages - 2>();
        __syncthreads();  // everyone's copies of this tile are there, and nobody uses the tile before it any more
        const bool more = tile + T.stages - 1 < tiles;
        if (more) {
            a.fetch(tile + T.stages - 1, shared.a[filled]);
            b.fetch(tile + T.stages - 1, shared.b[filled]);
        }
        cp_async_commit();
        prepare(tile + T.stages);
        multiply_tile<T>(sums, shared.a[used], shared.b[used]);
        if (more) {
            a.deposit(shared.a[filled]);
            b.deposit(shared.b[filled]);
        }
        used = used + 1 == T.stages ? 0 : used + 1;
        filled = filled + 1 == T.stages ? 0 : filled + 1;
    }
    cp_async_wait<0>();
    __syncthreads();  // the memory may be used for something else
}

}  // namespace pycnn
