// A fiber: a stack of its own and the place where it stopped.  Switching saves the registers that the C++ calling
// convention says a callee preserves, changes the stack pointer and restores the other fiber's: about 10 ns, where
// ucontext also saves the signal mask with a system call and takes some 280 ns.
#pragma once

#include <cstddef>

#if !defined(PYCNN_SIM_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define PYCNN_SIM_UCONTEXT
#endif
#ifdef PYCNN_SIM_UCONTEXT
#include <ucontext.h>
#endif

namespace sim {

class Fiber {
  public:
    // Makes the next switch to this fiber call `entry` on the given stack; `entry` must never return.
    void prepare(unsigned char* stack, std::size_t bytes, void (*entry)());

    // Stops here, in `from`, and goes on in `to`.  Returns when something switches back to `from`.
    static void switch_to(Fiber& from, Fiber& to);

  private:
#ifdef PYCNN_SIM_UCONTEXT
    ucontext_t context_;
#else
    void* stack_pointer_ = nullptr;
#endif
};

}  // namespace sim
