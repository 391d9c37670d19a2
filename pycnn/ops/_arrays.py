"""Arrays in, arrays of the same kind out: what `ops` accepts and how it hands results back.

NumPy and CuPy arrays go to the backends as they are.  torch tensors, JAX arrays and anything else with ``__dlpack__``
are looked at through a zero-copy view, NumPy's in main memory and CuPy's on a GPU, and the result is wrapped back into
the caller's kind; so are arrays with nothing but ``__cuda_array_interface__``.

On a GPU the streams are ordered as DLPack has it: CuPy's current stream waits for what the owner of an array has
begun, and that one's stream waits for CuPy's when it takes the result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from pycnn import _dlpack, backends
from pycnn.arrays import from_others
from pycnn.backends.cpu import half

Array = Any  # numpy.ndarray, cupy.ndarray, torch.Tensor, jax.Array: whatever the caller holds


def kind(array: Array) -> str:
    """Which library `array` belongs to: numpy, cupy, torch, jax, or another one's that is read by its protocol, dlpack
    or cuda_array.  Raises TypeError for anything else.
    """
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError("not a plain array: a masked array, whose mask would be lost")
        return "numpy"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    root = type(array).__module__.partition(".")[0]
    if root == "cupy":
        return root
    if root in ("jax", "jaxlib"):
        return "jax"
    if hasattr(array, "__dlpack__"):
        return "dlpack"
    if hasattr(array, "__cuda_array_interface__"):
        return "cuda_array"
    raise TypeError(f"not an array: {array!r:.60} of type {type(array).__name__}")


class Call:
    """One call's arrays: their backend, the dtype to compute in, and the way back to the caller's kind.

    Args:
        *optional: names of the arguments that may be None.
        per_channel: names of those that may be float32 where the others are float16 or bfloat16.
        **arrays: by argument name.  All must be of one library, device and floating dtype.  Arrays that are unaligned
            or of foreign byte order are copied, all others are looked at where they lie.

    Raises:
        TypeError: an argument that is no array, arrays of different libraries or dtypes, or a dtype that is not
            float16, bfloat16, float32 or float64.

    Attributes:
        wide: the dtype in which a sum is kept that is not to be rounded: float32 for 16 bits, else the arrays' own.
        backend: the module to call.
        arrays: the arrays to pass to it, in the order given (None where None was given); float16 and bfloat16 as they
            are where the backend's kernels read them, else widened to float32.
    """

    __slots__ = ("_dtype", "_half", "_kind", "_like", "_unrounded", "arrays", "backend")

    def __init__(self, *optional: str, per_channel: tuple[str, ...] = (), **arrays: Array | None) -> None:
        library, dtype, unrounded = _ready(optional, per_channel, arrays)
        if dtype is None:
            on_device = self._look(optional, per_channel, arrays)
        else:
            self._kind, self._dtype, self._half = library, dtype, dtype.char not in "fd"
            self._unrounded, self._like = unrounded, None
            self.arrays: list[Any] = list(arrays.values())
            on_device = library == "cupy"
        name = backends.selected() or ("cuda" if on_device else "cpu")
        if on_device != (name == "cuda"):
            how = "; cupy.asarray or .cuda() moves them to a GPU" if name == "cuda" else ""
            raise TypeError(f"the {name} backend does not take {self._kind} arrays{how}")
        self.backend: ModuleType = backends.get(name)
        if self._half and name not in _READ_16_BITS:
            self.widen()

    def widen(self) -> None:
        """Have 16-bit arrays in float32 for any backend, so that what is composed of several calls rounds once."""
        if self._half:
            self.arrays = [array if array is None else _as(array, _FLOAT32, self.backend) for array in self.arrays]

    def _look(self, optional: tuple[str, ...], per_channel: tuple[str, ...], arrays: dict[str, Array | None]) -> bool:
        """Find out what the arrays are, and how to see them as the backends want them; whether that is on a GPU."""
        given: dict[str, Any] = {
            name: array for name, array in arrays.items() if array is not None or name not in optional
        }
        kinds = {}
        for name, array in given.items():
            try:
                kinds[name] = kind(array)
            except TypeError:
                raise TypeError(
                    f"{name} must be an array (NumPy, CuPy, torch, JAX or DLPack), got {type(array).__name__}"
                ) from None
        self._kind = next(iter(kinds.values()))
        if any(found != self._kind for found in kinds.values()):
            raise TypeError(f"all arrays must come from one library, got {_listing(kinds)}")
        places = {name: _place(name, array, self._kind) for name, array in given.items()}
        if len(set(places.values())) > 1:
            raise TypeError(f"all arrays must be on one device, got {_listing(places)}")
        views = {name: _view(name, array, self._kind) for name, array in given.items()}
        self._like = None if self._kind in ("numpy", "cupy") else next(iter(given.values()))
        self._dtype = next(iter(views.values())).dtype
        self._half = self._dtype.char not in "fd"  # asking for the character is forty times as fast as for the name
        self._unrounded = tuple(
            [name for name in per_channel if self._half and name in views and views[name].dtype == _FLOAT32]
        )
        if any(view.dtype != self._dtype for name, view in views.items() if name not in self._unrounded):
            listing = _listing({name: str(view.dtype) for name, view in views.items()})
            raise TypeError(f"all arrays must have one dtype, got {listing}")
        if self._half and self._dtype.name not in ("float16", "bfloat16"):
            raise TypeError(
                f"{next(iter(views))} must be float16, bfloat16, float32 or float64, got dtype {self._dtype}"
            )
        self.arrays = [views.get(name) for name in arrays]
        return next(iter(places.values())) != _dlpack.CPU

    def index(self, name: str, array: Array) -> Any:
        """`array`, of the same library as the others, as int64 for the backend.  Raises TypeError if it is not."""
        if self._kind == "numpy" and type(array) is np.ndarray and array.dtype == _INT64 and array.flags.aligned:
            return array
        try:
            found = kind(array)
        except TypeError:
            raise TypeError(f"{name} must be an array of integers, got {type(array).__name__}") from None
        if found != self._kind:
            raise TypeError(f"all arrays must come from one library, got {name}: {found} beside {self._kind}")
        if found == "cupy" and array.dtype == _INT64:
            return array
        view = _view(name, array, found)
        if view.dtype.kind not in "iu":
            raise TypeError(f"{name} must be an array of integers, got dtype {view.dtype}")
        return view.astype(np.int64, copy=False)

    @property
    def wide(self) -> np.dtype[Any]:
        """See `Call`."""
        return _FLOAT32 if self._half else self._dtype

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """In which dtype the argument of this name was given."""
        return _FLOAT32 if name in self._unrounded else self._dtype

    def dtype_for(self, name: str, wanted: Any) -> np.dtype[Any]:
        """`wanted` as the dtype of a result: None for that of the arrays, or what `wide` says.  Raises TypeError."""
        if wanted is None:
            return self._dtype
        dtype = np.dtype(wanted)
        if dtype not in (self._dtype, self.wide):
            beside = f" or {self.wide}" if self._half else ""
            raise TypeError(f"{name} must be the arrays' own, {self._dtype}{beside}, got {dtype}")
        return dtype

    def back(self, result: Any, dtype: np.dtype[Any] | None = None) -> Array:
        """`result` of a backend as an array of the caller's library, in `dtype` or else the caller's own.

        Integer indices keep theirs.  What has one value a channel comes in float32 where the arrays have 16 bits.
        """
        if self._half and dtype != _FLOAT32 and result.dtype == _FLOAT32:
            result = _as(result, self._dtype, self.backend)
        return result if self._like is None else _RETURNED[self._kind](result, self._like)


_FLOAT16, _FLOAT32, _FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
_INT64 = np.dtype(np.int64)

# The backends whose kernels read float16 and bfloat16: what runs kernels/*.cu, or plans to.
_READ_16_BITS = ("cuda", "sim", "trace")

_Names = tuple[str, ...]


def _ready(
    optional: _Names, per_channel: _Names, arrays: dict[str, Array | None]
) -> tuple[str, np.dtype | None, _Names]:
    """Library and dtype of arrays that a backend can have as they are, which is nearly every call; None if not so.

    And the names of those that are float32 beside 16 bits.
    """
    dtype = None
    for name, array in arrays.items():
        if array is None and name in optional:
            continue
        if type(array) is not np.ndarray:
            return "cupy", *_ready_on_device(optional, per_channel, arrays)
        if not array.flags.aligned:
            return "numpy", None, ()
        if dtype is None:
            dtype = array.dtype
        elif array.dtype != dtype:
            return "numpy", None, ()
    return "numpy", dtype if dtype in (_FLOAT32, _FLOAT64) else None, ()


def _ready_on_device(
    optional: _Names, per_channel: _Names, arrays: dict[str, Array | None]
) -> tuple[np.dtype | None, _Names]:
    """The one dtype of CuPy's arrays on one GPU, or None, and the names of those beside it."""
    dtype = device = None
    unrounded: _Names = ()
    array: Any
    for name, array in arrays.items():
        if array is None and name in optional:
            continue
        if type(array).__module__ != "cupy":
            return None, ()
        if dtype is None:
            dtype, device = array.dtype, array.data.device_id
        elif array.data.device_id != device:
            return None, ()
        elif array.dtype != dtype:
            if name not in per_channel or array.dtype != _FLOAT32:
                return None, ()
            unrounded += (name,)
    if dtype in (_FLOAT32, _FLOAT64):
        return None if unrounded else dtype, ()
    # bfloat16 is no dtype of NumPy's own, so its name is asked for, and last.
    return dtype if dtype == _FLOAT16 or getattr(dtype, "name", "") == "bfloat16" else None, unrounded


