#include "cpu/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
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

// A thread's part of a loop, taken from the front by its owner and from the back by threads that have finished theirs.
// The parts are the same from one loop to the next, so that a layer mostly finds what the layer before it wrote, and
// its own results of the last step, in the cache of its core: the cores of a machine may be far apart.
struct alignas(64) Share {
    std::int64_t begin = 0;             // next task of the owner
    std::atomic<std::int64_t> end{0};   // before it lies the next task that another thread takes
    std::atomic<std::int64_t> left{0};  // tasks that nobody has claimed; below zero once there is none

    bool claim() {
        return left.load(std::memory_order_relaxed) > 0 && left.fetch_sub(1, std::memory_order_relaxed) > 0;
    }
};

// A loop is open to workers from `run`'s start until its caller has found no task left.  A worker joins an open loop by
// counting itself in, and the caller waits only for those that did: a worker that the system has not scheduled yet, on
// a machine busy with other things, costs nothing.
class Pool {
  public:
    explicit Pool(int workers) : shares_(workers + 1) {
        threads_.reserve(workers);
        try {
            for (int i = 0; i < workers; i++) threads_.emplace_back([this, i] { work(i + 1); });
        } catch (const std::system_error&) {
            // The system gives no more threads: the others take the shares of those that are missing.
        }
    }

    ~Pool() {
        stop_ = true;
        open();
        for (auto& thread : threads_) thread.join();
    }

    // Whether every worker sleeps.
    bool asleep() const { return asleep_.load(std::memory_order_relaxed) == threads_.size(); }

    int size() const { return static_cast<int>(shares_.size()); }

    void run(const Loop& loop) {
        caller_.store(sched_getcpu(), std::memory_order_relaxed);
        loop_ = loop;  // nobody is in the last loop any more, and nobody can join it
        for (std::int64_t i = 0, n = size(); i < n; i++) {
            const std::int64_t begin = loop.count * i / n;
            const std::int64_t end = loop.count * (i + 1) / n;
            shares_[i].begin = begin;
            shares_[i].end.store(end, std::memory_order_relaxed);
            shares_[i].left.store(end - begin, std::memory_order_relaxed);
        }
        left_.store(0, std::memory_order_relaxed);
        open();
        take(0);
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

    // The tasks of share `own`, then what is left of the others'.
    void take(std::size_t own) {
        for (Share& share = shares_[own]; share.claim();) loop_.body(loop_.context, share.begin++);
        for (std::size_t i = 1; i < shares_.size(); i++) {
            Share& share = shares_[(own + i) % shares_.size()];
            while (share.claim()) loop_.body(loop_.context, share.end.fetch_sub(1, std::memory_order_relaxed) - 1);
        }
    }

    void work(std::size_t own);

    Loop loop_;
    std::vector<Share> shares_;           // of the caller, then of each worker
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

void Pool::work(std::size_t own) {
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
            take(own);
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
std::atomic<int> wanted{0};  // 0: not yet asked for

void forget_after_fork() {
    owner = new std::mutex;
    pool = nullptr;
    inside = false;
}

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget_after_fork);

}  // namespace

int num_threads() {
    int count = wanted.load(std::memory_order_relaxed);
    if (count == 0) wanted.store(count = usable_cpus(), std::memory_order_relaxed);
    return count;
}

void set_num_threads(int count) {
    wanted = count > 0 ? count : usable_cpus();
}

void parallel_for(std::int64_t count, void (*body)(void*, std::int64_t), void* context, std::int64_t elements) {
    const int threads = num_threads();
    if (count <= 1 || inside || threads == 1 || !owner->try_lock()) {
        for (std::int64_t i = 0; i < count; i++) body(context, i);
        return;
    }
    std::lock_guard lock(*owner, std::adopt_lock);
    if (pool == nullptr || pool->size() != threads) {
        delete std::exchange(pool, nullptr);
        pool = new Pool(threads - 1);
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
