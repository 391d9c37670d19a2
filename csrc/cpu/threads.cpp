#include "cpu/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace pycnn::cpu {
namespace {

// How long a thread looks for work before it sleeps: longer than the gap between two operators of a network, far
// shorter than what another process would notice.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Loop {
    std::int64_t count = 0;
    void (*body)(void*, std::int64_t) = nullptr;
    void* context = nullptr;
};

class Pool {
  public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; i++) threads_.emplace_back([this] { work(); });
    }

    ~Pool() {
        {
            std::lock_guard lock(sleep_);
            stop_ = true;
            epoch_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return static_cast<int>(threads_.size()) + 1; }

    void run(const Loop& loop) {
        loop_ = loop;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
        {
            std::lock_guard lock(sleep_);
            epoch_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        take();
        for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; spin++) {
            if (spin < kSpins) {
                relax();
            } else {
                std::this_thread::yield();
            }
        }
    }

  private:
    void take() {
        for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < loop_.count;) {
            loop_.body(loop_.context, i);
        }
    }

    void work();

    Loop loop_;
    std::atomic<std::int64_t> next_{0};
    std::atomic<int> busy_{0};
    std::atomic<unsigned> epoch_{0};
    bool stop_ = false;
    std::mutex sleep_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

thread_local bool inside = false;

void Pool::work() {
    inside = true;
    for (unsigned seen = 0;;) {
        for (int spin = 0; spin < kSpins && epoch_.load(std::memory_order_acquire) == seen; spin++) relax();
        if (epoch_.load(std::memory_order_acquire) == seen) {
            std::unique_lock lock(sleep_);
            wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
        }
        seen = epoch_.load(std::memory_order_acquire);
        if (stop_) return;
        take();
        busy_.fetch_sub(1, std::memory_order_release);
    }
}

// Allowed CPUs by affinity, and by the cgroup's quota where one is set.
int usable_cpus() {
    int cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = std::max(1, CPU_COUNT(&set));
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
        long long quota = 0;
        long long period = 0;
        if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
            cpus = std::min(cpus, static_cast<int>(std::max(1LL, (quota + period - 1) / period)));
        }
        std::fclose(file);
    }
    return cpus;
}

// One caller at a time owns the pool.  Both live for the life of the process: a worker may outlast static
// destruction, and after fork() the child forgets the parent's pool, whose threads it does not have.
std::mutex* owner = new std::mutex;
Pool* pool = nullptr;
int wanted = 0;

void forget_after_fork() {
    owner = new std::mutex;
    pool = nullptr;
    inside = false;
}

}  // namespace

int default_num_threads() {
    for (const char* name : {"PYCNN_NUM_THREADS", "OMP_NUM_THREADS"}) {
        const char* value = std::getenv(name);
        const int count = value ? std::atoi(value) : 0;
        if (count > 0) return std::min(count, 1024);
    }
    return usable_cpus();
}

int num_threads() {
    if (wanted == 0) wanted = default_num_threads();
    return wanted;
}

void set_num_threads(int count) {
    wanted = count > 0 ? count : default_num_threads();
}

void parallel_for(std::int64_t count, void (*body)(void*, std::int64_t), void* context) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_after_fork);
    (void)registered;
    if (count <= 1 || inside || num_threads() == 1 || !owner->try_lock()) {
        for (std::int64_t i = 0; i < count; i++) body(context, i);
        return;
    }
    std::lock_guard lock(*owner, std::adopt_lock);
    if (pool == nullptr || pool->size() != num_threads()) {
        delete pool;
        pool = new Pool(num_threads() - 1);
    }
    inside = true;
    pool->run({count, body, context});
    inside = false;
}

}  // namespace pycnn::cpu
