// Python's lock, let go while the engine computes.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include "cpu/threads.h"

namespace pycnn {

// Other Python threads run for as long as this object lives.
//
// A daemon thread that comes back for the lock when the interpreter has gone is ended by CPython before 3.14 with
// pthread_exit, whose unwinding must not pass a destructor or pybind11's catch (...): either ends the process.  Such a
// thread sleeps here instead, as CPython 3.14 lets it, until the process is done.
//
// `operations` says how much there is to compute, in multiply-adds or elements read or written, roughly.  What takes
// some microseconds keeps the lock: threads that call for such work would spend more time on handing it to one another.
// Where each caller is to use one thread alone, much less is brief: nobody else computes while the lock is held.
class ReleaseGil {
  public:
    static constexpr double kBrief = 1 << 20;
    static constexpr double kBriefAlone = 1 << 15;

    explicit ReleaseGil(double operations = kBrief)
        : state_(operations < (cpu::num_threads() > 1 ? kBrief : kBriefAlone) ? nullptr : PyEval_SaveThread()) {}
    ReleaseGil(const ReleaseGil&) = delete;
    ReleaseGil& operator=(const ReleaseGil&) = delete;

    ~ReleaseGil() {
        if (state_ == nullptr) return;
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {  // nothing else comes out of there, and a reference to what is no object of C++ would be null
            for (;;) pause();
        }
    }

  private:
    PyThreadState* state_;
};

}  // namespace pycnn
