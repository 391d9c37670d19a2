#include <cmath>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

py::array_t<std::uint32_t> philox_uint32(py::ssize_t count, std::uint64_t seed, std::uint64_t low, std::uint64_t high) {
    require(count >= 0, "philox_uint32: count must not be negative");
    Array<std::uint32_t> words = new_array<std::uint32_t>({count});
    std::uint32_t* to = words.mutable_data();
    const ReleaseGil release;
    cpu::kernels().philox_uint32({seed, low, high}, count, to);
    return words;
}

template <typename T>
Array<T> dropout(const Array<T>& x, double p, std::uint64_t seed, std::uint64_t low, std::uint64_t high) {
    require(p >= 0.0 && p < 1.0, "dropout: p must be in [0, 1)");
    // A word w is kept if w / 2^32 >= p, that is w >= ceil(p 2^32); beyond the largest word none is.
    const double threshold = std::ceil(std::ldexp(p, 32));
    Array<T> y = new_array<T>(shape_of(x));
    T* to = y.mutable_data();
    const T* from = x.data();
    const py::ssize_t count = x.size();
    const ReleaseGil release;
    if (threshold > 4294967295.0) {
        std::fill_n(to, count, T(0));
    } else {
        const T scale = static_cast<T>(1.0 / (1.0 - p));
        cpu::operators<T>(cpu::kernels())
            .random.dropout({seed, low, high}, static_cast<std::uint32_t>(threshold), scale, count, from, to);
    }
    return y;
}

template <typename T>
void bind(py::module_& m) {
    m.def("dropout", &dropout<T>, py::arg("x").noconvert(), py::arg("p"), py::arg("seed"), py::arg("offset_low"),
          py::arg("offset_high"));
}

}  // namespace

void bind_random(py::module_& m) {
    m.def("philox_uint32", &philox_uint32, py::arg("count"), py::arg("seed"), py::arg("offset_low"),
          py::arg("offset_high"));
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
