// The engine's own thread pool: one loop at a time, fork-safe, and the same work split whatever the thread count.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

// Runs body(context, i) for every i in [0, count).  Tasks go to whichever thread is free, so they must write disjoint
// results and must not depend on the number of threads.  A call from inside a task, or while another caller holds the
// pool, runs on the calling thread alone.  `body` must not throw.
//
// `elements` says how much there is to do, in elements read or written once.  Waking a thread that sleeps costs the
// caller some microseconds, so where it is little, threads help only if they are awake from an earlier loop.
constexpr std::int64_t kMuch = 131072;
void parallel_for(std::int64_t count, void (*body)(void* context, std::int64_t i), void* context,
                  std::int64_t elements = kMuch);

// The same with a lambda.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t elements, const Body& body) {
    parallel_for(
        count, [](void* context, std::int64_t i) { (*static_cast<const Body*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(&body)), elements);
}

int num_threads();
void set_num_threads(int count);  // at least 1; 0 stands for the CPUs this process may use

}  // namespace pycnn::cpu
