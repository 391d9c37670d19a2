// channel_sum: the sum over all axes but the second, the gradient of a bias; dy in float32 or 16 bits, the
// sums in float32.
//
//     sum[c] = sum of dy[n, c, l] over n and l
//
// The kernel sums each slice of a channel (channels.cuh says who owns what); sum_slices of slices.cu adds the slices.
//
// Launch      grid (channels, or tiles of 32 of them; slices; more channels past 2^31 - 1), blocks of warps * 32
//             threads.
// Shared      one value a warp and lane of the layout.
// Determinism a thread adds its elements in ascending order, rows meet in a fixed tree (reduce.cuh), slices in order.
// Cost        4 bytes an element, or 2.
// Limit       bandwidth: 64 bytes a thread in flight where L is a multiple of four and dy begins at one of 16 bytes,
//             else 32: on an SM, of 1024 threads, 64 or 32 KiB.  Half of that in 16 bits.
#include "channels.cuh"

namespace pycnn {

template <ChannelTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    channel_sum(const ChannelSlices slices, const Stored<T>* __restrict__ dy, float* __restrict__ partial) {
    using Meeting = RowMeeting<Sum, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const int64 channel = reduced_channel<T>();
    Sum sum{0.0f};
    if (channel < slices.C) {
        const Stored<T>* const from[] = {dy};
        walk_channel<T>(slices, channel, from, [&](const auto& visited) {
            float part = 0.0f;  // what is absent is zero
#pragma unroll
            for (const float value : visited.value[0]) part += value;
            sum.value += part;
        });
    }
    sum = over_rows<T.warps>(sum, T.layout(), meeting);
    if (writes_partial<T>() && channel < slices.C) partial[blockIdx.y * slices.C + channel] = sum.value;
}

}  // namespace pycnn
