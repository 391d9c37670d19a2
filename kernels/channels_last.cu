// channels_last: batch normalisation and the gradient of a bias where neighbours in memory are neighbouring channels.
//
//     channel_sum_last          of each slice of a channel: sum of dy
//     batch_norm_moments_last   mean and sum of squared distances from it
//     batch_norm_slopes_last    sum of dy, sum of dy * (x - mean)
//     channel_map_last          y = (x - mean[c]) * scale[c] / sqrt(var[c] + eps) + shift[c], and a residual and a ReLU
//     batch_norm_dx_last        dx = weight[c] / sqrt(var[c] + eps) * (dy - mean of dy - u * mean of dy * u)
//
// An array (N, C, H, W) that lies so is a matrix of N*H*W rows and C columns.  These kernels read it 16 bytes at a time,
// so C is whole vectors and every array starts at a multiple of 16 bytes; any other matrix goes through the kernels of
// channel_sum.cu and batchnorm.cu, a channel a lane.  Slices meet in the kernels that those have for it.
//
// Who owns what: a thread owns a vector of channels, `lanes` threads side by side, a power of two; a block has
// threads / lanes rows at a time, thread row r the rows r, r + rows, ... of the block's slice.
//
//        channel ->  | thread 0 | thread 1 | ... | thread lanes - 1 |
//      row           | thread lanes | ...
//      |
//      v
//
// Whatever belongs to a channel, an origin, sums, coefficients, is in the registers of its threads from the first row to
// the last.  A thread asks for several rows of each array before it uses the first.
//
// Launch      grid (tiles of lanes vectors, slices), blocks of warps * 32 threads.
// Shared      reductions: a value of a channel a warp and lane; vectors meet channel after channel in the same place.
// Determinism rows in ascending order a thread, a fixed tree a block (reduce.cuh), slices in order.
// Cost        bytes an element: 4 for sums and moments, 8 for slopes and channel_map, 4 more with a residual, 12 for dx;
//             half of that in 16 bits.
// Limit       bandwidth: 64 bytes a thread in flight, 64 of each array in the maps.  Moments merge every four rows, with
//             two divisions for all channels of a vector.
// Reference   as in batchnorm.cu.
#include "batchnorm.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct LastTile {
    int type;    // of the large arrays, as StorageOf has it
    int warps;   // in a block
    int blocks;  // on an SM

    constexpr int threads() const { return warps * 32; }
};

// How the matrix is cut.  Passed by value; pycnn/backends/cuda/reduce.py packs the same fields in the same order.
struct LastSlices {
    int64 rows, channels;
    int64 length;  // rows of a slice
    int64 lanes;   // threads side by side
};

// The calling thread's part of its block's slice: vectors of channels at `channel` in rows first, first + step, ... below
// end.  A thread past the last channel has none.
template <LastTile T>
struct LastPlace {
    static constexpr int width = vector_width<Stored<T>>();

    int64 channel, first, end, step;

    __device__ __forceinline__ explicit LastPlace(const LastSlices& s) {
        const int thread = static_cast<int>(threadIdx.x), lanes = static_cast<int>(s.lanes);
        channel = (static_cast<int64>(blockIdx.x) * lanes + thread % lanes) * width;
        first = blockIdx.y * s.length + thread / lanes;
        end = (blockIdx.y + 1) * s.length;
        if (end > s.rows) end = s.rows;
        if (channel >= s.channels) end = first;
        step = T.threads() / lanes;
    }
};

// The same vector of channels in several rows of several arrays; those that do not exist are zero.
template <LastTile T, int arrays, int ahead>
struct LastRows {
    static constexpr int width = vector_width<Stored<T>>(), most = ahead;

    float value[arrays][most][width];
    int64 row;  // of the first
    int count;
};

// visit(LastRows) for all rows of a thread, in order, `ahead` at a time.  A null pointer reads zeros.
template <LastTile T, int ahead, int arrays, typename Visit>
__device__ __forceinline__ void walk_rows(const LastSlices& s, const LastPlace<T>& place,
                                          const Stored<T>* const (&from)[arrays], const Visit& visit) {
    constexpr int width = vector_width<Stored<T>>();
#pragma unroll 1
    for (int64 n = place.first; n < place.end; n += ahead * place.step) {
        LastRows<T, arrays, ahead> rows;
        rows.row = n;
        rows.count = 0;
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            const bool exists = n + i * place.step < place.end;
            const int64 at = (n + i * place.step) * s.channels + place.channel;
            if (exists) ++rows.count;
#pragma unroll
            for (int a = 0; a < arrays; ++a) {
                float part[width] = {};
                if (exists && from[a] != nullptr) read_vector(from[a] + at, part);
#pragma unroll
                for (int v = 0; v < width; ++v) rows.value[a][i][v] = part[v];
            }
        }
        visit(rows);
    }
}

