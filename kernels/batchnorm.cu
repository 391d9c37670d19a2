// batchnorm: normalisation of each channel over the batch, its gradients, and maps with one coefficient a channel.
//
//     batch_norm_moments      of each slice of a channel: mean and sum of squared distances from it
//     batch_norm_statistics   mean[c], var[c] (biased) from the slices' moments
//     channel_map             y = (x - mean[c]) * scale[c] / sqrt(var[c] + eps) + shift[c]; what is null is left out;
//                             with `finish`, y + residual and max(y, 0) where asked for
//     batch_norm_slopes       of each slice of a channel: sum of dy, sum of dy * (x - mean)
//     batch_norm_gradients    dbias[c] and dweight[c] = sum of dy * u from the slices' sums
//     batch_norm_dx           dx = weight[c] / sqrt(var[c] + eps) * (dy - mean of dy - u * mean of dy * u)
//     with u = (x - mean[c]) / sqrt(var[c] + eps)
//
// x, y, dy, dx and a residual are float32, float16 or bfloat16; whatever has one value a channel is float32, and so are
// all sums.  16 bits are rounded once, when y or dx is stored; so a residual and a ReLU have to come before that.
//
// Statistics in one pass.  A thread takes the mean and the squared distances of up to 16 elements while they are in its
// registers, then merges them into what it has (Chan et al.), so no sum of squares is ever taken far from the mean.
// All of it is done on x - x[0, c, 0]: where a channel lies far from zero beside its spread, the difference is exact
// and small, and the mean comes out as the float32 `mean` plus a remainder `low` that float32 could not hold.  A NaN or
// an infinity makes the statistics of its channel NaN.
//
// Who owns what: channels.cuh has the drawings of reductions, stream.cuh that of maps; statistics and gradients have a
// thread a channel.
//
// Launch      reductions: grid (channels or tiles of 32; slices; more channels past 2^31 - 1).  Others: a thread or
//             stretch each, the grid going on along y.
// Shared      moments: 16 bytes a warp and lane; slopes: 8.
// Determinism elements in ascending order a thread, a fixed tree a block (reduce.cuh), slices in order.
// Cost        bytes an element: 4 for moments, 8 for channel_map and 4 more with a residual, 8 for slopes, 12 for dx;
//             half of that in 16 bits.
// Limit       bandwidth.  Moments and slopes keep 64 bytes a thread and array in flight, 32 where no vectors may be
//             (channels.cuh), half of either in 16 bits; the maps vectors * 16 bytes (stream.cuh), and divide an index
//             once for a vector.
// Reference   Ioffe & Szegedy, "Batch normalization", 2015; Chan, Golub & LeVeque, 1979 (reduce.cuh).
#include "batchnorm.cuh"

namespace pycnn {

// A kernel with a thread a channel.
struct PerChannelTile {
    int type;   // of x, as StorageOf has it
    int warps;  // in a block

    constexpr int threads() const { return warps * 32; }
};

// What to subtract from the elements of a channel before looking at them closely.
template <typename Type>
__device__ __forceinline__ float origin_of(const ChannelSlices& slices, int64 channel, const Type* x) {
    return to_float(x[channel * slices.L]);
}

// partial[slice][0][C]: mean - origin; partial[slice][1][C]: sum of squared distances.
template <ChannelTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_moments(const ChannelSlices slices, const Stored<T>* __restrict__ x, float* __restrict__ partial) {
    using Meeting = RowMeeting<Moments, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const int64 channel = reduced_channel<T>();
    Moments moments{0, 0.0f, 0.0f};
    if (channel < slices.C) {
        const float origin = origin_of(slices, channel, x);
        const Stored<T>* const from[] = {x};
        walk_channel<T>(slices, channel, from, [&](const auto& visited) {
            constexpr int most = sizeof(visited.value) / sizeof(float);
            float sum = 0.0f, squares = 0.0f;
#pragma unroll
            for (int i = 0; i < most; ++i) {
                if (i < visited.count) sum += visited.value[0][i] - origin;
            }
            const float mean = sum / static_cast<float>(visited.count);
#pragma unroll
            for (int i = 0; i < most; ++i) {
                const float distance = (visited.value[0][i] - origin) - mean;
                if (i < visited.count) squares = fmaf(distance, distance, squares);
            }
            moments.merge({visited.count, mean, squares});
        });
    }
    moments = over_rows<T.warps>(moments, T.layout(), meeting);
    if (writes_partial<T>() && channel < slices.C) {
        float* to = partial + 2 * blockIdx.y * slices.C + channel;
        to[0] = moments.mean;
        to[slices.C] = moments.squares;
    }
}

template <PerChannelTile T>
__global__ void __launch_bounds__(T.threads())
    batch_norm_statistics(const ChannelSlices slices, const int64 count, const Stored<T>* __restrict__ x,
                          const float* __restrict__ partial, float* __restrict__ mean, float* __restrict__ low,
                          float* __restrict__ var) {
    const int64 channel = block_number() * T.threads() + threadIdx.x;
    if (channel >= slices.C) return;
    Moments moments{0, 0.0f, 0.0f};
    for (int i = 0; i < static_cast<int>(count); ++i) {
        const ChannelSlice slice = slice_of(slices, i);
        const float* from = partial + 2 * i * slices.C + channel;
        moments.merge({(slice.n_end - slice.n) * (slice.l_end - slice.l), from[0], from[slices.C]});
    }
    const float origin = origin_of(slices, channel, x);
    const float rounded = origin + moments.mean;
    mean[channel] = rounded;
    low[channel] = (origin - rounded) + moments.mean;
    var[channel] = moments.squares / static_cast<float>(moments.count);
}

template <ChannelMapTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    channel_map(const ChannelGrid grid, const float eps, const Stored<T>* __restrict__ x,
                const float* __restrict__ mean, const float* __restrict__ low, const float* __restrict__ var,
                const float* __restrict__ scale, const float* __restrict__ shift,
                const Stored<T>* __restrict__ residual, const int64 relu, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const ChannelCoefficients given{mean, low, var, scale, shift, eps};
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), grid.size, aligned16(x, y, residual));
    float value[T.vectors][width], added[T.vectors][width] = {};
    stretch.read(x, value);
    if (T.finish && residual != nullptr) stretch.read(residual, added);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        ChannelCursor<T.wide> cursor(stretch.place(i), grid);
        ChannelLine line(given, cursor.channel);
