"""Optimiser steps over many arrays in one launch on the CUDA backend: kernels/optimizer.cu and master.cu.

Everything that changes from step to step lies in device memory, so a captured CUDA graph can be replayed:

    settings  a float32 array as `sgd_settings` or `adam_settings` lists it; write to it to change the learning rate
    step      one int64, the number of this step, the first being 1; `advance(step, 1)` before each

    scale     one float32 by which the loss was multiplied, and the gradients with it; None for none
    found     one float32: not 0 where a gradient is not finite, and the step is to change nothing; None for none

Long lists take several launches of `ARRAYS` arrays each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pycnn.backends.cuda.activation import stretch_blocks, stretch_of
from pycnn.backends.cuda.device import Array, Pointers, Reads, Writes
from pycnn.backends.cuda.host import HostBase, short_name
from pycnn.backends.cuda.layout import pack_arrays, pack_float32, pack_int64
from pycnn.jit.sources import Instance
from pycnn.memory_format import lies_as, wants_channels_last

KERNELS = (
    *("sgd_step", "adam_step", "squares", "norm_total", "clip", "unscale", "count_step", "next_scale"),
    *("take_over", "widen_all", "round_all"),
)

ARRAYS = 64  # arrays of one launch: kArrays of kernels/optimizer.cu and master.cu
_MOST_BLOCKS = 2**31 - 2  # of one launch: block numbers are ints, and 2^31 - 1 stands for none

Arrays = Sequence[Array]


def sgd_settings(lr: float, momentum: float, dampening: float, weight_decay: float) -> tuple[float, ...]:
    """What `sgd_step`'s `settings` holds: `SgdSettings` of kernels/optimizer.cu."""
    return lr, momentum, 1.0 - dampening, weight_decay


