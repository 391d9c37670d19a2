#include "engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

// The built-in variables of CUDA, set before a fiber goes on.
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace sim {

namespace {

constexpr std::size_t kStack = 64 * 1024;
constexpr std::size_t kStackStride = kStack + 832;  // not a power of two: the stacks' tops must not share a cache set
constexpr std::size_t kSharedArena = 256 * 1024;    // more than any GPU has for a block
constexpr std::size_t kSharedFence = 64;            // bytes below each shared object that must stay as they were
constexpr unsigned char kPoison = 0xFF;             // four of them are a NaN, or -1
constexpr std::uint64_t kStackEnd = 0x5AFE57AC5AFE57AC;  // lies at the far end of each stack and must stay there
constexpr std::size_t kSignalStack = 64 * 1024;
constexpr std::ptrdiff_t kNear = 1024 * 1024;  // a fault farther from every buffer is no stray index into one

sigjmp_buf after_fault;
pthread_t launching_thread;

std::size_t page_size() {
    return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

unsigned char* map(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("pycnn simulator: mmap");
        std::abort();
    }
    return static_cast<unsigned char*>(memory);
}

// While it lives: faults and the timer come to the engine's handlers, on a stack that is certainly good, and the timer
// runs.  Both handlers go back to run_blocks with a message written.
class Signals {
  public:
    Signals(std::uint32_t patience, void (*on_fault)(int, siginfo_t*, void*), void (*on_timer)(int)) {
        static unsigned char stack[kSignalStack];
        stack_t alternate{};
        alternate.ss_sp = stack;
        alternate.ss_size = sizeof stack;
        sigaltstack(&alternate, &stack_before_);

        struct sigaction fault{}, timer{};
        fault.sa_sigaction = on_fault;
        fault.sa_flags = SA_SIGINFO | SA_ONSTACK;
        timer.sa_handler = on_timer;
        timer.sa_flags = SA_ONSTACK;
        sigaction(SIGSEGV, &fault, &segv_before_);
        sigaction(SIGBUS, &fault, &bus_before_);
        sigaction(SIGVTALRM, &timer, &timer_before_);

        launching_thread = pthread_self();
        set_timer(patience);
    }

    ~Signals() {
        set_timer(0);
        sigaction(SIGVTALRM, &timer_before_, nullptr);
        sigaction(SIGBUS, &bus_before_, nullptr);
        sigaction(SIGSEGV, &segv_before_, nullptr);
        sigaltstack(&stack_before_, nullptr);
    }

    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

  private:
    static void set_timer(std::uint32_t seconds) {
        const itimerval once{{0, 0}, {static_cast<time_t>(seconds), 0}};
        setitimer(ITIMER_VIRTUAL, &once, nullptr);
    }

    stack_t stack_before_{};
    struct sigaction segv_before_{}, bus_before_{}, timer_before_{};
};

}  // namespace

Engine& engine() {
    static Engine the_engine;
    return the_engine;
}

Engine::Engine() : shared_(map(kSharedArena + page_size())) {
    mprotect(shared_ + kSharedArena, page_size(), PROT_NONE);
}

Engine::~Engine() {
    munmap(shared_, kSharedArena + page_size());
    unmap_stacks();
}

void Engine::unmap_stacks() {
    if (stacks_ != nullptr) munmap(stacks_ - page_size(), page_size() + stacks_bytes_);
}

// ---------------------------------------------------------------------------------------------------------------------
// A launch

bool Engine::run(const Launch& launch, void (*body)()) {
    launch_ = &launch;
    body_ = body;
    failed_ = false;
    random_state_ = launch.seed * 2 + 1;
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    make_threads(std::size_t{launch.block[0]} * launch.block[1] * launch.block[2]);

    std::vector<std::uint64_t> blocks(launch.block_count);
    if (launch.blocks != nullptr)
        std::copy_n(launch.blocks, launch.block_count, blocks.begin());
    else
        std::iota(blocks.begin(), blocks.end(), 0);
    if (launch.order == kReverse) std::reverse(blocks.begin(), blocks.end());
    if (launch.order == kRandom)
        for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random(i)]);

    const Signals signals(launch.patience, &Engine::on_fault, &Engine::on_timer);
    run_blocks(blocks);
    return !failed_;
}

