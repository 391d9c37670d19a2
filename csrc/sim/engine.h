// The simulator's engine: runs a kernel's blocks one after another, each CUDA thread of a block as a fiber.
//
// A fiber runs until it waits (at a barrier, or in a warp collective) or returns.  Who goes first is the launch's
// `order`: threads and blocks ascending, descending or shuffled; after a collective a warp goes on before the others.
// A kernel without races gives the same result in all three; one with a missing barrier does not, because a thread, or a
// whole warp, then runs a stretch ahead of its neighbours.
//
// Nothing here throws: an exception must not cross a stack switch.  An error is written into the launch's message and
// the block is abandoned where it stands.
#pragma once

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <span>
#include <vector>

#include "fiber.h"
#include "vector_types.h"

namespace sim {

enum Order : std::int32_t { kForward = 0, kReverse = 1, kRandom = 2 };

// Memory that a kernel may touch.  Pages before `begin` and after `end` are unmapped, so straying is a fault, and the
// fault is reported with the name of the nearest buffer.
struct Buffer {
    const unsigned char* begin;
    const unsigned char* end;
    const char* name;
};

// One launch, as pycnn/backends/cuda/device_sim.py describes it (a ctypes.Structure of the same fields).
struct Launch {
    const char* kernel;  // for messages
    std::uint32_t grid[3];
    std::uint32_t block[3];
    std::uint64_t dynamic_shared;  // bytes named by the launch
    std::uint64_t shared_limit;    // most bytes a block may have on this arch, static and dynamic together
    std::int32_t order;
    std::uint64_t seed;           // of the random order
    const std::uint64_t* blocks;  // which blocks to run, or null for all of them
    std::uint64_t block_count;
    const Buffer* buffers;
    std::uint64_t buffer_count;
    char* message;  // receives the error, if any
    std::uint64_t message_size;
    std::uint32_t patience;  // seconds of CPU time after which a launch is taken to run for ever
};

// 32 threads that may meet in a collective.
struct Warp {
    void* argument[32];
    const void* operation[32];
    std::uint32_t mask[32];
    std::uint32_t arrived;
};

// A cp.async that has not landed: what it will write, and which of its thread's groups it belongs to.
struct AsyncCopy {
    unsigned char* to;
    std::uint64_t group;
    std::uint32_t bytes;
    unsigned char value[16];
};

struct Thread {
    Fiber fiber;
    uint3 index;
    std::uint32_t number;  // within the block
    Warp* warp;
    const char* waiting;  // for what; null while it can run
    std::source_location where;
    bool finished;
    std::vector<AsyncCopy> copies;  // in the order of their groups
    std::uint64_t groups;           // closed so far

    std::uint32_t lane() const { return number % 32; }
};

class Engine {
  public:
    Engine();
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // Runs `body` once for every thread of every block.  Returns whether all went well; if not, launch.message says
    // what.
    bool run(const Launch& launch, void (*body)());

    // What a kernel calls, by way of cuda.h.
    void barrier(std::source_location where);
    void* shared_object(const void* key, std::size_t bytes, bool dynamic);

    // Whether these bytes lie in an object of the block's shared memory.
    bool is_shared(const void* begin, std::size_t bytes) const;

    // A warp collective: each lane in `mask` brings its argument; the last to come calls combine(arguments, mask) for
    // all, and then all go on.
    using Combine = void (*)(void** arguments, std::uint32_t mask);
    void collective(std::uint32_t mask, void* argument, Combine combine, const char* name, std::source_location where);

    // Ends the launch with an error about the thread that runs now.  Never returns.
    [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));

    Thread& current() { return *current_; }

  private:
    struct SharedObject {
        const void* key;
        unsigned char* begin;
        std::size_t bytes;
    };

    __attribute__((noinline)) void run_blocks(const std::vector<std::uint64_t>& blocks);
    bool run_block(std::uint64_t block);
    void unmap_stacks();
    void make_threads(std::size_t count);
    void make_ready(std::span<Thread* const> threads);
    void wait(const char* what, std::source_location where);
    void go_on();
    bool report_stuck();
    bool check_stacks();
    bool check_shared_fences();
    void report(const char* format, ...) __attribute__((format(printf, 2, 3)));
    std::uint64_t random(std::uint64_t below);
    static void thread_main();
    static void on_fault(int signal, siginfo_t* info, void* context);
    static void on_timer(int signal);
    void describe_fault(const void* address, const char* verb);

    const Launch* launch_ = nullptr;
    void (*body_)() = nullptr;
    bool failed_ = false;

    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<Thread*> ready_;  // a ring
    std::size_t ready_begin_ = 0, ready_count_ = 0;
    std::vector<Thread*> everyone_;
    std::size_t at_barrier_ = 0;
    Thread* first_at_barrier_ = nullptr;
    std::size_t finished_ = 0;
    Thread* current_ = nullptr;
    Thread scheduler_{};  // the stack of run(); not a CUDA thread
    std::uint64_t random_state_ = 0;

    unsigned char* stacks_ = nullptr;
    std::size_t stacks_bytes_ = 0;
    unsigned char* shared_ = nullptr;  // the arena; its end touches an unmapped page
    std::vector<SharedObject> shared_objects_;
};

Engine& engine();

}  // namespace sim
