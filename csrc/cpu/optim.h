// Steps of the optimisers in pycnn/optim on float32 arrays: the entries of the operator table.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// One parameter.  `first` is SGD's momentum buffer, null for SGD without momentum, or Adam's first moment; `second` is
// Adam's second moment.
struct Stepped {
    int64_t begin;  // elements of the parameters before it
    float* p;
    const float* g;
    float *first, *second;
};

struct SgdStep {
    float lr, momentum, fresh, weight_decay;  // fresh = 1 - dampening
    bool starts;                              // the momentum buffers hold nothing yet
    bool nesterov;
};

struct AdamStep {
    float step_size, root;  // lr / (1 - b1^t) and sqrt(1 - b2^t)
    float fresh1, b2, fresh2, eps;
    float decay;   // of the gradient; zero for none
    float shrink;  // decoupled decay: what the parameter is multiplied by; one for none
};

// `list` ends with an entry that has nothing but its `begin`, the number of all elements.
struct OptimOperators {
    void (*sgd)(const SgdStep& step, int64_t parameters, const Stepped* list);
    void (*adam)(const AdamStep& step, int64_t parameters, const Stepped* list);
};

}  // namespace pycnn::cpu