void Engine::run_blocks(const std::vector<std::uint64_t>& blocks) {
    if (sigsetjmp(after_fault, 1) != 0) return;  // a fault: the message is written
    for (const std::uint64_t block : blocks)
        if (!run_block(block)) return;
}

void Engine::make_threads(std::size_t count) {
    if (stacks_bytes_ < count * kStackStride) {
        unmap_stacks();
        stacks_bytes_ = count * kStackStride;
        stacks_ = map(page_size() + stacks_bytes_) + page_size();
        mprotect(stacks_ - page_size(), page_size(), PROT_NONE);  // below the first stack
    }
    threads_.resize(count);
    warps_.resize((count + 31) / 32);
    ready_.assign(count, nullptr);
}

bool Engine::run_block(std::uint64_t block) {
    const std::uint64_t row = block / gridDim.x;
    blockIdx = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(row % gridDim.y),
                static_cast<unsigned>(row / gridDim.y)};
    shared_objects_.clear();
    at_barrier_ = 0;
    ready_begin_ = ready_count_ = finished_ = 0;
    for (Warp& warp : warps_) warp.arrived = 0;

    everyone_.clear();
    for (std::size_t i = 0; i < threads_.size(); ++i) {
        Thread& thread = threads_[i];
        thread.number = static_cast<std::uint32_t>(i);
        thread.index = {thread.number % blockDim.x, thread.number / blockDim.x % blockDim.y,
                        thread.number / blockDim.x / blockDim.y};
        thread.warp = &warps_[i / 32];
        thread.waiting = nullptr;
        thread.finished = false;
        thread.copies.clear();
        thread.groups = 0;
        unsigned char* stack = stacks_ + i * kStackStride;
        std::memcpy(stack, &kStackEnd, sizeof kStackEnd);
        thread.fiber.prepare(stack, kStack, &Engine::thread_main);
        everyone_.push_back(&thread);
    }
    make_ready(everyone_);
    current_ = &scheduler_;
    go_on();  // comes back when no thread can run
    if (failed_) return false;
    if (finished_ != threads_.size()) return report_stuck();
    return check_stacks() && check_shared_fences();
}

// ---------------------------------------------------------------------------------------------------------------------
// Who runs

// Lets `threads` (ascending) run again, in the launch's order and before all others: a warp goes as far ahead of the
// other warps as barriers let it, so that a missing one shows.
void Engine::make_ready(std::span<Thread* const> threads) {
    ready_begin_ = (ready_begin_ + ready_.size() - threads.size()) % ready_.size();
    ready_count_ += threads.size();
    std::size_t place = ready_begin_;
    const auto put = [this, &place](Thread* thread) {
        thread->waiting = nullptr;
        ready_[place++ % ready_.size()] = thread;
    };
    if (launch_->order == kReverse)
        std::for_each(threads.rbegin(), threads.rend(), put);
    else
        std::for_each(threads.begin(), threads.end(), put);
}

// Switches from the current fiber to the next that can run, or to the scheduler if none can.
void Engine::go_on() {
    Thread& from = *current_;
    Thread* to = &scheduler_;
    if (ready_count_ > 0 && !failed_) {
        if (launch_->order == kRandom)
            std::swap(ready_[ready_begin_], ready_[(ready_begin_ + random(ready_count_)) % ready_.size()]);
        to = ready_[ready_begin_];
        ready_begin_ = (ready_begin_ + 1) % ready_.size();
        --ready_count_;
    }
    if (to == &from) return;
    current_ = to;
    threadIdx = to->index;
    Fiber::switch_to(from.fiber, to->fiber);
}

void Engine::thread_main() {
    Engine& self = engine();
    self.body_();
    self.current_->finished = true;
    ++self.finished_;
    self.go_on();
    std::abort();  // a finished thread is never resumed
}

void Engine::wait(const char* what, std::source_location where) {
    current_->waiting = what;
    current_->where = where;
    go_on();
}

std::uint64_t Engine::random(std::uint64_t below) {
    random_state_ = random_state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator
    return (random_state_ >> 33) % below;
}

