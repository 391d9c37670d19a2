// Large blocks that are kept and handed out again: a fresh block costs a page fault every 4 KiB, which on the outputs
// of a convolution is as much as the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pycnn::cpu {

// 64-byte aligned, contents undefined; throws std::bad_alloc.  `free` takes what `allocate` gave, or null.
void* allocate(std::size_t bytes);
void deallocate(void* block);
std::size_t cached_bytes();  // held for reuse, in use by nobody
void release_cached();       // gives it back to the system

// Scratch memory for one call.
template <typename T>
class Scratch {
  public:
    explicit Scratch(std::size_t count) : data_(static_cast<T*>(allocate(bytes(count)))) {}
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { deallocate(data_); }
    T* get() const { return data_; }

  private:
    // Sizes beyond what allocate refuses are made into one that it does.
    static std::size_t bytes(std::size_t count) {
        std::size_t size;
        return __builtin_mul_overflow(count, sizeof(T), &size) ? SIZE_MAX : size;
    }

    T* data_;
};

}  // namespace pycnn::cpu
