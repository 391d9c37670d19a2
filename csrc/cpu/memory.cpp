#include "cpu/memory.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

namespace pycnn::cpu {
namespace {

constexpr std::size_t kHugePage = 2u << 20;
constexpr std::size_t kSmall = 4u << 10;                   // below this malloc's own cache is as good
constexpr std::size_t kKeepAtMost = std::size_t{2} << 30;  // bytes kept for reuse

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kExact = true;  // every block of just its size and never kept, so that no access beyond it goes unseen
#else
constexpr bool kExact = false;
#endif

// Sizes in steps of an eighth of a power of two: a freed block fits the next request of nearly its size, and no more
// than an eighth of a block is wasted.
std::size_t rounded(std::size_t bytes) {
    std::size_t step = kSmall / 8;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

struct Cache {
    std::mutex mutex;
    std::unordered_map<void*, std::size_t> sizes;  // every large block in use or kept
    std::multimap<std::size_t, void*> kept;
    std::size_t kept_bytes = 0;
};

Cache& cache() {
    static Cache* instance = new Cache;  // arrays may outlive static destruction
    return *instance;
}

// A child of fork() has one thread: what another one of the parent was about to change must be whole, and unlocked.
[[maybe_unused]] const int registered =
    pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });

// The system may grant what it does not have, and end the process that uses it: a block larger than all of memory, or
// than the control group may have of it, is refused here.
std::size_t most_bytes() {
    struct sysinfo machine = {};
    sysinfo(&machine);
    std::size_t most = (machine.totalram + machine.totalswap) * machine.mem_unit;
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/memory.max", "r")) {
        unsigned long long limit = 0;
        if (std::fscanf(file, "%llu", &limit) == 1 && limit > 0) most = std::min<std::size_t>(most, limit);
        std::fclose(file);
    }
    return most;
}

void* fresh(std::size_t bytes) {
    static const std::size_t most = most_bytes();
    if (bytes > most) throw std::bad_alloc();
    const bool huge = bytes >= kHugePage && !kExact;
    if (huge) bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* block = nullptr;
    if (posix_memalign(&block, huge ? kHugePage : 64, bytes) != 0) throw std::bad_alloc();
    if (huge) madvise(block, bytes, MADV_HUGEPAGE);
    return block;
}

// Whether there was memory even for the note that the block is kept.
bool keep(Cache& c, std::size_t size, void* block) noexcept {
    try {
        c.kept.emplace(size, block);
    } catch (const std::bad_alloc&) {
        return false;
    }
    c.kept_bytes += size;
    return true;
}

}  // namespace

void* allocate(std::size_t bytes) {
    if (bytes > (std::size_t{1} << 60)) throw std::bad_alloc();  // `rounded` would overflow
    if (bytes < kSmall || kExact) return fresh(std::max<std::size_t>(bytes, 1));
    const std::size_t size = rounded(bytes);
    Cache& c = cache();
    {
        std::lock_guard lock(c.mutex);
        const auto found = c.kept.find(size);
        if (found != c.kept.end()) {
            void* block = found->second;
            c.kept.erase(found);
            c.kept_bytes -= size;
            return block;
        }
    }
    void* block;
    try {
        block = fresh(size);
    } catch (const std::bad_alloc&) {
        release_cached();
        block = fresh(size);
    }
    std::lock_guard lock(c.mutex);
    try {
        c.sizes.emplace(block, size);
    } catch (const std::bad_alloc&) {
        std::free(block);
        throw;
    }
    return block;
}

void deallocate(void* block) {
    if (block == nullptr) return;
    Cache& c = cache();
    {
        std::lock_guard lock(c.mutex);
        const auto found = c.sizes.find(block);
        if (found != c.sizes.end()) {
            if (c.kept_bytes + found->second <= kKeepAtMost && keep(c, found->second, block)) return;
            c.sizes.erase(found);
        }
    }
    std::free(block);
}

std::size_t cached_bytes() {
    std::lock_guard lock(cache().mutex);
    return cache().kept_bytes;
}

void release_cached() {
    Cache& c = cache();
    std::lock_guard lock(c.mutex);
    for (const auto& [size, block] : c.kept) {
        c.sizes.erase(block);
        std::free(block);
    }
    c.kept.clear();
    c.kept_bytes = 0;
}

}  // namespace pycnn::cpu
