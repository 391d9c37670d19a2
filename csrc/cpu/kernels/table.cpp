// The table of this instruction set's kernels.
#include "cpu/isa.h"
#include "cpu/kernels/kernels.h"

#define PYCNN_TEXT_OF(name) #name
#define PYCNN_TEXT(name) PYCNN_TEXT_OF(name)

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
static constexpr Operators<T> table() {
    return {
        .fma_probe = fma_probe<T>,
        .gemm = gemm<T>,
        .activation = {.unary = unary<T>,
                       .binary = binary<T>,
                       .activation_fwd = activation_fwd<T>,
                       .activation_bwd = activation_bwd<T>,
                       .softmax_fwd = softmax_fwd<T>,
                       .softmax_bwd = softmax_bwd<T>},
        .norm = {.batch_norm_fwd = batch_norm_fwd<T>,
                 .batch_norm_bwd = batch_norm_bwd<T>,
                 .group_norm_fwd = group_norm_fwd<T>,
                 .group_norm_bwd = group_norm_bwd<T>,
                 .channel_affine = channel_affine<T>,
                 .lrn_fwd = lrn_fwd<T>,
                 .lrn_bwd = lrn_bwd<T>},
        .pool = {.max_pool_fwd = max_pool_fwd<T>, .avg_pool_fwd = avg_pool_fwd<T>, .avg_pool_bwd = avg_pool_bwd<T>},
        .random = {.dropout = dropout<T>},
        .sampling = {.resample = resample<T>,
                     .sample_fwd = sample_fwd<T>,
                     .sample_dx = sample_dx<T>,
                     .sample_dw = sample_dw<T>},
        .winograd = winograd<T>,
        .winograd_wgrad = winograd_wgrad<T>,
        .winograd_workspace = winograd_workspace<T>,
        .winograd_wgrad_workspace = winograd_wgrad_workspace<T>,
        .channel_sum = channel_sum<T>,
        .direct = {conv_fprop_direct<T>, conv_dgrad_direct<T>, conv_wgrad_direct<T>},
        .im2col_explicit = {conv_fprop_im2col_explicit<T>, conv_dgrad_im2col_explicit<T>,
                            conv_wgrad_im2col_explicit<T>},
        .im2col_implicit = {conv_fprop_im2col<T>, conv_dgrad_im2col<T>, conv_wgrad_im2col<T>},
    };
}

constexpr PackedOperators packed = {
    .pack = packed_pack,
    .unpack = packed_unpack,
    .clear = packed_clear,
    .rows = packed_rows,
    .filters = packed_filters,
    .turned_filters = packed_turned_filters,
    .conv = packed_conv,
    .winograd = packed_winograd,
    .winograd_filters = packed_winograd_filters,
    .linear = packed_linear,
    .depthwise = packed_depthwise,
    .max_pool = packed_max_pool,
    .avg_pool = packed_avg_pool,
    .mean = packed_mean,
    .add = packed_add,
    .mul = packed_mul,
    .affine = packed_affine,
    .scale = packed_scale,
};

extern const Kernels kernels;
const Kernels kernels = {PYCNN_TEXT(PYCNN_ISA_NAMESPACE),
                         PYCNN_VECTOR_BYTES,
                         table<float>(),
                         table<double>(),
                         philox_uint32,
                         {.widen = widen, .narrow = narrow},
                         {.sgd = sgd_step, .adam = adam_step},
                         packed};

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
