// The parity classes of a strided convolution's input: see conv2d_dgrad_direct.cu, where they are drawn.
#pragma once

#include "common.cuh"

namespace pycnn {

// The taps of a class along one axis: those with r*dilation = residue (mod stride), `step` apart; R if there are none.
template <typename Index>
__device__ __forceinline__ Index first_tap(Index R, Index step, Index dilation, Index stride, Index residue) {
    const Index advance = dilation % stride;
    Index remainder = 0;  // of r*dilation, which itself may not fit
    for (Index r = 0; r < step && r < R; ++r) {
        if (remainder == residue) return r;
        remainder += advance;
        if (remainder >= stride) remainder -= stride;
    }
    return R;
}

}  // namespace pycnn
