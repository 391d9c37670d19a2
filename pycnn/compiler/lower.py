"""From a graph to the calls of a native program, for one batch size and one vector width.

Before any step is written, the graph is gone through backwards to say where values will lie: what a concatenation or a
padding reads, within the whole; what an elementwise step or the sum of a shortcut reads for the last time, in the place
of the result.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from pycnn import ops, winograd
from pycnn.compiler.choose import SHARED, Choice, choose
from pycnn.compiler.graph import CompileError, Graph, Node, Value
from pycnn.compiler.operations import channels, conv_shape, image
from pycnn.compiler.plan import Flat, Images, Packed, Part, Plan, Room
from pycnn.compiler.values import Values
from pycnn.shape import Conv2dShape

__all__ = ["lower"]

Array = np.ndarray[Any, Any]
Image = tuple[int, int, int]
_SHORT = 64  # products of a sum, up to which the planes that it is written to take longer than the sum
_IN_PLACE = ("relu", "tanh", "sigmoid", "activation", "affine", "add", "mul", "scale")


def lower(graph: Graph, batch: int, lanes: int, channels_last: bool = False) -> Plan:
    """The steps that compute `graph` for `batch` images, with vectors of `lanes` floats.

    Inputs and outputs with rows and columns lie in memory as NCHW, or all of them channels-last.

    Raises:
        CompileError: an operation on shapes that no step computes.
        ValueError: a layer's own choice of algorithm that cannot run.
    """
    return _Lowering(graph, batch, lanes, channels_last).plan()


class _Lowering(Values):
    def __init__(self, graph: Graph, batch: int, lanes: int, channels_last: bool) -> None:
        super().__init__(graph, batch, lanes, channels_last)
        self.channels_last = channels_last
        self.large = {node: (i, w) for i, node in enumerate(graph.nodes) if (w := node.constants.get("w")) is not None}
        self.resident = self.fits_into_cache()
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.overwritten: dict[Value, int] = {}  # by root: which node writes its output over it

    def fits_into_cache(self) -> bool:
        """Whether all filters, kept transformed where that is faster, stay in cache between calls."""
        room = float(SHARED - sum(4 * weight.size for _, weight in self.large.values()))
        for node, (_, weight) in self.large.items():
            if room < 0:
                return False
            if node.op == "conv2d" and weight.shape[2:] in ((3, 3), (5, 5)):
                shape = conv_shape(node.inputs[0].shape, weight.shape, node.settings, self.batch)
                choice = choose(_one_group(shape), node["algo"], self.lanes, resident=True)
                if choice.keep:
                    points = (int(winograd.tile_of(choice.algo) or 0) + shape.R - 1) ** 2
                    room += 4 * weight.size * (1 - points / (shape.R * shape.S))
        return room >= 0

    def choose(self, node: Node, shape: Conv2dShape) -> Choice:
        """The algorithm of a convolution."""
        return choose(shape, node["algo"], self.lanes, self.resident)

    def plan(self) -> Plan:
        for node in reversed(self.nodes):
            self.share_inputs(node)
        for node in self.nodes:
            self.node = node
            _LOWER[node.op](self, node)
        self.node = None
        for i, value in enumerate(self.graph.outputs):
            if self.channels_last and len(value.shape) == 3:
                self.last_of(value, Images(Flat(None, "output", i), *image(value.shape), channels_last=True))
                continue
            found = self.dense_of(value)
            if found != (target := Flat(None, "output", i)):
                self.step("copy", found, target, self.batch * math.prod(value.shape))
        naive = sum(self.room(image(node.output.shape)).floats for node in self.nodes)
        return Plan(self.batch, self.steps, naive)

    # ------------------------------------------------------------------------------------------------- memory

    def share_inputs(self, node: Node) -> None:
        """Give the inputs of `node` places within that of its output, where they can be written there directly."""
        y = node.output
        if node.op == "concat" and self.by_vectors(node):
            for value, offset in self.starts(node):
                self.share_part(value, y, offset)
        elif node.op == "pad" and self.by_vectors(node):
            self.share_part(node.inputs[0], y, self.before(node))
        elif node.op in _IN_PLACE:
            any(self.share_whole(value, node) for value in node.inputs)
        elif node.op == "conv2d" and len(node.inputs) == 2:
            # Each element of the residual is read by whoever writes that of the sum.
            x, residual = node.inputs
            if self.root(x) is not self.root(residual):
                self.share_whole(residual, node)

    def share_whole(self, value: Value, node: Node) -> bool:
        """Let `value` lie where `node`, the last to read it, writes its output."""
        if not self.ends(value, node) or not self.share(value, self.place_of(node.output)):
            return False
        self.overwritten[self.root(value)] = self.position[node]
        return True

    def share_part(self, value: Value, whole: Value, offset: Image) -> None:
        """Let `value` lie within `whole`, unless it is still read when somebody else's output takes that place."""
        root, end = self.root(value), self.overwritten.get(self.root(whole))
        last = self.last_use[root]
        if end is not None and (last is None or self.position[last] >= end):
            return
        if self.share(value, self.place_of(whole).inside(*offset, *image(value.shape))) and end is not None:
            self.overwritten[root] = end

    def ends(self, value: Value, node: Node) -> bool:
        """Whether `node` is the last to read `value`, in the form in which it was made."""
        root = self.root(value)
        return self.last_use[root] is node and root not in self.dense and image(root.shape) == image(value.shape)

    def by_vectors(self, node: Node) -> bool:
        """Whether the parts of a concatenation, or what a padding is put around, start at whole vectors of channels."""
        starts = [self.before(node)] if node.op == "pad" else [start for _, start in self.starts(node)]
        return all(channel % self.lanes == 0 for channel, _, _ in starts)

    def before(self, node: Node) -> Image:
        """How much a padding puts before each axis."""
        return _axes(node, [before for before, _ in node["sides"]], 0)

    def starts(self, node: Node) -> list[tuple[Value, Image]]:
        """Each part of a concatenation with the place where it starts."""
        found, start = [], 0
        for value in node.inputs:
            axis = [start if i == node["axis"] else 0 for i in range(len(value.shape))]
            found.append((value, _axes(node, axis, 0)))
            start += value.shape[node["axis"]]
        return found

    def weights(
        self, node: Node, kind: str, rows: tuple[int, int] | None = None, columns: Image | None = None
    ) -> Packed:
        """The weight of a layer, or some rows of it, for a kernel of this kind."""
        index, weight = self.large[node]
        first, last = rows or (0, weight.shape[0])
        return Packed((index, kind, first, last, columns), kind, weight, first, last, columns)

    # ------------------------------------------------------------------------------------------------- layers

    def conv2d(self, node: Node) -> None:
        x, w = node.inputs[0], node.constants["w"]
        shape = conv_shape(x.shape, w.shape, node.settings, self.batch)
        groups, lanes = shape.groups, self.lanes
        if groups == 1:
            self.one_group(node, shape)
        elif shape.C // groups % lanes == 0 and shape.K // groups % lanes == 0:
            self.several_groups(node, shape)
        elif node["algo"] != "auto" and self.choose(node, shape).algo != "direct":
            raise CompileError(f"{node['algo']} has no compiled form for {groups} groups (in module {node.name})")
        elif shape.C == shape.K == groups and not self.is_nchw(node.inputs[0], node.output):
            self.depthwise(node, shape)
        else:
            self.from_array_to_array(node, shape)

    def one_group(self, node: Node, shape: Conv2dShape) -> None:
        residual = self.packed_of(node.inputs[1]) if len(node.inputs) > 1 else None
        choice = self.choose(node, shape)
        tiled = choice.algo != "direct"
        short = not tiled and residual is None and shape.C * shape.R * shape.S <= _SHORT
        if short and self.is_nchw(node.inputs[0], node.output):
            self.from_array_to_array(node, shape)
            return
        dilated = tiled and shape.dilation != (1, 1)  # takes every second or third pixel
        last = tiled and self.channels_last
        x = self.readable(node.inputs[0], packed=dilated or (last and shape.C % self.lanes != 0))
        packed = dilated or residual is not None or (last and shape.K % self.lanes != 0)
        y = self.writable(node.output, packed)
        self.conv(node, shape, x, y, residual, choice, (0, shape.K))

    def conv(
        self,
        node: Node,
        shape: Conv2dShape,
        x: Part | Images,
        y: Part | Images,
        residual: Part | None,
        choice: Choice,
        rows: tuple[int, int],
    ) -> None:
        b = node.constants.get("b")
        self.step(
            "conv",
            x,
            y,
            self.weights(node, "conv", rows),
            None if b is None else b[slice(*rows)],
            flops=shape.flops // shape.groups,
            stride=shape.stride,
            padding=shape.padding[::2],
            dilation=shape.dilation,
            residual=residual,
            clamp=node["clamp"],
            algo=choice.algo,
            keep=choice.keep,
        )

    def several_groups(self, node: Node, shape: Conv2dShape) -> None:
        """Groups of whole vectors: a convolution each, on slices of the channels."""
        groups, one = shape.groups, _one_group(shape)
        depth, width = one.C, one.K
        choice = self.choose(node, one)
        x, y = self.packed_of(node.inputs[0]), self.made(node.output)
        for group in range(groups):
            source = x.inside(group * depth, 0, 0, depth, shape.H, shape.W)
            target = y.inside(group * width, 0, 0, width, shape.P, shape.Q)
            self.conv(node, shape, source, target, None, choice, (group * width, (group + 1) * width))

    def depthwise(self, node: Node, shape: Conv2dShape) -> None:
        last = self.is_channels_last(node.inputs[0], node.output) and shape.C % self.lanes == 0
        self.step(
            "depthwise",
            self.readable(node.inputs[0], packed=not last),
            self.writable(node.output, packed=not last),
            self.weights(node, "depthwise"),
            node.constants.get("b"),
            flops=shape.flops,
            stride=shape.stride,
            padding=shape.padding[::2],
            dilation=shape.dilation,
            clamp=node["clamp"],
        )

    def from_array_to_array(self, node: Node, shape: Conv2dShape) -> None:
        """By the engine's own kernels for NCHW."""
        source, target = self.dense_of(node.inputs[0]), self.dense_for(node.output)
        self.step(
            "conv_nchw",
            source,
            target,
            node.constants["w"],
            node.constants.get("b"),
            flops=shape.flops,
            image=(shape.C, shape.H, shape.W),
            out=(shape.P, shape.Q),
            stride=shape.stride,
            padding=shape.padding[::2],
            dilation=shape.dilation,
            groups=shape.groups,
        )
        if node["clamp"] is not None:
            low, high = node["clamp"]
            self.step("activation", "hardtanh", target, target, math.prod(shape.y_shape), a=low, b=high, c=0.0)

    def linear(self, node: Node) -> None:
        x, w = node.inputs[0], node.constants["w"]
        root = self.root(x)
        sizes = image(root.shape)
        part = self.packed.get((root, sizes))
        # Lanes beyond the last channel are zero, but NaN behind an infinite input: they are not summed.
        whole = part is not None and part.is_whole and part.channels % self.lanes == 0
        if root not in self.dense and part is not None and whole:
            source = Flat(part.room)
            packed = self.weights(node, "linear", columns=sizes)
        else:
            source, packed = self.dense_of(x), self.weights(node, "linear")
        flops = 2 * self.batch * w.size
        target = self.dense_for(node.output)
        self.step("linear", source, target, packed, node.constants.get("b"), flops=flops, clamp=node["clamp"])

    # ---------------------------------------------------------------------------------------------- elementwise

    def relu(self, node: Node) -> None:
        if self.root(node.inputs[0]) in self.dense:
            self.unary(node)
        else:
            x = self.packed_of(node.inputs[0])
            self.step("affine", x, self.made(node.output), None, None, clamp=(0.0, math.inf))

    def unary(self, node: Node) -> None:
        """On memory as it lies, which may be packed: where nothing lies between, and zeros stay zeros."""
        x, y = node.inputs[0], self.place_of(node.output)
        part = self.packed.get((self.root(x), image(x.shape)))
        alone = part is not None and part.is_whole and y.is_whole
        zeros = _keeps_zeros(node) or y.channels % self.lanes == 0
        method, name = ("activation", node["name"]) if node.op == "activation" else ("unary", node.op)
        how = {key: node[key] for key in ("a", "b", "c") if key in node.settings}
        if self.root(x) not in self.dense and part is not None and alone and zeros:
            self.step(method, name, Flat(part.room), Flat(self.made(node.output).room), y.room.floats, **how)
        else:
            count = self.batch * math.prod(x.shape)
            self.step(method, name, self.dense_of(x), self.dense_for(node.output), count, **how)

    def binary(self, node: Node) -> None:
        a, b = map(self.packed_of, node.inputs)
        self.step(node.op, a, b, self.made(node.output), clamp=node["clamp"])

    def scale(self, node: Node) -> None:
        x, scale = map(self.packed_of, node.inputs)
        self.step("scale", x, scale, self.made(node.output), clamp=node["clamp"])

    def permute(self, node: Node) -> None:
        source, target = self.dense_of(node.inputs[0]), self.dense_for(node.output)
        self.step("permute", source, target, shape=node.inputs[0].shape, order=node["order"])

    def affine(self, node: Node) -> None:
        scale, shift = node.constants.get("scale"), node.constants.get("shift")
        self.step("affine", self.packed_of(node.inputs[0]), self.made(node.output), scale, shift, clamp=node["clamp"])

    def lrn(self, node: Node) -> None:
        source, target = self.dense_of(node.inputs[0]), self.dense_for(node.output)
        shape = node.output.shape
        self.step("lrn", source, target, channels=channels(shape), pixels=math.prod(shape[1:]), **node.settings)

    def softmax(self, node: Node) -> None:
        source, target = self.dense_of(node.inputs[0]), self.dense_for(node.output)
        shape, axis = node.output.shape, node["axis"]
        outer, inner = self.batch * math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        self.step("softmax", source, target, outer=outer, count=shape[axis], inner=inner, log=node["log"])

    # -------------------------------------------------------------------------------------------------- pooling

    def max_pool2d(self, node: Node) -> None:
        how = {name: node[name] for name in ("kernel", "stride", "padding", "dilation")}
        x = self.packed_of(node.inputs[0])
        self.step("max_pool", x, self.made(node.output), **how)

    def avg_pool2d(self, node: Node) -> None:
        how = {name: node[name] for name in ("kernel", "stride", "padding", "count_include_pad")}
        x = self.packed_of(node.inputs[0])
        self.step("avg_pool", x, self.made(node.output), **how, divisor_override=node["divisor"])

    def adaptive(self, node: Node) -> None:
        x = self.packed_of(node.inputs[0])
        self.step(node.op.removesuffix("2d"), x, self.made(node.output))

    def mean(self, node: Node) -> None:
        x = self.packed_of(node.inputs[0])
        self.step("mean", x, self.dense_for(node.output))

    # -------------------------------------------------------------------------------------------------- shaping

    def concat(self, node: Node) -> None:
        if self.by_vectors(node):
            whole = self.made(node.output)
            for value, offset in self.starts(node):
                part = self.packed_of(value)
                if part != (place := whole.inside(*offset, *part.sizes)):
                    self.move(part, place)
            return
        room = self.dense_room(node.output)
        plane = room.height * room.width
        for value, (channel, _, _) in self.starts(node):
            found = self.packed.get((self.root(value), image(value.shape)))
            if self.batch == 1 and found is not None and self.root(value) not in self.dense:
                self.step("unpack", found, Images(Flat(room, at=channel * plane), *found.sizes))
            else:
                size = math.prod(value.shape)
                self.join(self.dense_of(value), room, channel * plane, 0, size, size)

    def dense_room(self, value: Value) -> Room:
        """A room of its own, dense, for `value`."""
        room = Room(self.batch, *image(value.shape), 1)
        self.dense[self.root(value)] = Flat(room)
        return room

    def pad(self, node: Node) -> None:
        x, sizes = node.inputs[0], image(node.inputs[0].shape)
        offset = self.before(node)
        part, whole = self.packed_of(x), self.place_of(node.output)
        inner = whole.inside(*offset, *sizes)
        if part == inner:
            for around in _around(offset, sizes, whole, self.lanes):
                self.step("clear", around)
            self.made(node.output)
            return
        self.step("clear", whole)
        if offset[0] % self.lanes == 0:
            self.move(part, inner)
            self.made(node.output)
            return
        room = self.dense_room(node.output)
        field = Part.all_of(self.room((sizes[0], room.height, room.width)))
        self.step("clear", field)
        self.move(part, field.inside(0, *offset[1:], *sizes))
        laid = Room(self.batch, *field.sizes, 1)
        self.step("unpack", whole, Images(Flat(room), *whole.sizes))
        self.step("unpack", field, Images(Flat(laid), *field.sizes))
        self.join(Flat(laid), room, offset[0] * room.height * room.width, 0, laid.image, laid.image)

    def slice(self, node: Node) -> None:
        x, rest = node.inputs[0], [size - stop for size, stop in zip(node.inputs[0].shape, node["stops"], strict=True)]
        starts, steps = _axes(node, node["starts"], 0), _axes(node, node["steps"], 1)
        left = _axes(node, rest, 0)
        if steps[0] != 1:
            raise CompileError(f"a slice of every {steps[0]}th channel has no compiled form")
        c, h, w = image(x.shape)
        count, high, wide = c - starts[0] - left[0], h - starts[1] - left[1], w - starts[2] - left[2]
        if starts[0] % self.lanes == 0 and (count % self.lanes == 0 or not left[0]):
            part = self.packed_of(x).inside(starts[0], starts[1], starts[2], count, high, wide)
            self.move(part, self.made(node.output), steps[1:])
            return
        _, p, q = image(node.output.shape)
        if (p, q) == (h, w):
            source = self.dense_of(x)
        else:
            some = Part.all_of(self.room((c, p, q)))
            self.move(self.packed_of(x).inside(0, starts[1], starts[2], c, high, wide), some, steps[1:])
            source = Flat(Room(self.batch, c, p, q, 1))
            self.step("unpack", some, Images(source, *some.sizes))
        self.join(source, self.dense_room(node.output), 0, starts[0] * p * q, count * p * q, c * p * q)


