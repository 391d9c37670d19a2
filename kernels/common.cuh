// What every kernel of pycnn includes: the shape of a problem, index helpers, and the shared-memory macro.
//
// The same source is compiled three ways: by NVRTC to a cubin (the GPU), by NVRTC to PTX (the interpreter in
// pycnn/testing/ptx) and by g++ (the simulator in csrc/sim, which supplies threadIdx, __syncthreads and the like and
// defines PYCNN_SIMULATOR).  So kernels use no standard header, no host code and no inline assembly outside arch/.
#pragma once

namespace pycnn {

using int64 = long long;
using uint32 = unsigned int;

// A convolution problem.  Passed by value; pycnn/backends/cuda/layout.py packs the same fields in the same order.
// All fields are 64 bits wide, so the struct has no padding and no size is too large; a kernel that computes
// coordinates in 32 bits is launched only where they fit.
struct Conv2dShape {
    int64 N, C, H, W;  // input
    int64 K, R, S;     // filters; each sees C / groups channels
    int64 P, Q;        // output
    int64 stride_h, stride_w;
    int64 pad_top, pad_left;  // the far sides are implied by P and Q
    int64 dilation_h, dilation_w;
    int64 groups;
};

// A divisor prepared on the host, for dividing indices below 2^31 by one multiplication:
//     shift = ceil(log2(d)),  multiplier = floor(2^32 * (2^shift - d) / d) + 1
//     n / d = (umulhi(n, multiplier) + n) >> shift
// Reference: Granlund & Montgomery, "Division by invariant integers using multiplication", 1994, section 4.
struct Divisor {
    int64 value;
    uint32 multiplier, shift;
};

// One axis of a pooling problem: `out` windows over `size` pixels.  Adaptive pooling reads only the first two.
struct PoolAxis {
    Divisor size, out, stride;
    int64 window, before, after, dilation;  // before, after: the padding
};

// A pooling problem.  Passed by value; pycnn/backends/cuda/layout.py packs the same fields in the same order.
struct Pool2dShape {
    int64 planes;  // N*C; or N, where arrays lie channels-last
    PoolAxis rows, columns;
    Divisor channels;  // beside one another in memory: 1; or C
};

// n / d for 0 <= n: by multiplication where an index has 32 bits, by division where it has 64.
__device__ __forceinline__ int quotient(int n, const Divisor& d) {
    return static_cast<int>((__umulhi(static_cast<uint32>(n), d.multiplier) + static_cast<uint32>(n)) >> d.shift);
}
__device__ __forceinline__ int64 quotient(int64 n, const Divisor& d) {
    return n / d.value;
}

// Splits `index` = outer * d + inner: returns inner and leaves outer in `index`.
template <typename Index>
__device__ __forceinline__ Index take_digit(Index& index, const Divisor& d) {
    const Index outer = quotient(index, d);
    const Index inner = index - outer * static_cast<Index>(d.value);
    index = outer;
    return inner;
}

// What a kernel counts in: 32 bits, or 64 where wide = 1.
template <int wide>
struct IndexOf {
    using type = int;
};
template <>
struct IndexOf<1> {
    using type = int64;
};

// Whether 0 <= i < n, in one comparison.
__device__ __forceinline__ bool inside(int i, int n) {
    return static_cast<uint32>(i) < static_cast<uint32>(n);
}
__device__ __forceinline__ bool inside(int64 i, int64 n) {
    return static_cast<unsigned long long>(i) < static_cast<unsigned long long>(n);
}

// Whether 128-bit accesses may start at all of these addresses.  A null pointer does not hinder.
template <typename... Type>
__device__ __forceinline__ bool aligned16(const Type*... pointers) {
    return ((... | reinterpret_cast<unsigned long long>(pointers)) & 15) == 0;
}

}  // namespace pycnn

// THE way to get shared memory: PYCNN_SHARED(Type, name) declares `Type& name`, one object for the block.  Type is a
// plain struct that holds everything the kernel shares.  It is uninitialised on the GPU and full of NaN under the
// simulator, which also fences it; a bare __shared__ does not compile there.  Up to 48 KiB it is static; beyond, it is
// dynamic and the launch has to name sizeof(Type).
#ifdef PYCNN_SIMULATOR
#define PYCNN_SHARED(Type, name) Type& name = sim::block_shared<Type>(sizeof(Type) > pycnn::kMostStaticShared)
#else
#define PYCNN_SHARED(Type, name) Type& name = pycnn::BlockShared<Type, (sizeof(Type) > pycnn::kMostStaticShared)>::get()
#endif

namespace pycnn {

enum : unsigned { kMostStaticShared = 48 * 1024 };

#ifndef PYCNN_SIMULATOR
template <typename Type, bool dynamic>
struct BlockShared {
    static __device__ __forceinline__ Type& get() {
        __shared__ __align__(16) unsigned char bytes[sizeof(Type)];
        return *reinterpret_cast<Type*>(bytes);
    }
};

template <typename Type>
struct BlockShared<Type, true> {
    static __device__ __forceinline__ Type& get() {
        extern __shared__ __align__(16) unsigned char dynamic_bytes[];
        return *reinterpret_cast<Type*>(dynamic_bytes);
    }
};
#endif

}  // namespace pycnn