#pragma unroll
        for (int v = 0; v < width; ++v) {
            if (v > 0 && cursor.advance(grid)) line = ChannelLine(given, cursor.channel);
            float& each = value[i][v];
            each = line.at(each);
            if (T.finish && residual != nullptr) each += added[i][v];
            if (T.finish && relu && each <= 0.0f) each = 0.0f;  // NaN stays
        }
    }
    stretch.write(y, value);
}

// partial[slice][0][C]: sum of dy; partial[slice][1][C]: sum of dy * (x - mean).
template <ChannelTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_slopes(const ChannelSlices slices, const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x,
                      const float* __restrict__ mean, float* __restrict__ partial) {
    using Meeting = RowMeeting<TwoSums, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const int64 channel = reduced_channel<T>();
    TwoSums sums{0.0f, 0.0f};
    if (channel < slices.C) {
        const float centre = mean[channel];
        const Stored<T>* const from[] = {dy, x};
        walk_channel<T>(slices, channel, from, [&](const auto& visited) {
            constexpr int most = sizeof(visited.value[0]) / sizeof(float);
            TwoSums part{0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < most; ++i) {  // dy is zero where there is none
                part.first += visited.value[0][i];
                part.second = fmaf(visited.value[0][i], visited.value[1][i] - centre, part.second);
            }
            sums.merge(part);
        });
    }
    sums = over_rows<T.warps>(sums, T.layout(), meeting);
    if (writes_partial<T>() && channel < slices.C) {
        float* to = partial + 2 * blockIdx.y * slices.C + channel;
        to[0] = sums.first;
        to[slices.C] = sums.second;
    }
}

template <PerChannelTile T>
__global__ void __launch_bounds__(T.threads())
    batch_norm_gradients(const int64 channels, const int64 count, const float eps, const float* __restrict__ partial,
                         const float* __restrict__ var, float* __restrict__ dweight, float* __restrict__ dbias) {
    const int64 channel = block_number() * T.threads() + threadIdx.x;
    if (channel >= channels) return;
    TwoSums sums{0.0f, 0.0f};
    for (int64 i = 0; i < count; ++i) {
        const float* from = partial + 2 * i * channels + channel;
        sums.merge({from[0], from[channels]});
    }
    dbias[channel] = sums.first;
    dweight[channel] = sums.second * rsqrtf(var[channel] + eps);
}

template <ChannelMapTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    batch_norm_dx(const ChannelGrid grid, const float eps, const float per_element, const Stored<T>* __restrict__ dy,
                  const Stored<T>* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ mean,
                  const float* __restrict__ var, const float* __restrict__ dweight, const float* __restrict__ dbias,
                  Stored<T>* __restrict__ dx) {
    constexpr int width = vector_width<Stored<T>>();
    const ChannelSlopes given{weight, mean, var, dweight, dbias, eps, per_element};
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), grid.size, aligned16(dy, x, dx));
    float slope[T.vectors][width], value[T.vectors][width];
    stretch.read(dy, slope);
    stretch.read(x, value);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        ChannelCursor<T.wide> cursor(stretch.place(i), grid);
        ChannelTangent tangent(given, cursor.channel);
#pragma unroll
        for (int v = 0; v < width; ++v) {
            if (v > 0 && cursor.advance(grid)) tangent = ChannelTangent(given, cursor.channel);
            slope[i][v] = tangent.at(slope[i][v], value[i][v]);
        }
    }
    stretch.write(dx, slope);
}

}  // namespace pycnn
