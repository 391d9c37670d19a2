"""All that the pickle of a PyTorch checkpoint may name, and what is done instead of it.

Reference: PyTorch 2.13, torch/_utils.py (the functions that rebuild tensors) and torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pycnn.weights.numpy_values import ArrayValue, NumpyType, scalar
from pycnn.weights.pickles import Builder
from pycnn.weights.source import Source, brief
from pycnn.weights.torch_values import DTYPES, EXTENDED_DTYPES, Elements, TensorValue

__all__ = ["vocabulary"]

_STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"},
    **{"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"},
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}
# Classes that stand among the arguments of other names and are never called.
_CLASSES = ("torch.Tensor", "numpy.ndarray")


def vocabulary(source: Source) -> dict[str, Any]:
    """What each global name stands for, as `pickles.run` wants it."""
    builders: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": partial(_mapping, source),
        "collections.Counter": partial(_counter, source),
        **{f"{module}.set": _items for module in ("builtins", "__builtin__")},
        "_codecs.encode": partial(_encode, source),
        "torch.Size": _items,
        "torch.device": _device,
        "torch._utils._rebuild_tensor": TensorValue,
        "torch._utils._rebuild_tensor_v2": partial(_tensor_v2, source),
        "torch._utils._rebuild_tensor_v3": partial(_tensor_v3, source),
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch.nn.parameter.Parameter": _parameter,
        "torch._tensor._rebuild_from_type_v2": _from_type,
        "numpy.dtype": partial(_numpy_type, source),
        **{f"numpy.{core}.multiarray._reconstruct": partial(_numpy_array, source) for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": partial(_numpy_buffer, source) for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray.scalar": partial(scalar, source) for core in ("core", "_core")},
    }
    elements = {name: Elements(name) for name in (*DTYPES, *EXTENDED_DTYPES)}
    return {
        **{name: Builder(name, build) for name, build in builders.items()},
        **{f"torch.{name}": value for name, value in elements.items()},
        **{f"torch.{name}Storage": elements[kind] for name, kind in _STORAGES.items()},
        "torch.storage.UntypedStorage": Elements(None),
        **dict.fromkeys(_CLASSES, None),
    }


def _mapping(source: Source, pairs: Any = ()) -> dict[str, Any]:
    if not isinstance(pairs, (list, tuple)):
        raise TypeError
    source.spend(160 + 100 * len(pairs))
    mapping = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise source.error(f"an OrderedDict with the item {brief(pair)}", "a string and a value")
        mapping[pair[0]] = pair[1]
    return mapping


def _counter(source: Source, counts: Any = None) -> dict[Any, Any]:
    if not isinstance(counts, (dict, type(None))):
        raise TypeError
    source.spend(160)
    return counts or {}


def _items(values: Any = ()) -> Any:
    if not isinstance(values, (list, tuple)):
        raise TypeError
    return values


def _encode(source: Source, text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise source.error(f"the bytes {brief(text)} in encoding {brief(encoding)}", "latin1")
    source.spend(len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise source.error(f"the bytes {brief(text)}", "characters up to 255") from None


def _device(kind: Any, index: Any = None) -> str:
    return f"{brief(kind)}:{brief(index)}"


def _tensor_v2(
    source: Source, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> TensorValue:
    if metadata:  # lazily conjugated or negated: the storage does not hold the tensor's own numbers
        raise source.error("a tensor that is conjugated or negated when it is read", "a plain tensor")
    return TensorValue(storage, offset, size, stride)


def _tensor_v3(
    source: Source,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    elements: Any,
    metadata: Any = None,
) -> TensorValue:
    if metadata or not isinstance(elements, Elements) or elements.name is None:
        raise source.error(f"a tensor of {brief(elements)}", "a plain tensor of a dtype")
    return TensorValue(storage, offset, size, stride, elements)


def _parameter(data: Any, *_: Any) -> Any:
    """A parameter, of which nothing but its data counts here."""
    return data


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, which are left out."""
    if not isinstance(function, Builder) or not isinstance(arguments, tuple):
        raise TypeError
    return function.build(*arguments)


def _numpy_type(source: Source, code: Any, *_: Any) -> NumpyType:
    return NumpyType(source, code)


def _numpy_array(source: Source, *_: Any) -> ArrayValue:
    return ArrayValue(source)


def _numpy_buffer(source: Source, data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> ArrayValue:
    """How protocol 5 writes an array."""
    return ArrayValue(source).fill(shape, dtype, order == "F", data)