// ---------------------------------------------------------------------------------------------------------------------
// Barriers, collectives, shared memory

void Engine::barrier(std::source_location where) {
    const Thread* first = first_at_barrier_;
    if (at_barrier_ == 0)
        first_at_barrier_ = current_;
    else if (first->where.line() != where.line() || std::strcmp(first->where.file_name(), where.file_name()) != 0)
        fail("reaches the barrier of line %u while thread (%u, %u, %u) waits at the one of line %u", where.line(),
             first->index.x, first->index.y, first->index.z, first->where.line());
    if (++at_barrier_ < threads_.size()) return wait("the barrier", where);
    at_barrier_ = 0;
    make_ready(everyone_);  // the last to arrive queues up with the others, in the launch's order
    go_on();
}

void* Engine::shared_object(const void* key, std::size_t bytes, bool dynamic) {
    for (const SharedObject& object : shared_objects_)
        if (object.key == key) return object.begin;

    if (dynamic && bytes > launch_->dynamic_shared)
        fail("uses %zu bytes of dynamic shared memory, but the launch names %llu", bytes,
             static_cast<unsigned long long>(launch_->dynamic_shared));
    std::size_t used = dynamic ? bytes : bytes + launch_->dynamic_shared;
    unsigned char* top = shared_ + kSharedArena;
    for (const SharedObject& object : shared_objects_) {
        used += object.bytes;
        top = object.begin - kSharedFence;
    }
    if (used > launch_->shared_limit)
        fail("the block uses %zu bytes of shared memory; this arch has %llu", used,
             static_cast<unsigned long long>(launch_->shared_limit));

    unsigned char* begin = top - (bytes + 15) / 16 * 16;
    std::memset(begin - kSharedFence, kPoison, static_cast<std::size_t>(top - begin) + kSharedFence);
    shared_objects_.push_back({key, begin, bytes});
    return begin;
}

bool Engine::is_shared(const void* begin, std::size_t bytes) const {
    const auto* first = static_cast<const unsigned char*>(begin);
    return std::any_of(shared_objects_.begin(), shared_objects_.end(), [first, bytes](const SharedObject& object) {
        return first >= object.begin && first + bytes <= object.begin + object.bytes;
    });
}

bool Engine::check_stacks() {
    for (const Thread& thread : threads_) {
        if (std::memcmp(stacks_ + thread.number * kStackStride, &kStackEnd, sizeof kStackEnd) == 0) continue;
        report("thread (%u, %u, %u) needs more than %zu bytes of stack", thread.index.x, thread.index.y, thread.index.z,
               kStack);
        return false;
    }
    return true;
}

bool Engine::check_shared_fences() {
    for (const SharedObject& object : shared_objects_) {
        const auto spoiled = [](unsigned char byte) { return byte != kPoison; };
        const unsigned char* end = object.begin + (object.bytes + 15) / 16 * 16;
        if (std::any_of(object.begin - kSharedFence, object.begin, spoiled) ||
            std::any_of(static_cast<const unsigned char*>(object.begin + object.bytes), end, spoiled)) {
            report("some thread wrote outside the shared memory of the block");
            return false;
        }
    }
    return true;
}

void Engine::collective(std::uint32_t mask, void* argument, Combine combine, const char* name,
                        std::source_location where) {
    Thread& self = *current_;
    Warp& warp = *self.warp;
    const std::uint32_t bit = 1u << self.lane();
    if ((mask & bit) == 0) fail("calls %s with mask %08x, in which its own lane is missing", name, mask);
    warp.argument[self.lane()] = argument;
    warp.operation[self.lane()] = reinterpret_cast<const void*>(combine);
    warp.mask[self.lane()] = mask;
    warp.arrived |= bit;
    if ((warp.arrived & mask) != mask) return wait(name, where);

    Thread* meeting[32];
    std::size_t count = 0;
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        if (warp.mask[lane] != mask || warp.operation[lane] != reinterpret_cast<const void*>(combine))
            fail("calls %s with mask %08x, but lane %u of its warp is in another collective", name, mask, lane);
        meeting[count++] = &self - self.lane() + lane;
    }
    combine(warp.argument, mask);
    warp.arrived &= ~mask;
    make_ready({meeting, count});
    go_on();
}

