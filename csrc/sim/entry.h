// The door from Python into one kernel: its argument layout, and a function that launches it.
#pragma once

#include <cstring>
#include <tuple>
#include <utility>

#include "cuda.h"

namespace sim {

// The arguments of a kernel in one block of bytes, each at the next multiple of its alignment: CUDA's own layout.
template <typename... Args>
struct Arguments {
    static constexpr int count = sizeof...(Args);
    static constexpr std::uint32_t sizes[] = {sizeof(Args)...};
    static constexpr std::uint32_t alignments[] = {alignof(Args)...};

    static constexpr std::uint32_t offset(int argument) {
        std::uint32_t end = 0;
        for (int i = 0; i <= argument; ++i) {
            const std::uint32_t begin = (end + alignments[i] - 1) / alignments[i] * alignments[i];
            if (i == argument) return begin;
            end = begin + sizes[i];
        }
        return end;
    }

    static std::tuple<Args...> unpack(const unsigned char* bytes) {
        std::tuple<Args...> values;
        unpack(values, bytes, std::index_sequence_for<Args...>{});
        return values;
    }

  private:
    template <std::size_t... I>
    static void unpack(std::tuple<Args...>& values, const unsigned char* bytes, std::index_sequence<I...>) {
        (std::memcpy(&std::get<I>(values), bytes + offset(I), sizeof(Args)), ...);
    }
};

template <auto kernel>
struct Kernel;

template <typename... Args, void (*kernel)(Args...)>
struct Kernel<kernel> {
    using Layout = Arguments<Args...>;

    static inline std::tuple<Args...> arguments;

    static bool launch(const Launch& launch, const unsigned char* bytes) {
        arguments = Layout::unpack(bytes);
        return engine().run(launch, [] { std::apply(kernel, arguments); });
    }
};

}  // namespace sim

// Exports one kernel instance.  pycnn/jit/host.py writes the translation unit that says this.
#define PYCNN_SIM_KERNEL(...)                                                                                    \
    extern "C" __attribute__((visibility("default"))) int pycnn_sim_launch(const sim::Launch* launch,            \
                                                                           const unsigned char* arguments) {     \
        return sim::Kernel<&__VA_ARGS__>::launch(*launch, arguments) ? 0 : 1;                                    \
    }                                                                                                            \
    extern "C" __attribute__((visibility("default"))) int pycnn_sim_parameters(std::uint32_t* offsets,           \
                                                                               std::uint32_t* sizes, int most) { \
        using Layout = sim::Kernel<&__VA_ARGS__>::Layout;                                                        \
        for (int i = 0; i < Layout::count && i < most; ++i) {                                                    \
            offsets[i] = Layout::offset(i);                                                                      \
            sizes[i] = Layout::sizes[i];                                                                         \
        }                                                                                                        \
        return Layout::count;                                                                                    \
    }
