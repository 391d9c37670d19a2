// Reductions within a block, always in the same order.
//
// The threads of a block are groups x rows x lanes, thread = (group * rows + row) * lanes + lane, each count a power of
// two and lanes at most 32.  The rows of a group are reduced to one, each lane by itself:
//
//               lane 0 1 2 3
//      group 0  row 0  + + + +      1. the rows within a warp meet in a butterfly of shuffles
//               row 1  + + + +      2. the warps of a group meet in shared memory, and every thread goes through them
//               ...    v v v v         in ascending order
//
// What is reduced is a struct with
//     void merge(const Value& other)             takes in a part that comes after this one
//     Value from_lane_across(int distance)       the value of lane `lane ^ distance` of the warp
#pragma once

#include "common.cuh"

namespace pycnn {

enum : unsigned { kWholeWarp = 0xFFFFFFFFu };

// The layout above, as its two counts.
struct RowLayout {
    int lanes, rows;
};

// Room for the warps to meet in, once: a kernel with two reductions has two rooms and needs no barrier between them.
template <typename Value, int warps>
struct RowMeeting {
    Value value[warps][32];
};

// The reduction of the calling thread's group and lane; every thread of the block has to come, and all that share a
// group and a lane are given the same bits where merge(a, b) has those of merge(b, a).
template <int warps, typename Value>
__device__ __forceinline__ Value over_rows(Value mine, const RowLayout& layout, RowMeeting<Value, warps>& meeting) {
    const int together = layout.lanes * layout.rows;  // threads of a group
    for (int distance = layout.lanes; distance < together && distance < 32; distance *= 2) {
        const Value other = mine.from_lane_across(distance);
        mine.merge(other);
    }
    if (together > 32) {
        const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % layout.lanes;
        const int warps_together = together / 32, first = warp / warps_together * warps_together;
        if (thread % 32 < layout.lanes) meeting.value[warp][lane] = mine;
        __syncthreads();
        mine = meeting.value[first][lane];
        for (int i = 1; i < warps_together; ++i) mine.merge(meeting.value[first + i][lane]);
    }
    return mine;
}

// A sum, a pair of sums, a maximum (of a NaN and a number the number, as fmaxf has it).
struct Sum {
    float value;

    __device__ __forceinline__ void merge(const Sum& other) { value += other.value; }
    __device__ __forceinline__ Sum from_lane_across(int distance) const {
        return {__shfl_xor_sync(kWholeWarp, value, distance)};
    }
};

struct TwoSums {
    float first, second;

    __device__ __forceinline__ void merge(const TwoSums& other) {
        first += other.first;
        second += other.second;
    }
    __device__ __forceinline__ TwoSums from_lane_across(int distance) const {
        return {__shfl_xor_sync(kWholeWarp, first, distance), __shfl_xor_sync(kWholeWarp, second, distance)};
    }
};

struct Largest {
    float value;

    __device__ __forceinline__ void merge(const Largest& other) { value = fmaxf(value, other.value); }
    __device__ __forceinline__ Largest from_lane_across(int distance) const {
        return {__shfl_xor_sync(kWholeWarp, value, distance)};
    }
};

// Count, mean, and sum of the squared distances from the mean.
//
// Reference: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
struct Moments {
    int64 count;
    float mean, squares;

    __device__ __forceinline__ void merge(const Moments& other) {
        if (other.count == 0) return;
        const int64 total = count + other.count;
        const float share = static_cast<float>(other.count) / static_cast<float>(total);
        const float distance = other.mean - mean;
        squares += other.squares + distance * distance * (static_cast<float>(count) * share);
        mean = fmaf(distance, share, mean);
        count = total;
    }
    __device__ __forceinline__ Moments from_lane_across(int distance) const {
        return {__shfl_xor_sync(kWholeWarp, count, distance), __shfl_xor_sync(kWholeWarp, mean, distance),
                __shfl_xor_sync(kWholeWarp, squares, distance)};
    }
};

}  // namespace pycnn
