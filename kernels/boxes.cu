// boxes: maxima over regions of images, and which of overlapping boxes stay; float32.
//
//     roi_max      y[r, c, p, q] = max of x[image[r], c, h, w] over the rows h and columns w of window (p, q) of region r;
//                  indices hold its h*W + w, the first in scan order; 0 and -1 where the window is empty; a NaN wins;
//                  what lies outside of x, pixels or whole images, is passed over
//     nms_overlaps overlaps[i, j / 64] has bit j % 64 set where box j > i is of i's group and overlaps i too much
//     nms_keep     keep[i] = 1 unless a box before it that stays overlaps it
//
// Who owns what: in roi_max a thread owns an element of y; in nms_overlaps a thread owns a word, 64 boxes j against one i;
// nms_keep is one block, which goes through the boxes one after another and ORs the words of each that stays into
// `gone`, a word a thread at a time.
//
//             j ->  word 0      word 1                    i = 0 stays: gone |= row 0
//      i = 0        0 1 1 0 ... 0 0 ...                   i = 1 is gone: its row does not count
//      i = 1          0 1 0 ... 1 0 ...                   ...
//
// Launch      roi_max, nms_overlaps: one thread an element; on along y past 2^31 - 1.  nms_keep: one block.
// Shared      none.
// Determinism no sums and no atomics.
// Cost        nms: 8 bytes for 64 pairs, written and read once; K passes of one block, each of K / 64 words.
// Limit       roi_max: latency, where regions are few.  nms_keep: a barrier for each box that stays.
// Reference   Girshick, "Fast R-CNN", 2015, section 2.1; torchvision.ops.nms and roi_pool.
#include "stream.cuh"

namespace pycnn {

using uint64 = unsigned long long;

// The constants of one instance; instances.toml lists those that exist.
struct BoxesTile {
    int warps;  // in a block

    constexpr int threads() const { return warps * 32; }
};

// Passed by value; pycnn/backends/cuda/boxes.py packs the same fields in the same order.
struct RegionShape {
    int64 regions, P, Q;
    int64 images, channels, H, W;  // of x
};

template <BoxesTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    roi_max(const RegionShape s, const float* __restrict__ x, const int64* __restrict__ image,
            const int64* __restrict__ rows, const int64* __restrict__ columns, float* __restrict__ y,
            int64* __restrict__ indices) {
    const int64 element = block_number() * T.threads() + static_cast<int64>(threadIdx.x);
    if (element >= s.regions * s.channels * s.P * s.Q) return;
    const int64 q = element % s.Q, p = element / s.Q % s.P, plane = element / (s.P * s.Q);
    const int64 region = plane / s.channels, channel = plane % s.channels;
    const int64* of_rows = rows + 2 * (region * s.P + p);
    const int64* of_columns = columns + 2 * (region * s.Q + q);
    const float* pixels = x + (image[region] * s.channels + channel) * s.H * s.W;
    const int64 first = of_columns[0] > 0 ? of_columns[0] : 0, end = of_columns[1];
    const int64 height = inside(image[region], s.images) ? s.H : 0;
    float best = 0.0f;
    int64 index = -1;
    for (int64 h = of_rows[0] > 0 ? of_rows[0] : 0; h < of_rows[1] && h < height; ++h) {
        for (int64 w = first; w < end && w < s.W; ++w) {
            const float value = pixels[h * s.W + w];
            if (index < 0 || value > best || value != value) {
                best = value;
                index = h * s.W + w;
            }
        }
    }
    y[element] = best;
    indices[element] = index;
}

// The area of the intersection over that of the union, each operation rounded by itself, as on the CPU.
__device__ __forceinline__ float overlap_of(const float* __restrict__ a, const float* __restrict__ b) {
    const float left = a[0] > b[0] ? a[0] : b[0], right = a[2] < b[2] ? a[2] : b[2];
    const float top = a[1] > b[1] ? a[1] : b[1], bottom = a[3] < b[3] ? a[3] : b[3];
    const float width = __fsub_rn(right, left), height = __fsub_rn(bottom, top);
    const float common = __fmul_rn(width > 0.0f ? width : 0.0f, height > 0.0f ? height : 0.0f);
    const float area_a = __fmul_rn(__fsub_rn(a[2], a[0]), __fsub_rn(a[3], a[1]));
    const float area_b = __fmul_rn(__fsub_rn(b[2], b[0]), __fsub_rn(b[3], b[1]));
    return __fdiv_rn(common, __fsub_rn(__fadd_rn(area_a, area_b), common));
}

template <BoxesTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    nms_overlaps(const int64 boxes, const float threshold, const float* __restrict__ box,
                 const int64* __restrict__ groups, uint64* __restrict__ overlaps) {
    const int64 words = (boxes + 63) / 64, thread = block_number() * T.threads() + static_cast<int64>(threadIdx.x);
    const int64 i = thread / words, first = (thread - i * words) * 64;
    if (i >= boxes) return;
    uint64 word = 0;
    for (int bit = 0; bit < 64; ++bit) {
        const int64 j = first + bit;
        if (j <= i || j >= boxes || (groups != nullptr && groups[i] != groups[j])) continue;
        if (overlap_of(box + 4 * i, box + 4 * j) > threshold) word |= 1ULL << bit;
    }
    overlaps[thread] = word;
}

template <BoxesTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    nms_keep(const int64 boxes, const uint64* __restrict__ overlaps, uint64* gone, int64* __restrict__ keep) {
    const int64 words = (boxes + 63) / 64;
    for (int64 word = threadIdx.x; word < words; word += T.threads()) gone[word] = 0;
    __syncthreads();
    for (int64 i = 0; i < boxes; ++i) {
        const bool stays = (gone[i / 64] >> (i % 64) & 1) == 0;
        if (threadIdx.x == 0) keep[i] = stays;
        if (!stays) continue;  // so for all threads, although some may be ahead: row i has no bit up to i
        for (int64 word = i / 64 + threadIdx.x; word < words; word += T.threads()) {
            gone[word] |= overlaps[i * words + word];
        }
        __syncthreads();
    }
}

}  // namespace pycnn
