"""Where the values of a graph live while its steps are written: packed, dense or both, and in which room.

Dense is NCHW; inputs and outputs alone may be channels-last.  What a step needs in a form that is not there yet is made
by `pack` or `unpack`.  A value may have been given a place inside of another one's room before it is made.
"""

from __future__ import annotations

from typing import Any

from pycnn.compiler.graph import Graph, Node, Value
from pycnn.compiler.operations import image
from pycnn.compiler.plan import Flat, Images, Part, Room, Step

__all__ = ["Values"]

Image = tuple[int, int, int]
_READ_DENSE = ("lrn", "softmax")


class Values:
    """The values of `graph` for `batch` images, with vectors of `lanes` floats, and the steps written so far.

    Inputs and outputs with rows and columns are NCHW, or all of them `channels_last`.

    A reshape is the same dense array, so a value behind one shares what is known of the first one, its root.

    Attributes:
        steps: in order.
        nodes: all but the reshapes.
        last_use: the last node that reads a root; None for an output.
        packed: roots by the sizes that they are packed as.
        dense: roots as dense arrays.
        last: roots as arrays that are channels-last.
    """

    def __init__(self, graph: Graph, batch: int, lanes: int, channels_last: bool) -> None:
        self.graph, self.batch, self.lanes = graph, batch, lanes
        self.steps: list[Step] = []
        self.node: Node | None = None  # the one being lowered
        self._roots: dict[Value, Value] = {}
        for node in graph.nodes:
            if node.op == "reshape":
                self._roots[node.output] = self.root(node.inputs[0])
        self.nodes = [node for node in graph.nodes if node.op != "reshape"]
        self.last_use: dict[Value, Node | None] = {}
        for node in self.nodes:
            for value in node.inputs:
                self.last_use[self.root(value)] = node
        self.last_use.update((self.root(value), None) for value in graph.outputs)
        self.packed: dict[tuple[Value, Image], Part] = {}
        self.dense: dict[Value, Flat] = {}
        self.last: dict[Value, Images] = {}
        for i, value in enumerate(graph.inputs):
            source = Flat(None, "input", i)
            if channels_last and len(value.shape) == 3:
                self.last[value] = Images(source, *image(value.shape), channels_last=True)
            else:
                self.dense[value] = source
        self._places: dict[Value, Part] = {}  # where a root is to be packed
        self._targets: dict[Value, Flat] = {}  # where a root is to be written densely
        self._last_targets: dict[Value, Images] = {}  # where it is to be written channels-last
        for i, value in enumerate(graph.outputs):
            target = Flat(None, "output", i)
            if not channels_last or len(value.shape) != 3:
                self._targets.setdefault(self.root(value), target)
            elif self.root(value) is value:
                self._last_targets.setdefault(value, Images(target, *image(value.shape), channels_last=True))

    def root(self, value: Value) -> Value:
        """The value, before all reshapes, whose elements these are."""
        return self._roots.get(value, value)

    def step(self, method: str, *args: Any, flops: int = 0, **options: Any) -> None:
        """Write a step of the node being lowered."""
        self.steps.append(Step(method, args, options, self.node.name if self.node else "", flops))

    # ------------------------------------------------------------------------------------------------- memory

    def room(self, sizes: Image) -> Room:
        """A packed room of its own."""
        return Room(self.batch, *sizes, self.lanes)

    def share(self, value: Value, place: Part) -> bool:
        """Let `value` be packed at `place`, if it has no other."""
        root = self.root(value)
        if root in self._places or image(root.shape) != place.sizes:
            return False
        self._places[root] = place
        return True

    def place_of(self, value: Value) -> Part:
        """Where `value` is to be packed."""
        root = self.root(value)
        if root not in self._places:
            self._places[root] = Part.all_of(self.room(image(root.shape)))
        return self._places[root]

    # ----------------------------------------------------------------------------------------- packed and dense

    def packed_of(self, value: Value) -> Part:
        """`value` packed."""
        root, sizes = self.root(value), image(value.shape)
        if (root, sizes) not in self.packed and root in self.last and image(root.shape) == sizes:
            self.packed[root, sizes] = self.place_of(root)
            self.step("pack", self.last[root], self.packed[root, sizes])
        if (root, sizes) not in self.packed:
            dense = self.dense_of(root)
            if dense.room is not None and dense.room.is_dense and self._as_vector(dense.room, sizes):
                self.packed[root, sizes] = Part.all_of(dense.room)
            else:
                same = image(root.shape) == sizes
                part = self.place_of(root) if same else Part.all_of(self.room(sizes))
                self.step("pack", Images(dense, *sizes), part)
                self.packed[root, sizes] = part
        return self.packed[root, sizes]

    def _as_vector(self, room: Room, sizes: Image) -> bool:
        """Whether a dense room is packed just as well."""
        return room.lanes == self.lanes and (room.channels, room.height, room.width) == sizes

    def dense_of(self, value: Value) -> Flat:
        """`value` as a dense array."""
        root = self.root(value)
        if root not in self.dense:
            part = self.packed_of(root)
            if part.is_whole and part.room.is_dense:
                self.dense[root] = Flat(part.room)
            else:
                self.step("unpack", part, Images(self.dense_for(root), *part.sizes))
        return self.dense[root]

    def made(self, value: Value) -> Part:
        """Where the node being lowered is to write `value`, packed."""
        root = self.root(value)
        self.packed[root, image(root.shape)] = self.place_of(root)
        return self.packed[root, image(root.shape)]

    def dense_for(self, value: Value) -> Flat:
        """Where `value` is to be written densely."""
        root, (c, h, w) = self.root(value), image(value.shape)
        if root not in self._targets:
            vector = h == w == 1 and c % self.lanes == 0
            room = Room(self.batch, c, h, w, self.lanes if vector else 1)
            self._targets[root] = Flat(room)
        self.dense[root] = self._targets[root]
        return self.dense[root]

    def last_of(self, value: Value, target: Images) -> None:
        """Write `value` into `target`, channels-last."""
        if self.last.get(value) != target:
            self.step("unpack", self.packed_of(value), target)

    def readable(self, value: Value, packed: bool) -> Part | Images:
        """`value` in the form that there is, for a convolution; or `packed`."""
        root, sizes = self.root(value), image(value.shape)
        if packed or (root, sizes) in self.packed:
            return self.packed_of(value)
        if root in self.last and image(root.shape) == sizes:
            return self.last[root]
        return Images(self.dense[root], *sizes) if root in self.dense else self.packed_of(value)

    def writable(self, value: Value, packed: bool) -> Part | Images:
        """Where the node being lowered, a convolution, is to write `value`: as an array if nobody reads it packed."""
        root = self.root(value)
        if packed or not self.leaves_as_array(value):
            return self.made(value)
        if root in self._last_targets and not self.readers(root):
            self.last[root] = self._last_targets[root]
            return self.last[root]
        return Images(self.dense_for(value), *image(value.shape))

    def leaves_as_array(self, value: Value) -> bool:
        """Whether nobody reads `value` packed."""
        root = self.root(value)
        return root not in self._places and all(node.op in _READ_DENSE for node in self.readers(root))

    def is_nchw(self, x: Value, y: Value) -> bool:
        """Whether `x` is an array in NCHW, and `y` is to be one."""
        there = (self.root(x), image(x.shape)) not in self.packed and self.root(x) in self.dense
        return there and self.leaves_as_array(y) and self.root(y) not in self._last_targets

    def is_channels_last(self, x: Value, y: Value) -> bool:
        """Whether `x` is a channels-last array, and `y` is to be one."""
        there = (self.root(x), image(x.shape)) not in self.packed and self.root(x) in self.last
        return there and image(x.shape) == image(self.root(x).shape) and y in self._last_targets and not self.readers(y)

    def readers(self, root: Value) -> list[Node]:
        """All nodes that read a root."""
        return [node for node in self.nodes if any(self.root(value) is root for value in node.inputs)]

    def move(self, x: Part, y: Part, stride: tuple[int, int] = (1, 1)) -> None:
        """Copy between packed boxes, of every `stride`-th row and column."""
        self.step("max_pool", x, y, kernel=(1, 1), stride=stride, padding=(0, 0, 0, 0), dilation=(1, 1))

    def join(self, x: Flat, y: Room, start: int, source: int, count: int, image: int) -> None:
        """Copy `count` floats from `source` of each image of x, which has `image` floats, to `start` of each of y's."""
        if x.room is None and (source or self.batch > 1):
            whole = Room(self.batch, image, 1, 1, 1)
            self.step("copy", x, Flat(whole), whole.floats)
            x = Flat(whole)
        for n in range(self.batch):
            at = x.at if x.room is None else x.at + n * image + source
            self.step("copy", Flat(x.room, x.space, at), Flat(y, at=n * y.image + start), count)
