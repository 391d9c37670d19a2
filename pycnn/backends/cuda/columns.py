"""The plan of im2col that stores its columns: kernels/im2col.cu around `sgemm`, some images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.gemm import GemmPlan, gemm_plan, sgemm
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import NARROW, pack_conv2d_shape, pack_divisors
from pycnn.backends.cuda.plan import MOVED, Operands, Plan
from pycnn.backends.cuda.slices import adder, sum_slices
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = ("im2col", "col2im")

TIER = 12  # after every implicit GEMM: it moves R*S times as many bytes

# Columns of as many images as fit are stored at a time, at least of one.
MOST_COLUMNS = 64 * 2**20  # bytes


@dataclass(frozen=True)
class ExplicitPlan(Plan):
    """Columns of some images, their product, and the next images.

    Attributes:
        operator: the pass.
        shape: the problem.
        images: whose columns are stored at a time.
        columns: the kernel that makes or reads them; None where the columns are the image itself.
        products: the kernels of the products, and of sums of partial ones.
    """

    operator: str
    shape: Conv2dShape
    images: int
    columns: Instance | None
    products: tuple[Instance, ...]

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """Those of the columns and of the products."""
        return self.products if self.columns is None else (self.columns, *self.products)

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them, chunk by chunk."""
        {"fprop": self._fprop, "dgrad": self._dgrad, "wgrad": self._wgrad}[self.operator](host, operands)

    def _fprop(self, host: HostBase, operands: Operands) -> None:
        """y = w columns."""
        w, given = self._filters(operands.w), operands.epilogue
        room = self._room(host, w.dtype)
        for chunk in self._chunks():
            residual = None if given.residual is None else self._outputs(given.residual[chunk])
            columns = self._columns_of(host, _held(operands.x)[chunk], room)
            epilogue = replace(given, residual=residual)
            sgemm(host, w, columns, self._outputs(_held(operands.y)[chunk]), epilogue=epilogue)

    def _dgrad(self, host: HostBase, operands: Operands) -> None:
        """dcolumns = w^T dy, and dx gathers from them."""
        w = self._filters(operands.w)
        room = self._room(host, w.dtype)
        for chunk in self._chunks():
            dx, dy = _held(operands.dx)[chunk], self._outputs(_held(operands.dy)[chunk])
            if room is None:
                sgemm(host, w, dy, self._as_columns(dx), trans_a=True)
                continue
            columns = self._as_columns(room[: len(dx)])
            sgemm(host, w, dy, columns, trans_a=True)
            self._launch(host, Reads("columns", columns), Writes("dx", dx), self.shape.H, self.shape.W)

    def _wgrad(self, host: HostBase, operands: Operands) -> None:
        """dw = dy columns^T for each image, added up in order; `partial[0]` is the sum of the chunks before."""
        dw, dy = _held(operands.dw), _held(operands.dy)
        partial = host.device.alloc((self.images + 1, *dw.shape), dw.dtype)
        room = self._room(host, dw.dtype)
        for chunk in self._chunks():
            columns = self._columns_of(host, _held(operands.x)[chunk], room)
            last = 1 + len(columns)
            products = partial[1:last].reshape((len(columns), *self._filters(dw).shape))
            sgemm(host, self._outputs(dy[chunk]), columns, products, trans_b=True)
            if chunk.start:
                host.device.fill(partial[0], dw)
            sum_slices(host, partial[0 if chunk.start else 1 : last], dw)

    def _chunks(self) -> Iterator[slice]:
        for first in range(0, self.shape.N, self.images):
            yield slice(first, min(first + self.images, self.shape.N))

    def _filters(self, w: Array | None) -> Array:
        """(groups, K, C*R*S), of one group."""
        s = self.shape
        return _held(w).reshape(s.groups, s.K // s.groups, s.C // s.groups * s.R * s.S)

    def _outputs(self, y: Array) -> Array:
        """(N, groups, K, P*Q)."""
        s = self.shape
        return y.reshape(len(y), s.groups, s.K // s.groups, s.P * s.Q)

    def _as_columns(self, x: Array) -> Array:
        """(N, groups, C*R*S, P*Q), of an image that is its own columns, or of columns."""
        s = self.shape
        return x.reshape(len(x), s.groups, s.C // s.groups * s.R * s.S, s.P * s.Q)

    def _room(self, host: HostBase, dtype: object) -> Array | None:
        """Memory for the columns of a chunk, the same for all of them; None where they are the image itself."""
        s = self.shape
        return None if self.columns is None else host.device.alloc((self.images, s.C, s.R, s.S, s.P, s.Q), dtype)

    def _columns_of(self, host: HostBase, x: Array, room: Array | None) -> Array:
        if room is None:
            return self._as_columns(x)
        columns = self._as_columns(room[: len(x)])
        self._launch(host, Reads("x", x), Writes("columns", columns), self.shape.P, self.shape.Q)
        return columns

    def _launch(self, host: HostBase, source: Reads, target: Writes, rows: int, columns: int) -> None:
        """A thread for each of rows x columns places of each channel."""
        assert self.columns is not None
        shape = replace(self.shape, N=len(_held(source.array)))
        threads = 32 * self.columns.tile["warps"]
        grid = grid_of(-(-shape.N * shape.C * rows * columns // threads))
        geometry = pack_divisors((columns, rows, *shape.stride[::-1]))
        arguments: list[Argument] = [pack_conv2d_shape(shape), geometry, source, target]
        host.device.launch(host.device.load(self.columns), grid, (threads, 1, 1), 0, arguments)


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """The one plan; it takes every problem."""
    s = shape
    image = 4 * s.C * s.R * s.S * s.P * s.Q  # bytes of an image's columns
    result = 4 * s.K * s.C // s.groups * s.R * s.S if operator == "wgrad" else 0  # and of what is kept of it besides
    unit = (s.R, s.S, *s.stride, *s.padding) == (1, 1, 1, 1, 0, 0, 0, 0)
    images = max(1, min(s.N, MOST_COLUMNS // (image + result)))
    places = images * s.C * (s.H * s.W if operator == "dgrad" else s.P * s.Q)
    products = [_product(operator, s, count, sources) for count in {images, s.N % images or images} if s.N]
    partial = max((4 * plan.slices * elements for plan, elements in products if plan.slices > 1), default=0)
    kernels = [plan.instance for plan, _ in products]
    if partial or operator == "wgrad":
        kernels.append(adder(sources))
    name = "col2im" if operator == "dgrad" else "im2col"
    return [
        ExplicitPlan(
            name="im2col_explicit",
            reason=None,
            tier=TIER,
            cost=s.macs + (0 if unit else MOVED * s.N * image // 4),
            why="takes every problem",
            workspace=(0 if unit else images * image) + (result and (images + 1) * result) + partial,
            operator=operator,
            shape=s,
            images=images,
            columns=None if unit else sources.of(name)["narrow" if _narrow(s, places) else "wide"],
            products=tuple(dict.fromkeys(kernels)),
        )
    ]


def _product(operator: str, s: Conv2dShape, images: int, sources: Sources) -> tuple[GemmPlan, int]:
    """The plan of `sgemm` for the columns of so many images, and the elements of its result."""
    filters, taps, pixels = s.K // s.groups, s.C // s.groups * s.R * s.S, s.P * s.Q
    m, n, k = {
        "fprop": (filters, pixels, taps),
        "dgrad": (taps, pixels, filters),
        "wgrad": (filters, taps, pixels),
    }[operator]
    batch = images * s.groups
    return gemm_plan(m, n, k, batch, operator == "dgrad", operator == "wgrad", sources), batch * m * n


def _narrow(shape: Conv2dShape, places: int) -> bool:
    """Whether the column kernels can count in 32 bits: a thread each, and coordinates of x and dy."""
    top, _, left, _ = shape.padding
    reach = (
        max(shape.H, shape.P * shape.stride[0]) + shape.R * shape.dilation[0] + top,
        max(shape.W, shape.Q * shape.stride[1]) + shape.S * shape.dilation[1] + left,
    )
    return max(places, *reach) + 2**12 < NARROW


def _held(array: Array | None) -> Array:
    """An operand that the pass has."""
    assert array is not None
    return array
