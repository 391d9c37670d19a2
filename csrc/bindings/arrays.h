// Between NumPy arrays and plain pointers: checked views of inputs, and outputs on the engine's own memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <new>
#include <optional>
#include <vector>

#include "cpu/memory.h"

namespace pycnn {

namespace py = pybind11;

// A C-contiguous array of T, as the Python side promises to pass; anything else is a TypeError, never a silent copy.
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// The name of the capsules that hold the memory of `new_array`, each for one array alone.
constexpr const char* kMemory = "pycnn";

// A fresh C-contiguous array whose memory returns to the engine's cache; contents undefined.  MemoryError if it does
// not fit.
template <typename T>
Array<T> new_array(const std::vector<py::ssize_t>& shape) {
    std::size_t bytes = sizeof(T);
    bool overflow = false;
    for (const py::ssize_t size : shape) {
        overflow |= __builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes);
    }
    if (overflow) throw std::bad_alloc();
    T* data = static_cast<T*>(cpu::allocate(bytes));
    return Array<T>(shape, data, py::capsule(data, kMemory, cpu::deallocate));
}

template <typename T>
std::vector<py::ssize_t> shape_of(const Array<T>& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

template <typename T, typename U>
bool same_shape(const Array<T>& a, const Array<U>& b) {
    return a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

// Last line of defence: ops and backends/cpu.py have already said what was wrong in the caller's words.
inline void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}

template <typename T>
const T* data_or_null(const std::optional<Array<T>>& array) {
    return array ? array->data() : nullptr;
}

}  // namespace pycnn