// Reduces each of a thread's values over the rows of the block, one channel after the other; row 0 has the results.
template <LastTile T, typename Value>
__device__ __forceinline__ void over_last_rows(Value (&values)[vector_width<Stored<T>>()], const LastSlices& s) {
    using Meeting = RowMeeting<Value, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const int lanes = static_cast<int>(s.lanes);
#pragma unroll
    for (int v = 0; v < vector_width<Stored<T>>(); ++v) {
        if (v > 0) __syncthreads();  // before the place is written again
        values[v] = over_rows<T.warps>(values[v], {lanes, T.threads() / lanes}, meeting);
    }
}

// Whether the calling thread writes the partial results of its channels.
template <LastTile T>
__device__ __forceinline__ bool writes_last(const LastSlices& s, const LastPlace<T>& place) {
    return threadIdx.x < s.lanes && place.channel < s.channels;
}

// partial[slice][C]: sum of dy.
template <LastTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    channel_sum_last(const LastSlices slices, const Stored<T>* __restrict__ dy, float* __restrict__ partial) {
    constexpr int width = vector_width<Stored<T>>();
    const LastPlace<T> place(slices);
    Sum sums[width] = {};
    const Stored<T>* const from[] = {dy};
    walk_rows<T, 4>(slices, place, from, [&](const auto& rows) {
#pragma unroll
        for (int v = 0; v < width; ++v) {
            float part = 0.0f;  // what is absent is zero
#pragma unroll
            for (const auto& row : rows.value[0]) part += row[v];
            sums[v].value += part;
        }
    });
    over_last_rows<T>(sums, slices);
    if (!writes_last(slices, place)) return;
    float* to = partial + blockIdx.y * slices.channels + place.channel;
#pragma unroll
    for (int v = 0; v < width; ++v) to[v] = sums[v].value;
}

// partial[slice][0][C]: mean - x[0, c]; partial[slice][1][C]: sum of squared distances.
template <LastTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_moments_last(const LastSlices slices, const Stored<T>* __restrict__ x, float* __restrict__ partial) {
    constexpr int width = vector_width<Stored<T>>();
    const LastPlace<T> place(slices);
    float origin[width] = {};
    if (place.channel < slices.channels) read_vector(x + place.channel, origin);
    int count = 0;
    float mean[width] = {}, squares[width] = {};
    const Stored<T>* const from[] = {x};
    walk_rows<T, 4>(slices, place, from, [&](const auto& rows) {
        // As Moments::merge has it; what depends on the counts alone is for all channels of the vector.
        const float each = 1.0f / static_cast<float>(rows.count);
        const float share = static_cast<float>(rows.count) / static_cast<float>(count + rows.count);
        const float weight = static_cast<float>(count) * share;
        count += rows.count;
#pragma unroll
        for (int v = 0; v < width; ++v) {
            float sum = 0.0f, around = 0.0f;
#pragma unroll
            for (int i = 0; i < rows.most; ++i) {
                if (i < rows.count) sum += rows.value[0][i][v] - origin[v];
            }
            const float middle = sum * each;
#pragma unroll
            for (int i = 0; i < rows.most; ++i) {
                const float distance = (rows.value[0][i][v] - origin[v]) - middle;
                if (i < rows.count) around = fmaf(distance, distance, around);
            }
            const float distance = middle - mean[v];
            squares[v] += around + distance * distance * weight;
            mean[v] = fmaf(distance, share, mean[v]);
        }
    });
    Moments moments[width];
#pragma unroll
    for (int v = 0; v < width; ++v) moments[v] = {count, mean[v], squares[v]};
    over_last_rows<T>(moments, slices);
    if (!writes_last(slices, place)) return;
    float* to = partial + 2 * blockIdx.y * slices.channels + place.channel;
#pragma unroll
    for (int v = 0; v < width; ++v) {
        to[v] = moments[v].mean;
        to[slices.channels + v] = moments[v].squares;
    }
}

