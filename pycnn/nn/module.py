"""`Module`: a tree of layers with named parameters and buffers, PyTorch's names and state_dict keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pycnn.arrays import device_of, is_array, laid, parse_device, place
from pycnn.autograd import no_grad
from pycnn.memory_format import MemoryFormat, is_last
from pycnn.nn.parameter import Parameter
from pycnn.tensor import Tensor
from pycnn.tensor_shape import destination

__all__ = ["HookHandle", "Incompatible", "Module", "evaluating"]

M = TypeVar("M", bound="Module")


class Incompatible(NamedTuple):
    """What `Module.load_state_dict` found; both lists are empty when the keys agree."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Takes a hook off again."""

    def __init__(self, hooks: dict[int, Callable[..., Any]], key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self._key, None)


class Module:
    """Base of every layer and network: subclass it, assign layers and parameters as attributes, write `forward`.

    Attributes:
        training: True until `eval` is called; dropout and batch norm look at it.

    >>> from pycnn import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc = nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.fc(x).relu()
    >>> [name for name, _ in Net().named_parameters()]
    ['fc.weight', 'fc.bias']
    """

    training: bool
    _hooks_made: int
    _may_lack: frozenset[str] = frozenset()  # keys that old state dicts lack and loading leaves as they are

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_modules"] = {}
        own["_transient"] = set()
        own["_pre_hooks"] = {}
        own["_hooks"] = {}
        own["_hooks_made"] = 0

    # -- calling -----------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass writes its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for pre_hook in list(self._pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook in list(self._hooks.values()):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> HookHandle:
        """Call ``hook(module, args)`` before each forward; what it returns, if not None, replaces the arguments."""
        return self._add_hook(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call ``hook(module, args, result)`` after each forward; what it returns, if not None, is the result."""
        return self._add_hook(self._hooks, hook)

    def _add_hook(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> HookHandle:
        key = self._hooks_made
        self._hooks_made = key + 1
        hooks[key] = hook
        return HookHandle(hooks, key)

    # -- parts -------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_modules" not in own:
            if isinstance(value, (Module, Parameter)):
                raise AttributeError(f"call super().__init__() before assigning {name!r}")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif name in own["_parameters"]:
            if value is not None:
                raise TypeError(f"{name!r} is a parameter; assign an nn.Parameter or None, got {type(value).__name__}")
            own["_parameters"][name] = None
        elif name in own["_buffers"]:
            self.register_buffer(name, value, persistent=name not in own["_transient"])
        elif name in own["_modules"]:
            if value is not None:
                raise TypeError(f"{name!r} is a module; assign an nn.Module or None, got {type(value).__name__}")
            own["_modules"][name] = None
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            parts = own.get(kind)
            if parts is not None and name in parts:
                return parts[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for parts in (self._parameters, self._buffers, self._modules):
            if name in parts:
                del parts[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _place(self, parts: dict[str, Any], name: str, value: Any) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"a part's name must be a non-empty string without dots, got {name!r}")
        own = self.__dict__
        if name in own or hasattr(type(self), name):
            if name not in own:
                raise ValueError(f"{type(self).__name__} already has an attribute {name!r}")
            del own[name]
        for others in (self._parameters, self._buffers, self._modules):
            if others is not parts:
                others.pop(name, None)
        parts[name] = value

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter; None keeps the name with no parameter (a layer without bias)."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"parameter {name!r} must be an nn.Parameter or None, got {type(parameter).__name__}")
        self._place(self._parameters, name, parameter)

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but no parameter (running statistics); in state_dict if `persistent`."""
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, got {type(value).__name__}")
        self._place(self._buffers, name, value)
        if persistent:
            self._transient.discard(name)
        else:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under `name`; the same as assigning it."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be an nn.Module or None, got {type(module).__name__}")
        self._place(self._modules, name, module)

    # -- walking -----------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, in the order they were added."""
        for name, module in self._modules.items():
            if module is not None:
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it with dotted names, parents first, each once."""
        return self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self.named_children():
            yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules():
            yield module

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted name; "" is this one.  Raises AttributeError if there is none."""
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no child {name!r} (in {target!r})")
            module = child
        return module

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once, though it be shared."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once: what an optimiser takes."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, each once."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _named(self, kind: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in module.__dict__[kind].items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    # -- modes -------------------------------------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below; returns this module."""
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below: dropout passes through, batch norm uses its running statistics."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let gradients flow to every parameter, or to none."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call `function` on every module below, then on this one; returns this module."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def to(
        self: M,
        *wanted: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: bool = False,
        memory_format: MemoryFormat | None = None,
    ) -> M:
        """Move parameters, buffers and gradients to a device, convert the floating ones to a dtype, lay them otherwise.

        The parameters stay the same objects, so an optimiser that was made before keeps them.  What has 4 dimensions,
        filters above all, can lie channels-last, as (K, R, S, C): then gradients, optimiser state and images of the
        network do, without a copy, if its input does and a GPU's tensor cores convolve (16 bits, or a `precision` that
        allows them); see `Tensor.contiguous`.  What is saved of the network is the same.

        Args:
            *wanted: a device ("cpu", "cuda", "cuda:1"), a floating dtype, one after the other, or a Tensor to be like.
            dtype, device: the same by name.
            non_blocking: as PyTorch has it; a copy to a GPU is always in the order of its stream.
            memory_format: `pycnn.channels_last` or `pycnn.contiguous_format`; None leaves all as it is.

        Returns:
            this module.

        Raises:
            TypeError: a dtype that is not floating, or something that is no memory format.
            ValueError: a device of another name.
            MissingToolError: no CuPy, no driver or no such GPU.

        >>> from pycnn import nn
        >>> nn.Linear(2, 1).to("cpu", "float64").weight.dtype
        dtype('float64')
        """
        dtype, device = destination(wanted, dtype, device)
        if dtype is not None and dtype.kind != "f" and str(dtype) != "bfloat16":
            raise TypeError(f"dtype must be a floating dtype, got {dtype}")
        name = None if device is None else parse_device(device)
        last = None if memory_format is None else is_last(memory_format)

        def moved(array: Any) -> Any:
            if dtype is not None and array.dtype.kind in "fV" and array.dtype != dtype:
                array = array.astype(dtype)
            if name is not None:
                array = place(array, name)
            return array if last is None or array.ndim != 4 else laid(array, last)

        for tensor in [*self.parameters(), *self.buffers()]:
            array = moved(tensor.data)
            if array is not tensor.data:
                tensor.data = array
            if tensor.grad is not None:
                gradient = moved(tensor.grad.data)
                if gradient is not tensor.grad.data:
                    tensor.grad = Tensor(gradient)
        return self

    def cuda(self: M, device: int | str | None = None) -> M:
        """Move to a GPU: the current one, or the one of this number or name."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def cpu(self: M) -> M:
        """Move to main memory."""
        return self.to("cpu")

    def float(self: M) -> M:
        """Convert to float32."""
        return self.to("float32")

    def double(self: M) -> M:
        """Convert to float64."""
        return self.to("float64")

    # -- state -------------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, as PyTorch names them.

        The tensors are detached but share memory with the module, so they change as it trains; copy what must stay.
        """
        state: dict[str, Tensor] = {}
        self._save_to(state, prefix)
        return state

    def _save_to(self, state: dict[str, Tensor], prefix: str) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                state[prefix + name] = parameter.detach()
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._transient:
                state[prefix + name] = buffer.detach()
        for name, module in self.named_children():
            module._save_to(state, f"{prefix}{name}.")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Incompatible:
        """Copy the values of `state_dict` into this module's parameters and buffers.

        Everything is checked before anything is changed.

        Args:
            state_dict: arrays or tensors (pycnn's, NumPy's, torch's, ...) by name; converted to each parameter's dtype.
            strict: whether missing and unexpected keys are errors.  A batch norm's `num_batches_tracked` may always be
                missing, as it is in weights older than PyTorch 0.4.1.

        Returns:
            the missing and the unexpected keys.

        Raises:
            RuntimeError: listing every missing or unexpected key (if `strict`) and every value whose shape is wrong.
            TypeError: a state_dict that is no mapping, or a value that is no array of numbers.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays, got {type(state_dict).__name__}")
        own = self.state_dict()
        optional = {
            f"{path}.{name}" if path else name for path, module in self.named_modules() for name in module._may_lack
        }
        missing = [key for key in own if key not in state_dict and key not in optional]
        unexpected = [key for key in state_dict if key not in own]
        faults = []
        if strict and missing:
            faults.append("missing keys: " + ", ".join(missing))
        if strict and unexpected:
            faults.append("unexpected keys: " + ", ".join(map(str, unexpected)))
        values = {key: _numbers(key, state_dict[key]) for key in own if key in state_dict}
        faults += [
            f"size mismatch for {key}: the value has shape {value.shape}, the module {own[key].shape}"
            for key, value in values.items()
            if value.shape != tuple(own[key].shape)
        ]
        if faults:
            raise RuntimeError(f"cannot load this state_dict into {type(self).__name__}: " + "; ".join(faults))
        with no_grad():
            for key, value in values.items():
                own[key].copy_(value)
        return Incompatible(missing, unexpected)

    # -- printing ----------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The layer's settings as its repr shows them."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, module in self._modules.items():
            first, *rest = repr(module).split("\n")
            lines += [f"  ({name}): {first}", *("  " + line for line in rest)]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return "\n".join([head, *lines, ")"]) if lines else head + ")"


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within it `model` is in evaluation mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _numbers(key: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data
    if is_array(value) and device_of(value) != "cpu":
        return value
    if hasattr(value, "detach"):  # a torch tensor that records gradients refuses to become an array
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy has no name for; float32 holds each of them exactly
            value = value.float()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and str(array.dtype) != "bfloat16":
        raise TypeError(f"{key} must be an array of numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array
