// random: words of the Philox stream, dropout on it, and the counter that says how much of it is drawn.
//
//     philox_words   words[4*i .. 4*i + 3] = the encrypted counter offset + i
//     dropout        y[i] = x[i] * scale where word i >= threshold, else 0; float32 or 16 bits
//     dropout_last   the same of arrays that lie channels-last: i is an element's place in NCHW still, so that the same
//                    elements stay, however an array lies
//     advance        counter += by
//
// Who owns what: drawn in stream.cuh; four neighbours take one block of the random stream, in dropout_last each its own,
// for neighbours in NCHW are C elements apart there.
//
// Launch      ceil(size / (warps * 128 * vectors)) blocks, on along y past 2^31 - 1; advance: one thread.
// Shared      none.
// Determinism word i depends on i, the seed and the offset alone: the same stream as every other backend's, whatever
//             the launch.  A gradient calls dropout again, so no mask is stored.
// Cost        dropout 8 bytes an element, 4 in 16 bits; ten rounds of two 32 x 32 -> 64 bit products for four elements.
// Limit       bandwidth: vectors * 16 bytes a thread in flight.  The rounds are some 20 integer instructions an
//             element, half of what an H100 does in the memory's time; in dropout_last four times as many are the limit.
// Reference   philox.cuh; Srivastava et al., "Dropout", 2014.
#include "philox.cuh"
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct RandomTile {
    int type;     // of dropout's arrays, as StorageOf has it
    int vectors;  // of four elements, a thread; of eight of 16 bits
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

template <RandomTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    philox_words(const int64 size, const PhiloxStream stream, uint32* __restrict__ words) {
    const Stretch<T.threads(), T.vectors> stretch(block_number(), size, true);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        const int64 at = stretch.place(i);
        const PhiloxWords four = philox(stream, 0, at / 4);
#pragma unroll
        for (int v = 0; v < 4; ++v) {
            if (at + v < size) words[at + v] = four.word[v];
        }
    }
}

// `counter` is null, or holds how many blocks beyond the stream's offset to begin.  Replayed from a CUDA graph, the
// launch draws on where `advance` has left it.
template <RandomTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    dropout(const int64 size, const PhiloxStream stream, const uint32 threshold, const float scale,
            const int64* __restrict__ counter, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), size, aligned16(x, y));
    const uint64 drawn = counter == nullptr ? 0 : static_cast<uint64>(counter[0]);
    float value[T.vectors][width];
    stretch.read(x, value);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
#pragma unroll
        for (int first = 0; first < width; first += 4) {
            const PhiloxWords four = philox(stream, drawn, (stretch.place(i) + first) / 4);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                float& each = value[i][first + v];
                each = four.word[v] >= threshold ? each * scale : 0.0f;
            }
        }
    }
    stretch.write(y, value);
}

// Sizes of an array (images, pixels, channels).  Passed by value; pycnn/backends/cuda/random.py packs the same fields in
// the same order.
struct LastShape {
    int64 size, pixels, channels;
};

template <RandomTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    dropout_last(const LastShape s, const PhiloxStream stream, const uint32 threshold, const float scale,
                 const int64* __restrict__ counter, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    constexpr int width = vector_width<Stored<T>>();
    const Stretch<T.threads(), T.vectors, width> stretch(block_number(), s.size, aligned16(x, y));
    const uint64 drawn = counter == nullptr ? 0 : static_cast<uint64>(counter[0]);
    float value[T.vectors][width];
    stretch.read(x, value);
#pragma unroll
    for (int i = 0; i < T.vectors; ++i) {
        int64 row = stretch.place(i) / s.channels, channel = stretch.place(i) - row * s.channels;
        int64 image = row / s.pixels, pixel = row - image * s.pixels;
#pragma unroll
        for (int v = 0; v < width; ++v) {
            const int64 place = (image * s.channels + channel) * s.pixels + pixel;
            const PhiloxWords four = philox(stream, drawn, place / 4);
            const uint32 even = place & 2 ? four.word[2] : four.word[0], odd = place & 2 ? four.word[3] : four.word[1];
            value[i][v] = (place & 1 ? odd : even) >= threshold ? value[i][v] * scale : 0.0f;
            if (++channel == s.channels) {
                channel = 0;
                if (++pixel == s.pixels) {
                    pixel = 0;
                    ++image;
                }
            }
        }
    }
    stretch.write(y, value);
}

struct OneWarpTile {
    int warps;

    constexpr int threads() const { return warps * 32; }
};

template <OneWarpTile T>
__global__ void __launch_bounds__(T.threads()) advance(const int64 by, int64* __restrict__ counter) {
    if (threadIdx.x == 0) counter[0] += by;
}

}  // namespace pycnn
