"""Every example in a docstring runs, module by module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pycnn

# What a module may need beyond the core; its examples are skipped where that is absent.
OPTIONAL = {
    "cupy",
    "torch",
    "jax",
    "PIL",
    "matplotlib",
    "rich",
    "pooch",
    "safetensors",
    "sklearn",
    "onnx",
    "onnxruntime",
    "numba",
    "h5py",
}
NATIVE = {"pycnn._cpu"}
# Optional packages that the examples of a module use although the module itself can be imported without.
EXAMPLES_USE = {
    "pycnn.checkpoint": ["safetensors"],
    "pycnn.data.folder": ["PIL"],
    "pycnn.data.sources": ["sklearn"],
    **{f"pycnn.viz.{name}": ["matplotlib", "PIL"] for name in ("activations", "confusion", "filters", "samples")},
}

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(pycnn.__path__, "pycnn.", onerror=lambda name: None)
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["pycnn", *MODULES])
def test_doctests_pass(name: str) -> None:
    for package in EXAMPLES_USE.get(name, ()):
        pytest.importorskip(package)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in OPTIONAL or missing in NATIVE:
            pytest.skip(f"{missing} is not installed")
        raise
    native = importlib.util.find_spec("pycnn._cpu") is not None
    with pycnn.use_backend(None if native else "reference"):
        failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0, f"{failed} examples of {name} fail"
