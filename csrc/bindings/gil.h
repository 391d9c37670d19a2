// Python's lock, let go while the engine computes.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

namespace pycnn {

// Other Python threads run for as long as this object lives.
//
// A daemon thread that comes back for the lock when the interpreter has gone is ended by CPython before 3.14 with
// pthread_exit, whose unwinding must not pass a destructor or pybind11's catch (...): either ends the process.  Such a
// thread sleeps here instead, as CPython 3.14 lets it, until the process is done.
class ReleaseGil {
  public:
    ReleaseGil() : state_(PyEval_SaveThread()) {}
    ReleaseGil(const ReleaseGil&) = delete;
    ReleaseGil& operator=(const ReleaseGil&) = delete;

    ~ReleaseGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (const abi::__forced_unwind&) {
            for (;;) pause();
        }
    }

  private:
    PyThreadState* state_;
};

}  // namespace pycnn
