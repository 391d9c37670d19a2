#include "fiber.h"

#include <cstdint>

namespace sim {

#ifdef PYCNN_SIM_UCONTEXT

void Fiber::prepare(unsigned char* stack, std::size_t bytes, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
    swapcontext(&from.context_, &to.context_);
}

#else

// pycnn_sim_switch(void** save, void* load): push the preserved registers, *save = sp, sp = load, pop, return.
extern "C" void pycnn_sim_switch(void** save, void* load);

#if defined(__x86_64__)

// System V: rbx, rbp, r12 to r15 are preserved; the return address is on the stack.
constexpr int kSavedWords = 6;
constexpr int kReturnWord = 6;  // `ret` takes it from above the six registers
constexpr int kFrameWords = 8;  // and the entry then finds the stack as after a call: 8 bytes off a multiple of 16
asm(R"(
.text
.globl pycnn_sim_switch
.hidden pycnn_sim_switch
.type pycnn_sim_switch, @function
pycnn_sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size pycnn_sim_switch, .-pycnn_sim_switch
)");

#else  // __aarch64__

// AAPCS64: x19 to x29 and the low halves of v8 to v15 are preserved; x30 holds the return address.
constexpr int kSavedWords = 20;
constexpr int kReturnWord = 11;  // x30, after x19 ... x29
constexpr int kFrameWords = 20;
asm(R"(
.text
.globl pycnn_sim_switch
.hidden pycnn_sim_switch
.type pycnn_sim_switch, %function
pycnn_sim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size pycnn_sim_switch, .-pycnn_sim_switch
)");

#endif

void Fiber::prepare(unsigned char* stack, std::size_t bytes, void (*entry)()) {
    const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(stack) + bytes) & ~std::uintptr_t{15};
    void** frame = reinterpret_cast<void**>(top) - kFrameWords;
    for (int i = 0; i < kSavedWords; ++i) frame[i] = nullptr;
    frame[kReturnWord] = reinterpret_cast<void*>(entry);
    stack_pointer_ = frame;
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
    pycnn_sim_switch(&from.stack_pointer_, to.stack_pointer_);
}

#endif

}  // namespace sim
