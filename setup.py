"""Build of the native engine: one pybind11 module, its kernels compiled once for each instruction set."""

import glob
import hashlib
import os
import platform

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup
from setuptools.command.build_clib import build_clib

ParallelCompile("PYCNN_BUILD_JOBS", default=os.cpu_count() or 1).install()

WARNINGS = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("PYCNN_WERROR") else []
FLAGS = ["-std=c++20", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", *WARNINGS]

# .ci/sanitize asks for "address,undefined" or "thread".
SANITIZE = []
if sanitizers := os.environ.get("PYCNN_SANITIZE"):
    SANITIZE = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]
    FLAGS += SANITIZE

# Instruction set: (bytes in a vector, compiler flags).  csrc/cpu/isa.cpp chooses among them at run time.
ISAS = {"baseline": (16, [])}
if platform.machine() in ("x86_64", "AMD64"):
    avx512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
    ISAS["avx2"] = (32, ["-mavx2", "-mfma"])
    ISAS["avx512"] = (64, ["-mavx2", "-mfma", *avx512])

HEADERS = sorted(glob.glob("csrc/**/*.h", recursive=True))


class BuildKernels(build_clib):
    """Keeps each instruction set's objects apart: they come from the same sources."""

    def build_libraries(self, libraries):
        root = self.build_temp
        for library in libraries:
            self.build_temp = os.path.join(root, library[0])
            super().build_libraries([library])
        self.build_temp = root


def kernels(isa, vector_bytes, flags):
    sources = sorted(glob.glob("csrc/cpu/kernels/*.cpp"))
    defines = [f"-DPYCNN_ISA_NAMESPACE={isa}", f"-DPYCNN_VECTOR_BYTES={vector_bytes}"]
    return (
        f"pycnn_{isa}",
        {
            "sources": sources,
            "include_dirs": ["csrc"],
            "cflags": [*FLAGS, *flags, *defines],
            "obj_deps": {"": HEADERS},
        },
    )


def engine():
    """The hash of everything that the kernels are built from."""
    flags = [flag for flag in FLAGS if flag not in WARNINGS]
    digest = hashlib.sha256(repr((flags, ISAS)).encode())
    for source in sorted(glob.glob("csrc/cpu/**/*", recursive=True)):
        if os.path.isfile(source):
            with open(source, "rb") as file:
                digest.update(source.encode() + file.read())
    return digest.hexdigest()[:16]


# The one file that knows the hash, so that a compiler cache finds the others unchanged.
identity = (
    "pycnn_identity",
    {"sources": ["csrc/identity.cpp"], "cflags": [*FLAGS, f'-DPYCNN_ENGINE="{engine()}"'], "obj_deps": {"": HEADERS}},
)

module = Pybind11Extension(
    "pycnn._cpu",
    sorted(glob.glob("csrc/bindings/*.cpp") + glob.glob("csrc/cpu/*.cpp")),
    include_dirs=["csrc"],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread", *SANITIZE],
    depends=[*HEADERS, *glob.glob("csrc/cpu/kernels/*.cpp")],  # linked in as libraries, whose age setuptools ignores
)

setup(
    packages=[*find_packages(include=["pycnn", "pycnn.*"]), "pycnn.kernels"],
    package_dir={"pycnn.kernels": "kernels"},
    package_data={
        "pycnn": ["*.pyi", "py.typed", "tables/*.json", "data/imagenet_classes.txt"],
        "pycnn.kernels": ["*.cu", "*.cuh", "*.toml", "arch/*"],
    },
    libraries=[identity, *(kernels(isa, *built) for isa, built in ISAS.items())],
    ext_modules=[module],
    cmdclass={"build_clib": BuildKernels},
)