def _one_group(shape: Conv2dShape) -> Conv2dShape:
    """A group's convolution."""
    return replace(shape, C=shape.C // shape.groups, K=shape.K // shape.groups, groups=1)


def _axes(node: Node, given: Any, default: int) -> Image:
    """Something given for each axis of a value, for each axis of its image."""
    rank = len(given)
    if any(one != default for one in given[3 if rank == 3 else 2 :]) and rank > 3:
        raise CompileError(f"{node.op} along dimension 3 or further of {node.output.shape} has no compiled form")
    rest = [default] * 3
    for i, one in enumerate(given[:3] if rank <= 3 else given[:2]):
        rest[2 if rank == 2 and i == 1 else i] = one
    return rest[0], rest[1], rest[2]


def _around(offset: Image, sizes: Image, whole: Part, lanes: int) -> list[Part]:
    """What of `whole` lies around a box, in boxes.

    The box starts at a whole vector of channels, and whatever writes it clears the rest of its last vector.
    """
    boxes = []
    before, (c, h, w) = offset, sizes
    C, H, W = whole.sizes
    behind = -(-(before[0] + c) // lanes) * lanes
    for channel, count in ((0, before[0]), (behind, C - behind)):
        if count > 0:
            boxes.append(whole.inside(channel, 0, 0, count, H, W))
    for y, count in ((0, before[1]), (before[1] + h, H - before[1] - h)):
        if count > 0:
            boxes.append(whole.inside(0, y, 0, C, count, W))
    for x, count in ((0, before[2]), (before[2] + w, W - before[2] - w)):
        if count > 0:
            boxes.append(whole.inside(0, before[1], x, C, h, count))
    return boxes


def _keeps_zeros(node: Node) -> bool:
    if node.op != "activation":
        return node.op != "sigmoid"
    how = [node[key] for key in ("name", "a", "b", "c")]
    return not ops.activation(np.zeros(1, np.float32), *how)[0]


_LOWER: dict[str, Any] = {
    "conv2d": _Lowering.conv2d,
    "linear": _Lowering.linear,
    "affine": _Lowering.affine,
    "relu": _Lowering.relu,
    "tanh": _Lowering.unary,
    "sigmoid": _Lowering.unary,
    "activation": _Lowering.unary,
    "add": _Lowering.binary,
    "mul": _Lowering.binary,
    "scale": _Lowering.scale,
    "permute": _Lowering.permute,
    "concat": _Lowering.concat,
    "pad": _Lowering.pad,
    "slice": _Lowering.slice,
    "max_pool2d": _Lowering.max_pool2d,
    "avg_pool2d": _Lowering.avg_pool2d,
    "adaptive_avg_pool2d": _Lowering.adaptive,
    "adaptive_max_pool2d": _Lowering.adaptive,
    "mean": _Lowering.mean,
    "lrn": _Lowering.lrn,
    "softmax": _Lowering.softmax,
}