// partial[slice][0][C]: sum of dy; partial[slice][1][C]: sum of dy * (x - mean).
template <LastTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_slopes_last(const LastSlices slices, const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x,
                           const float* __restrict__ mean, float* __restrict__ partial) {
    constexpr int width = vector_width<Stored<T>>();
    const LastPlace<T> place(slices);
    float centre[width] = {};
#pragma unroll
    for (int v = 0; v < width; ++v) {
        if (place.channel < slices.channels) centre[v] = mean[place.channel + v];
    }
    TwoSums sums[width] = {};
    const Stored<T>* const from[] = {dy, x};
    walk_rows<T, 2>(slices, place, from, [&](const auto& rows) {
#pragma unroll
        for (int v = 0; v < width; ++v) {
            TwoSums part{0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < rows.most; ++i) {  // dy is zero where there is none
                part.first += rows.value[0][i][v];
                part.second = fmaf(rows.value[0][i][v], rows.value[1][i][v] - centre[v], part.second);
            }
            sums[v].merge(part);
        }
    });
    over_last_rows<T>(sums, slices);
    if (!writes_last(slices, place)) return;
    float* to = partial + 2 * blockIdx.y * slices.channels + place.channel;
#pragma unroll
    for (int v = 0; v < width; ++v) {
        to[v] = sums[v].first;
        to[slices.channels + v] = sums[v].second;
    }
}

// Writes element(i, v), channel v of the i-th of these rows.
template <LastTile T, typename Rows, typename Element>
__device__ __forceinline__ void write_rows(const LastSlices& s, const LastPlace<T>& place, const Rows& rows,
                                           Stored<T>* to, const Element& element) {
#pragma unroll
    for (int i = 0; i < Rows::most; ++i) {
        float value[Rows::width];
#pragma unroll
        for (int v = 0; v < Rows::width; ++v) value[v] = element(i, v);
        if (i < rows.count) write_vector(to + (rows.row + i * place.step) * s.channels + place.channel, value);
    }
}

// The parameters behind x are those of channel_map in batchnorm.cu.
template <LastTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    channel_map_last(const LastSlices slices, const float eps, const Stored<T>* __restrict__ x,
                     const float* __restrict__ mean, const float* __restrict__ low, const float* __restrict__ var,
                     const float* __restrict__ scale, const float* __restrict__ shift,
                     const Stored<T>* __restrict__ residual, const int64 relu, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const LastPlace<T> place(slices);
    if (place.first >= place.end) return;
    const ChannelCoefficients given{mean, low, var, scale, shift, eps};
    ChannelLine line[width];
#pragma unroll
    for (int v = 0; v < width; ++v) line[v] = ChannelLine(given, place.channel + v);
    const Stored<T>* const from[] = {x, residual};
    walk_rows<T, 4>(slices, place, from, [&](const auto& rows) {
        write_rows<T>(slices, place, rows, y, [&](int i, int v) {
            float value = line[v].at(rows.value[0][i][v]);
            if (residual != nullptr) value += rows.value[1][i][v];
            return relu && value <= 0.0f ? 0.0f : value;  // NaN stays
        });
    });
}

template <LastTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_dx_last(const LastSlices slices, const float eps, const float per_element,
                       const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x,
                       const float* __restrict__ weight, const float* __restrict__ mean, const float* __restrict__ var,
                       const float* __restrict__ dweight, const float* __restrict__ dbias, Stored<T>* __restrict__ dx) {
    constexpr int width = vector_width<Stored<T>>();
    const LastPlace<T> place(slices);
    if (place.first >= place.end) return;
    const ChannelSlopes given{weight, mean, var, dweight, dbias, eps, per_element};
    ChannelTangent tangent[width];
#pragma unroll
    for (int v = 0; v < width; ++v) tangent[v] = ChannelTangent(given, place.channel + v);
    const Stored<T>* const from[] = {dy, x};
    walk_rows<T, 4>(slices, place, from, [&](const auto& rows) {
        write_rows<T>(slices, place, rows, dx,
                      [&](int i, int v) { return tangent[v].at(rows.value[0][i][v], rows.value[1][i][v]); });
    });
}

}  // namespace pycnn
