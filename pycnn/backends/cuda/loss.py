"""Negative log-likelihood on the CUDA backend: kernels/nll.cu.  It copies channels-last scores into C order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycnn.backends.cuda.convert import ConvertHost, convert
from pycnn.backends.cuda.device import Array, Reads, Writes
from pycnn.backends.cuda.layout import Rows, pack_int64

KERNELS = ("nll_losses", "nll_total", "nll_bwd")

# Blocks that targets are cut into at most, and the fewest targets for one; the same on every GPU, as in `reduce`.
_BLOCKS = 1024
_TARGETS = 1024

_SUM, _MEAN, _WEIGHTS = range(3)  # `Total` of kernels/nll.cu


class LossHost(ConvertHost):
    """The functions of `pycnn.backends.reference.loss` with one difference.

    Looking for a target that is no class would mean waiting for the device: the loss of such a one is NaN, and so are
    its gradients.
    """

    def nll_fwd(self, x: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str) -> Array:
        """-weight[t] * x[n, t, ...] with t = target[n, ...], 0 where it is ignored; summed, or averaged by weight."""
        self.ending("nll_fwd", x.dtype)
        if reduction == "none":
            losses = self.device.alloc(tuple(target.shape), x.dtype)
            if target.size:
                self._losses(x, x.shape, target, weight, ignore_index, losses, None)
            return losses
        what = _MEAN if reduction == "mean" else _SUM
        return convert(self, self._total(x, x.shape, target, weight, ignore_index, what), x.dtype)

    def nll_bwd(
        self,
        dy: Array,
        target: Array,
        weight: Array | None,
        x_shape: tuple[int, ...],
        ignore_index: int,
        reduction: str,
    ) -> Array:
        """dx: -weight[t] * dy at each target's class, over the sum of the weights for a mean; 0 elsewhere."""
        ending = self.ending("nll_bwd", dy.dtype)
        dx = self.device.alloc(tuple(x_shape), dy.dtype)
        if dx.size == 0:
            return dx
        total = self._total(None, x_shape, target, weight, ignore_index, _WEIGHTS) if reduction == "mean" else None
        instance = self.sources.of("nll_bwd")["w8" + ending]
        threads = 32 * instance.tile["warps"]
        rows = Rows.of(x_shape, 1, threads)
        numbers = [rows.pack(), pack_int64(ignore_index), pack_int64(reduction == "none")]
        given = [self._reads("dy", dy), self._reads("target", target), self._coefficients("weight", weight)]
        self._launch(instance, rows.blocks(threads), *numbers, *given, Reads("total", total), Writes("dx", dx))
        return dx

    def _total(
        self,
        x: Array | None,
        x_shape: Sequence[int],
        target: Array,
        weight: Array | None,
        ignore_index: int,
        what: int,
    ) -> Array:
        """The sum of the losses, their mean, or the sum of the weights, as an array of float32 without axes."""
        blocks = max(1, min(_BLOCKS, -(-target.size // _TARGETS)))
        partial = self.device.alloc((2, blocks), "float32")
        self._losses(x, x_shape, target, weight, ignore_index, None, partial)
        total = self.device.alloc((), "float32")
        numbers = (pack_int64(blocks), pack_int64(what))
        self._launch(self._only("nll_total"), 1, *numbers, Reads("partial", partial), Writes("total", total))
        return total

    def _losses(
        self,
        x: Array | None,
        x_shape: Sequence[int],
        target: Array,
        weight: Array | None,
        ignore_index: int,
        losses: Array | None,
        partial: Array | None,
    ) -> None:
        instance = self.sources.of("nll_losses")["w8" + ("" if x is None else self.ending("nll_fwd", x.dtype))]
        threads = 32 * instance.tile["warps"]
        blocks = partial.shape[1] if partial is not None else min(-(-target.size // threads), 2**31 - 1)
        shape = pack_int64(x_shape[0], x_shape[1], math.prod(x_shape[2:]), ignore_index)
        given = [self._reads("x", x), self._reads("target", target), self._coefficients("weight", weight)]
        written = [Writes("losses", losses), Writes("partial", partial)]
        self._launch(instance, blocks, shape, *given, *written)
