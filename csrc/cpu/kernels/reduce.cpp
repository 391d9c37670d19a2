// Sums over everything but the channels: the gradient of a bias.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Runs of kRun elements are summed in T on four vectors, the runs in double: the error does not grow with the length.
template <typename T>
static double sum_run(const T* from, int64_t count) {
    Vec<T> acc[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes<T> <= count; i += 4 * kLanes<T>) {
        for (int j = 0; j < 4; j++) acc[j] += load(from + i + j * kLanes<T>);
    }
    for (; i < count; i += kLanes<T>) acc[0] += load_part(from + i, least(kLanes<T>, count - i));
    return static_cast<double>(sum_of<T>((acc[0] + acc[1]) + (acc[2] + acc[3])));
}

template <typename T>
void channel_sum(int64_t n, int64_t channels, int64_t inner, const T* dy, T* sum) {
    constexpr int64_t kRun = 8192;
    if (inner == 1) {  // channels lie along memory: a block of them at a time, row by row
        constexpr int64_t kBlock = 256;
        return parallel(ceil_div(channels, kBlock), n * channels, [&](int64_t block) {
            const int64_t c0 = block * kBlock;
            const int64_t count = least(kBlock, channels - c0);
            double totals[kBlock] = {};
            for (int64_t i = 0; i < n; i++) {
                const T* __restrict row = dy + i * channels + c0;
                for (int64_t c = 0; c < count; c++) totals[c] += static_cast<double>(row[c]);
            }
            for (int64_t c = 0; c < count; c++) sum[c0 + c] = static_cast<T>(totals[c]);
        });
    }
    const int64_t together = most(1, kChunk / most(1, n * inner));
    parallel(ceil_div(channels, together), n * channels * inner, [&](int64_t task) {
        for (int64_t c = task * together; c < least(channels, (task + 1) * together); c++) {
            double total = 0;
            for (int64_t i = 0; i < n; i++) {
                const T* plane = dy + (i * channels + c) * inner;
                for (int64_t j = 0; j < inner; j += kRun) total += sum_run(plane + j, least(kRun, inner - j));
            }
            sum[c] = static_cast<T>(total);
        }
    });
}

template void channel_sum(int64_t, int64_t, int64_t, const float*, float*);
template void channel_sum(int64_t, int64_t, int64_t, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