def adam_settings(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> tuple[float, ...]:
    """What `adam_step`'s `settings` holds: `AdamSettings` of kernels/optimizer.cu."""
    b1, b2 = betas
    return lr, 1.0 - b1, b2, 1.0 - b2, eps, weight_decay


class OptimHost(HostBase):
    """Steps of the optimisers in `pycnn.optim`, in place, on lists of dense float32 arrays.

    Of four axes they may be channels-last: an element is stepped by itself, wherever it lies.  What is only read is
    brought to the parameter's order.
    """

    def sgd_step(
        self,
        params: Arrays,
        grads: Arrays,
        buffers: Arrays | None,
        settings: Array,
        nesterov: bool,
        first: bool,
        scale: Array | None = None,
        found: Array | None = None,
    ) -> None:
        """One step of `pycnn.optim.SGD`, bit for bit.

        Args:
            params: changed in place.
            grads: of the same shapes.
            buffers: of momentum, changed in place; None for none.
            settings: four floats, see `sgd_settings`.
            nesterov: look ahead.
            first: the buffers hold nothing yet.
            scale, found: see above.
        """
        _expect_settings(settings, 4)
        _expect_one(scale=scale, found=found)
        instance = self._only("sgd_step")
        mode = pack_int64(buffers is not None, first, nesterov)
        written = {"params": params} if buffers is None else {"params": params, "buffers": buffers}
        for table, blocks, chosen in self._chunks(instance, written, {"grads": grads}):
            kept = chosen.get("buffers", Pointers("buffers", (), written=True, capacity=ARRAYS))
            arrays = (chosen["params"], chosen["grads"], kept)
            device = (Reads("settings", settings), Reads("scale", scale), Reads("found", found))
            self._launch(instance, blocks, table, *arrays, mode, *device)

    def adam_step(
        self,
        params: Arrays,
        grads: Arrays,
        first_moments: Arrays,
        second_moments: Arrays,
        settings: Array,
        step: Array,
        decoupled: bool,
        scale: Array | None = None,
        found: Array | None = None,
    ) -> None:
        """One step of `pycnn.optim.Adam`, or of `AdamW` where `decoupled`.

        Args:
            params, first_moments, second_moments: changed in place; the moments zeros before the first step.
            grads: of the same shapes.
            settings: six floats, see `adam_settings`.
            step: one int64, the number of this step, the first being 1.
            decoupled: weight decay apart from the gradient.
            scale, found: see above.
        """
        _expect_settings(settings, 6)
        _expect_one(scale=scale, found=found)
        instance = self._only("adam_step")
        written = {"params": params, "first_moments": first_moments, "second_moments": second_moments}
        device = (Reads("settings", settings), Reads("step", step), Reads("scale", scale), Reads("found", found))
        for table, blocks, chosen in self._chunks(instance, written, {"grads": grads}):
            arrays = (chosen[name] for name in ("params", "grads", "first_moments", "second_moments"))
            self._launch(instance, blocks, table, *arrays, pack_int64(decoupled), *device)

    def gradient_norm(self, grads: Arrays) -> Array:
        """The square root of the sum of all squares, as an array without axes: nothing waits for it."""
        instance = self._only("squares")
        count = sum(stretch_blocks(instance, grad.size) for grad in grads)
        partial, norm = self.device.alloc((count,), "float32"), self.device.alloc((), "float32")
        base = 0
        for table, blocks, chosen in self._chunks(instance, {}, {"grads": grads}):
            self._launch(instance, blocks, table, chosen["grads"], pack_int64(base), Writes("partial", partial))
            base += blocks
        total = (pack_int64(count), Reads("partial", partial), Writes("norm", norm))
        self._launch(self._only("norm_total"), 1, *total)
        return norm

    def clip_gradients(self, grads: Arrays, norm: Array, max_norm: float) -> None:
        """Scale all of `grads` in place by min(1, max_norm / (norm + 1e-6)), `norm` as `gradient_norm` gives it."""
        instance = self._only("clip")
        for table, blocks, chosen in self._chunks(instance, {"grads": grads}, {}):
            self._launch(instance, blocks, table, chosen["grads"], pack_float32(max_norm), Reads("norm", norm))

    def unscale_gradients(self, grads: Arrays, scale: Array, found: Array, write: bool) -> None:
        """Set `found` to 1 if one of `grads`, times 1 / `scale`, is not finite; with `write` these become `grads`."""
        _expect_one(scale=scale, found=found)
        instance = self._only("unscale")
        device = (pack_int64(write), Reads("scale", scale), Writes("found", found))
        for table, blocks, chosen in self._chunks(instance, {"grads": grads}, {}):
            self._launch(instance, blocks, table, chosen["grads"], *device)

    def count_step(self, step: Array, found: Array) -> None:
        """Add 1 to the int64 `step`, unless `found`."""
        _expect_one(found=found)
        self._launch(self._only("count_step"), 1, Reads("found", found), Writes("step", step))

    def next_scale(
        self, founds: Arrays, scale: Array, steady: Array, growth: float, backoff: float, interval: int
    ) -> None:
        """Move `scale` as the steps went, and set `founds` to 0 for the next.

        Args:
            founds: `found` of each optimiser, at most `ARRAYS`.
            scale: times `backoff` where one of them is not 0; times `growth` after each `interval` steps in a row
                without, if that is finite.
            steady: one int64, how many there were in a row.
            interval: 0 leaves scale and count as they are.
        """
        _expect_one(scale=scale, **{f"founds[{i}]": found for i, found in enumerate(founds)})
        rule = struct.pack("<2d2q", growth, backoff, interval, len(founds))
        given = Pointers("founds", founds, written=True, capacity=ARRAYS)
        self._launch(self._only("next_scale"), 1, rule, given, Writes("scale", scale), Writes("steady", steady))

    def take_over(self, copies: Arrays, params: Arrays) -> None:
        """Make each element of the float32 `copies` that does not round to that of `params` (16 bits) be that one."""
        self._between("take_over", ("copies", copies), ("params", params), "params")

    def widen_all(self, wides: Arrays, halves: Arrays) -> None:
        """Write what `halves`, float16 or bfloat16, hold into the float32 `wides`."""
        self._between("widen_all", ("wides", wides), ("halves", halves), "halves")

    def round_all(self, params: Arrays, copies: Arrays) -> None:
        """Write the float32 `copies`, rounded, into `params`, float16 or bfloat16."""
        self._between("round_all", ("params", params), ("copies", copies), "params")

    def _between(self, kernel: str, written: tuple[str, Arrays], read: tuple[str, Arrays], half: str) -> None:
        """A kernel of master.cu, which writes one list and reads another; the one named `half` has 16 bits."""
        (to, results), (of, operands) = written, read
        if len(results) != len(operands):
            raise ValueError(f"{to} has {len(results)} arrays and {of} {len(operands)}")
        dtypes = [short_name(array.dtype) for array in (results if half == to else operands)]
        instances = self.sources.of(kernel)
        for i, short in enumerate(dtypes):
            if short not in instances:
                raise ValueError(f"{half}[{i}] must be float16 or bfloat16, got {short or 'another dtype'}")
        for short, instance in instances.items():
            chosen = [i for i, found in enumerate(dtypes) if found == short]
            if chosen:
                one: dict[str, Arrays] = {to: [results[i] for i in chosen]}
                other: dict[str, Arrays] = {of: [operands[i] for i in chosen]}
                for table, blocks, given in self._chunks(instance, one, other, half):
                    self._launch(instance, blocks, table, given[to], given[of])

    def _chunks(
        self, instance: Instance, written: dict[str, Arrays], read: dict[str, Arrays], half: str = ""
    ) -> Iterator[tuple[bytes, int, dict[str, Pointers]]]:
        """For each launch: the table of its arrays, how many blocks that are, and its pointers by name.

        All are float32, but for the list named `half`; where there is one, a thread takes eight elements at a time.
        """
        lists = {**written, **read}
        models = next(iter(lists.values()))
        lasts = [wants_channels_last(model) for model in models]
        for name, arrays in lists.items():
            self._expect_like(name, arrays, models, dense=name in written, float32=name != half)
        chunk = 256 * instance.tile["warps"] * instance.tile["vectors"] if half else stretch_of(instance)
        full = [i for i, array in enumerate(models) if array.size]
        for begin in range(0, len(full), ARRAYS):
            numbers = full[begin : begin + ARRAYS]
            table, blocks = pack_arrays([models[i].size for i in numbers], chunk, ARRAYS)
            if blocks > _MOST_BLOCKS:
                raise ValueError(f"{blocks} blocks are more than a launch may have; give fewer arrays at a time")
            yield (
                table,
                blocks,
                {
                    name: Pointers(name, [self._dense(arrays[i], lasts[i]) for i in numbers], name in written, ARRAYS)
                    for name, arrays in lists.items()
                },
            )

    def _expect_like(self, name: str, arrays: Arrays, models: Arrays, dense: bool, float32: bool) -> None:
        """Raise unless `arrays` are of the shapes of `models`; and float32, and dense to be written to, if so asked."""
        if len(arrays) != len(models):
            raise ValueError(f"{name} has {len(arrays)} arrays where there are {len(models)} parameters")
        for i, (array, model) in enumerate(zip(arrays, models, strict=True)):
            if float32:
                self._expect_float32(f"an optimiser's {name}", array.dtype)
            if tuple(array.shape) != tuple(model.shape):
                raise ValueError(f"{name}[{i}] has shape {tuple(array.shape)}, its parameter {tuple(model.shape)}")
            if dense and not lies_as(array, wants_channels_last(model)):
                raise ValueError(
                    f"{name}[{i}] is changed in place, so it must be C-contiguous, or channels-last with its parameter"
                )


def _expect_one(**given: Array | None) -> None:
    for name, array in given.items():
        if array is not None and (str(array.dtype) != "float32" or array.size != 1):
            raise ValueError(f"{name} must be one float32, got {array.dtype} of shape {tuple(array.shape)}")


def _expect_settings(settings: Array, count: int) -> None:
    if str(settings.dtype) != "float32" or settings.size != count:
        raise ValueError(f"settings must be {count} float32, got {settings.dtype} of shape {tuple(settings.shape)}")
