#include "cpu/isa.h"

#include <atomic>
#include <cstring>

namespace pycnn::cpu {

namespace baseline {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

// Oldest first; the machine's best is the last supported one.
struct Entry {
    const Kernels* kernels;
    bool supported;
};

#if defined(__x86_64__)
const Entry entries[] = {
    {&baseline::kernels, true},
    {&avx2::kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
    {&avx512::kernels, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")},
};
#else
const Entry entries[] = {{&baseline::kernels, true}};
#endif

const Kernels* find(const char* name) {
    const Kernels* best = nullptr;
    for (const Entry& entry : entries) {
        if (entry.supported && (std::strcmp(name, "auto") == 0 || std::strcmp(name, entry.kernels->name) == 0)) {
            best = entry.kernels;
        }
    }
    return best;
}

std::atomic<const Kernels*> current{nullptr};

}  // namespace

bool isa_supported(const char* name) {
    return find(name) != nullptr;
}

bool set_isa(const char* name) {
    const Kernels* found = find(name);
    if (found != nullptr) current = found;
    return found != nullptr;
}

const Kernels& kernels() {
    if (current == nullptr) set_isa("auto");
    return *current;
}

}  // namespace pycnn::cpu
