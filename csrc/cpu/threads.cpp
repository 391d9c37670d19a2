#include "cpu/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
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

// A loop is open to workers from `run`'s start until its caller has found no task left.  A worker joins an open loop by
// counting itself in, and the caller waits only for those that did: a worker that the system has not scheduled yet, on
// a machine busy with other things, costs nothing.
class Pool {
  public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; i++) threads_.emplace_back([this] { work(); });
    }

    ~Pool() {
        stop_ = true;
        open();
        for (auto& thread : threads_) thread.join();
    }

    // Whether every worker sleeps.
    bool asleep() const { return asleep_.load(std::memory_order_relaxed) == threads_.size(); }

    int size() const { return static_cast<int>(threads_.size()) + 1; }

    void run(const Loop& loop) {
        caller_.store(sched_getcpu(), std::memory_order_relaxed);
        loop_ = loop;  // nobody is in the last loop any more, and nobody can join it
        next_.store(0, std::memory_order_relaxed);
        left_.store(0, std::memory_order_relaxed);
        open();
        take();
        const std::uint64_t joined = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & kJoined;
        for (int spin = 0; left_.load(std::memory_order_acquire) != joined; spin++) {
            if (spin < kSpins) {
                relax();
            } else {
                std::this_thread::yield();
            }
        }
    }

  private:
    // The gate: which loop it is (upper half), whether it is open, and how many workers have joined it.
    static constexpr std::uint64_t kLoop = std::uint64_t{1} << 32;
    static constexpr std::uint64_t kOpen = std::uint64_t{1} << 31;
    static constexpr std::uint64_t kJoined = kOpen - 1;

    void open() {
        {
            std::lock_guard lock(sleep_);
            gate_.store((gate_.load(std::memory_order_relaxed) / kLoop + 1) * kLoop + kOpen, std::memory_order_release);
        }
        wake_.notify_all();
    }

    // A thread that wakes is often put where the caller runs, and moved only when the system next balances its load:
    // milliseconds at half speed.  It goes elsewhere by itself.
    static void leave(int cpu) {
        cpu_set_t all;
        if (sched_getcpu() != cpu || sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) return;
        cpu_set_t others = all;
        CPU_CLR(cpu, &others);
        sched_setaffinity(0, sizeof others, &others);
        sched_setaffinity(0, sizeof all, &all);
    }

    bool join() {
        std::uint64_t gate = gate_.load(std::memory_order_relaxed);
        while ((gate & kOpen) != 0) {
            if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    void take() {
        for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < loop_.count;) {
            loop_.body(loop_.context, i);
        }
    }

    void work();

    Loop loop_;
    std::atomic<std::int64_t> next_{0};
    std::atomic<std::uint64_t> left_{0};  // workers that joined the loop and have finished with it
    std::atomic<std::uint64_t> gate_{0};
    std::atomic<std::size_t> asleep_{0};
    std::atomic<int> caller_{0};  // the CPU of the last loop's caller
    std::atomic<bool> stop_{false};
    std::mutex sleep_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

thread_local bool inside = false;

void Pool::work() {
    inside = true;
    for (std::uint64_t seen = 0;;) {
        const auto another = [&] { return gate_.load(std::memory_order_acquire) / kLoop != seen; };
        for (int spin = 0; spin < kSpins && !another(); spin++) relax();
        if (!another()) {
            std::unique_lock lock(sleep_);
            asleep_++;
            wake_.wait(lock, another);
            asleep_--;
            lock.unlock();
            leave(caller_.load(std::memory_order_relaxed));
        }
        seen = gate_.load(std::memory_order_acquire) / kLoop;
        if (stop_) return;
        if (join()) {
            take();
            left_.fetch_add(1, std::memory_order_release);
        }
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

int num_threads() {
    if (wanted == 0) wanted = usable_cpus();
    return wanted;
}

void set_num_threads(int count) {
    wanted = count > 0 ? count : usable_cpus();
}

void parallel_for(std::int64_t count, void (*body)(void*, std::int64_t), void* context, std::int64_t elements) {
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
    if (elements < kMuch && pool->asleep()) {
        for (std::int64_t i = 0; i < count; i++) body(context, i);
    } else {
        pool->run({count, body, context});
    }
    inside = false;
}

}  // namespace pycnn::cpu
