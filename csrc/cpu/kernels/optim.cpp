// Steps of SGD and Adam over a list of arrays, in one pass over memory: bytes an element, SGD 12, with momentum 20; Adam
// 28.
//
// The arrays count as one long row that is cut into chunks, so many small ones cost no more than a large one and the
// number of threads changes nothing.  Every product, sum and quotient is rounded by itself and in the order of
// pycnn/optim, so the result has the bits of the same equations in NumPy, and SGD's those of kernels/optimizer.cu.
#include "cpu/optim.h"

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vecmath.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

using Floats = Vec<float>;

// A product that the compiler does not make a fused multiply-add of, which would round once where NumPy rounds twice.
PYCNN_INLINE Floats times(Floats a, Floats b) {
    Floats product = a * b;
#if defined(__x86_64__)
    asm("" : "+v"(product));
#elif defined(__aarch64__)
    asm("" : "+w"(product));
#else
    asm("" : "+m"(product));
#endif
    return product;
}

// body(parameter, at, lanes) for every vector of every parameter.
template <typename Body>
static void for_parameters(int64_t parameters, const Stepped* list, int64_t accesses, const Body& body) {
    const int64_t elements = list[parameters].begin;
    parallel(ceil_div(elements, kChunk), accesses * elements, [&](int64_t task) {
        const int64_t begin = task * kChunk;
        const int64_t end = least(begin + kChunk, elements);
        int64_t at = 0;  // the last parameter that starts no later than the chunk
        for (int64_t beyond = parameters; beyond - at > 1;) {
            const int64_t middle = (at + beyond) / 2;
            (list[middle].begin <= begin ? at : beyond) = middle;
        }
        for (; at < parameters && list[at].begin < end; at++) {
            const int64_t from = most(begin, list[at].begin) - list[at].begin;
            const int64_t to = least(end, list[at + 1].begin) - list[at].begin;
            const Stepped& parameter = list[at];
            for_vectors<float>(to - from, [&](int64_t i, int64_t lanes)
                                              __attribute__((always_inline)) { body(parameter, from + i, lanes); });
        }
    });
}

// Settings that choose the arithmetic are constants of the loop.
template <bool MOMENTUM, bool STARTS, bool NESTEROV, bool DECAY>
static void sgd(const SgdStep& step, int64_t parameters, const Stepped* list) {
    const Floats lr = broadcast(step.lr), momentum = broadcast(step.momentum), fresh = broadcast(step.fresh);
    const Floats decay = broadcast(step.weight_decay);
    for_parameters(parameters, list, MOMENTUM ? 5 : 3,
                   [&](const Stepped& at, int64_t i, int64_t lanes) __attribute__((always_inline)) {
                       const Floats p = load_part(at.p + i, lanes);
                       Floats d = load_part(at.g + i, lanes);
                       if constexpr (DECAY) d = times(p, decay) + d;
                       if constexpr (MOMENTUM) {
                           Floats v = d;
                           if constexpr (!STARTS) v = times(load_part(at.first + i, lanes), momentum) + times(d, fresh);
                           store_part(at.first + i, v, lanes);
                           d = NESTEROV ? times(v, momentum) + d : v;
                       }
                       store_part(at.p + i, p - times(d, lr), lanes);
                   });
}

template <bool MOMENTUM, bool STARTS, bool NESTEROV>
static void sgd(const SgdStep& step, int64_t parameters, const Stepped* list) {
    step.weight_decay == 0.0f ? sgd<MOMENTUM, STARTS, NESTEROV, false>(step, parameters, list)
                              : sgd<MOMENTUM, STARTS, NESTEROV, true>(step, parameters, list);
}

void sgd_step(const SgdStep& step, int64_t parameters, const Stepped* list) {
    if (list->first == nullptr) return sgd<false, false, false>(step, parameters, list);
    if (step.starts) {
        return step.nesterov ? sgd<true, true, true>(step, parameters, list)
                             : sgd<true, true, false>(step, parameters, list);
    }
    step.nesterov ? sgd<true, false, true>(step, parameters, list) : sgd<true, false, false>(step, parameters, list);
}

template <bool DECAY>
static void adam(const AdamStep& step, int64_t parameters, const Stepped* list) {
    const Floats step_size = broadcast(step.step_size), root = broadcast(step.root), eps = broadcast(step.eps);
    const Floats fresh1 = broadcast(step.fresh1), b2 = broadcast(step.b2), fresh2 = broadcast(step.fresh2);
    const Floats decay = broadcast(step.decay), shrink = broadcast(step.shrink);
    for_parameters(parameters, list, 7,
                   [&](const Stepped& at, int64_t i, int64_t lanes) __attribute__((always_inline)) {
                       Floats p = load_part(at.p + i, lanes);
                       Floats d = load_part(at.g + i, lanes);
                       if constexpr (DECAY) d = times(p, decay) + d;
                       p = times(p, shrink);
                       Floats m = load_part(at.first + i, lanes);
                       m = m + times(d - m, fresh1);
                       const Floats v = times(load_part(at.second + i, lanes), b2) + times(times(d, d), fresh2);
                       store_part(at.first + i, m, lanes);
                       store_part(at.second + i, v, lanes);
                       const Floats spread = vsqrt<float>(v) / root + eps;
                       store_part(at.p + i, p - times(m / spread, step_size), lanes);
                   });
}

void adam_step(const AdamStep& step, int64_t parameters, const Stepped* list) {
    step.decay == 0.0f ? adam<false>(step, parameters, list) : adam<true>(step, parameters, list);
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