// ---------------------------------------------------------------------------------------------------------------------
// Errors

void Engine::report(const char* format, ...) {
    failed_ = true;
    const int head = std::snprintf(launch_->message, launch_->message_size, "%s, block (%u, %u, %u): ", launch_->kernel,
                                   blockIdx.x, blockIdx.y, blockIdx.z);
    const auto used = std::min(static_cast<std::uint64_t>(head), launch_->message_size);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(launch_->message + used, launch_->message_size - used, format, arguments);
    va_end(arguments);
}

void Engine::fail(const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report("thread (%u, %u, %u) %s", current_->index.x, current_->index.y, current_->index.z, text);
    go_on();  // to the scheduler, for good
    std::abort();
}

// Threads are left, and none of them can run: some wait for others that returned or wait for something else.
bool Engine::report_stuck() {
    const Thread* waits = nullptr;
    for (const Thread& thread : threads_)
        if (thread.waiting != nullptr && waits == nullptr) waits = &thread;
    const Thread* misses = nullptr;
    for (const Thread& thread : threads_)
        if (misses == nullptr && (thread.finished || std::strcmp(thread.waiting, waits->waiting) != 0))
            misses = &thread;
    if (misses == nullptr) misses = waits;
    report("thread (%u, %u, %u) waits at %s of line %u, which not all threads reach: thread (%u, %u, %u) %s%s",
           waits->index.x, waits->index.y, waits->index.z, waits->waiting, waits->where.line(), misses->index.x,
           misses->index.y, misses->index.z, misses->finished ? "has returned" : "waits at ",
           misses->finished ? "" : misses->waiting);
    return false;
}

void Engine::on_fault(int signal, siginfo_t* info, void* context) {
    if (!pthread_equal(pthread_self(), launching_thread)) {  // not ours: let it end the process as it would have
        ::signal(signal, SIG_DFL);
        return;
    }
    const char* verb = "touches";
#if defined(__x86_64__)
    const auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
    verb = (machine->gregs[REG_ERR] & 2) != 0 ? "writes" : "reads";
#else
    static_cast<void>(context);
#endif
    engine().describe_fault(info->si_addr, verb);
    siglongjmp(after_fault, 1);
}

void Engine::on_timer(int signal) {
    if (!pthread_equal(pthread_self(), launching_thread)) {  // the signal is for the process; pass it on
        pthread_kill(launching_thread, signal);
        return;
    }
    Engine& self = engine();
    const uint3 thread = self.current_->index;
    self.report("thread (%u, %u, %u) still runs after %u s", thread.x, thread.y, thread.z, self.launch_->patience);
    siglongjmp(after_fault, 1);
}

void Engine::describe_fault(const void* fault, const char* verb) {
    const auto* address = static_cast<const unsigned char*>(fault);
    const char* name = nullptr;
    std::ptrdiff_t distance = 0;  // negative: before the buffer; positive: past its end; 0: inside, so not writable
    const auto consider = [&](const unsigned char* begin, const unsigned char* end, const char* candidate) {
        const std::ptrdiff_t away = address < begin ? address - begin : address >= end ? address - end + 1 : 0;
        if (name != nullptr && std::abs(away) >= std::abs(distance)) return;
        name = candidate;
        distance = away;
    };
    for (std::uint64_t i = 0; i < launch_->buffer_count; ++i)
        consider(launch_->buffers[i].begin, launch_->buffers[i].end, launch_->buffers[i].name);
    for (const SharedObject& object : shared_objects_)
        consider(object.begin, object.begin + object.bytes, "its shared memory");

    const uint3 thread = current_->index;
    if (name == nullptr || std::abs(distance) > kNear)
        report("thread (%u, %u, %u) %s address %p, which no buffer is near", thread.x, thread.y, thread.z, verb, fault);
    else if (distance == 0)
        report("thread (%u, %u, %u) %s %s, which is an input", thread.x, thread.y, thread.z, verb, name);
    else
        report("thread (%u, %u, %u) %s %td bytes %s %s", thread.x, thread.y, thread.z, verb, std::abs(distance),
               distance < 0 ? "before the start of" : "past the end of", name);
}

}  // namespace sim