def _as(array: Any, dtype: np.dtype[Any], backend: ModuleType) -> Any:
    """`array` between float32 and 16 bits; itself if it is in that dtype already."""
    if array.dtype == dtype:
        return array
    if type(array) is np.ndarray:
        return half.widen(array) if dtype == _FLOAT32 else half.narrow(array, dtype)
    return backend.convert(array, dtype)


def _listing(named: dict[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in named.items())


def _place(name: str, array: Array, kind: str) -> str:
    """Where `array` lies: "cpu", "cuda:0" and so on.  Raises TypeError for what neither backend can see."""
    if kind == "numpy":
        return "cpu"
    if kind == "cupy":
        return f"cuda:{array.device.id}"
    if kind == "torch":
        if array.device.type not in (_dlpack.CPU, _dlpack.CUDA):
            raise TypeError(f"{name} is a torch tensor on {array.device}, neither on a CPU nor on a CUDA GPU")
        if array.layout != sys.modules["torch"].strided:
            raise TypeError(f"{name} must be a dense torch tensor, got layout {array.layout}")
        return _dlpack.CPU if array.device.type == _dlpack.CPU else f"cuda:{array.device.index or 0}"
    if kind == "cuda_array":
        return _dlpack.CUDA
    if isinstance(array, getattr(getattr(sys.modules.get("jax"), "core", None), "Tracer", ())):
        raise TypeError(f"{name} is traced by JAX and has no elements yet; pycnn.jax has functions for that")
    try:
        place, number = _dlpack.device(array)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error
    return place if place == _dlpack.CPU else f"{place}:{number}"


def _view(name: str, array: Array, kind: str) -> Any:
    """`array` as NumPy or, of a GPU, CuPy sees it, without a copy where the bytes lie in an order native code reads."""
    if kind == "cupy":
        return array
    if kind != "numpy":
        if kind == "torch":
            array = array.detach().resolve_neg()
        try:
            array = from_others(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot be read through DLPack: {error}") from error
    return _plain(array) if isinstance(array, np.ndarray) else array


def _plain(array: np.ndarray) -> np.ndarray:
    """An aligned array of native byte order and no subclass: what native code may be handed."""
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def _to_torch(result: Any, like: Array) -> Array:
    torch = sys.modules["torch"]
    tensor = torch.from_dlpack(_dlpack.Exporter(result))
    last = torch.channels_last
    if tensor.ndim == 4 == like.ndim and not like.is_contiguous() and like.is_contiguous(memory_format=last):
        return tensor.contiguous(memory_format=last)  # the CPU engine computes in C order
    return tensor


def _to_jax(result: Any, like: Array) -> Array:
    jax = sys.modules["jax"]
    if type(result) is np.ndarray and not result.flags.writeable:  # perhaps a view of what the caller holds
        return jax.numpy.asarray(result)
    return jax.dlpack.from_dlpack(_dlpack.Exporter(result))


def _to_owner(result: Any, like: Array) -> Array:
    """To numba what is numba's; else an array of NumPy's or CuPy's, which any library reads."""
    if type(like).__module__.partition(".")[0] == "numba":
        return sys.modules["numba"].cuda.as_cuda_array(result)
    return result


_RETURNED: dict[str, Callable[[Any, Array], Array]] = {
    "torch": _to_torch,
    "jax": _to_jax,
    "dlpack": _to_owner,
    "cuda_array": _to_owner,
}
