// The machine's own ceiling, measured with the same vectors the kernels use.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
double fma_probe(int64_t rounds) {
    constexpr int kChains = PYCNN_VECTOR_BYTES == 64 ? 24 : 12;  // enough independent chains to hide the FMA's latency
    const int64_t tasks = num_threads();
    parallel(tasks, [&](int64_t) {
        Vec<T> acc[kChains];
        for (int i = 0; i < kChains; i++) acc[i] = broadcast(static_cast<T>(i));
        Vec<T> a = broadcast(static_cast<T>(0.5));
        for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 24
            for (int i = 0; i < kChains; i++) acc[i] = acc[i] * a + a;
        }
        Vec<T> sum = acc[0];
        for (int i = 1; i < kChains; i++) sum += acc[i];
        asm volatile("" : : "m"(sum));
    });
    return 2.0 * kChains * kLanes<T> * static_cast<double>(rounds) * static_cast<double>(tasks);
}

template double fma_probe<float>(int64_t);
template double fma_probe<double>(int64_t);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
