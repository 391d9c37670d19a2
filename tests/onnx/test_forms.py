"""Forms of operators that onnx's suites leave out, those of old opsets above all, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime as ort
from onnx import helper

import pycnn.onnx

F32 = np.float32


def _draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_BOXES = np.array([[0, 0, 0, 4, 4], [1, 1, 2, 6, 5], [0, 3, 3, 3, 3], [1, -2, 0, 9, 9]], F32)

CASES: list[tuple[str, int, list[Any], int, dict[str, Any]]] = [
    (
        "BatchNormalization",
        7,
        [_draw(2, 3, 4, 4), *(_draw(3, seed=i) for i in (1, 2, 3)), np.float32([1, 2, 3])],
        1,
        {},
    ),
    ("BatchNormalization", 9, [_draw(2, 3, 4), *(_draw(3, seed=i) for i in (1, 2, 3)), np.float32([1, 2, 3])], 1, {}),
    ("Clip", 6, [_draw(3, 4)], 1, {"min": -0.5, "max": 0.25}),
    ("Clip", 12, [_draw(3, 4), F32(-0.5)], 1, {}),
    ("Dropout", 7, [_draw(3, 4)], 1, {"ratio": 0.9}),
    ("Dropout", 10, [_draw(3, 4)], 1, {"ratio": 0.9}),
    ("Dropout", 12, [_draw(3, 4), F32(0.9), np.array(False)], 2, {}),
    ("Gemm", 9, [_draw(3, 4), _draw(5, 4), _draw(3, 1)], 1, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", 11, [_draw(4, 3), _draw(4, 5)], 1, {"transA": 1}),
    ("GroupNormalization", 18, [_draw(2, 4, 3, 3), _draw(2, seed=1), _draw(2, seed=2)], 1, {"num_groups": 2}),
    ("Hardmax", 11, [_draw(2, 3, 4)], 1, {"axis": 1}),
    ("LogSoftmax", 11, [_draw(2, 3, 4)], 1, {"axis": 1}),
    ("Softmax", 11, [_draw(2, 3, 4)], 1, {}),
    ("Softmax", 13, [_draw(2, 3, 4)], 1, {"axis": 1}),
    ("LRN", 13, [_draw(1, 5, 2, 2)], 1, {"size": 3, "alpha": 0.5}),
    ("LpPool", 11, [_draw(1, 2, 5, 6)], 1, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "p": 3}),
    ("GlobalLpPool", 7, [_draw(2, 3, 4, 5)], 1, {"p": 2}),
    ("GlobalAveragePool", 7, [_draw(2, 3, 4)], 1, {}),
    ("GlobalMaxPool", 7, [_draw(2, 3, 4, 5, 2)], 1, {}),
    ("MaxPool", 8, [_draw(2, 2, 7)], 2, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("MaxPool", 12, [_draw(2, 2, 6, 7)], 2, {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [1, 1, 1, 0]}),
    ("MaxPool", 12, [_draw(1, 2, 6, 5, 6)], 2, {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ("MaxPool", 12, [_draw(2, 2, 6, 7)], 1, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", 12, [_draw(1, 1, 3, 3)], 1, {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}),
    ("AveragePool", 10, [_draw(2, 2, 7)], 1, {"kernel_shape": [3], "strides": [2], "pads": [2, 1]}),
    ("AveragePool", 11, [_draw(2, 2, 5, 7)], 1, {"kernel_shape": [3, 3], "pads": [0, 2, 1, 0], "count_include_pad": 1}),
    ("AveragePool", 11, [_draw(1, 2, 4, 5, 6)], 1, {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
    ("MaxRoiPool", 7, [_draw(2, 3, 8, 8), _BOXES], 1, {"pooled_shape": [2, 3]}),
    (
        "MaxRoiPool",
        7,
        [_draw(2, 3, 8, 8), _BOXES * F32([1, 2, 2, 2, 2])],
        1,
        {"pooled_shape": [3, 3], "spatial_scale": 0.5},
    ),
    ("Pad", 2, [_draw(2, 3)], 1, {"pads": [1, 0, 0, 2], "mode": "edge"}),
    ("Pad", 11, [_draw(3, 4), _whole(1, 2, 0, 1)], 1, {"mode": "reflect"}),
    ("Pad", 13, [_draw(3, 4), _whole(-1, 2, 0, -1), F32(7)], 1, {}),
    ("PRelu", 7, [_draw(2, 3, 4, 4), _draw(3, 1, 1, seed=1)], 1, {}),
    ("PRelu", 9, [_draw(2, 3, 4, 4), _draw(4, seed=1)], 1, {}),
    ("ReduceSum", 11, [_draw(2, 3, 4)], 1, {"axes": [0, -1], "keepdims": 0}),
    ("ReduceMean", 13, [np.int32([[-7, 2, 1], [3, 4, 4], [-9, 1, 1]])], 1, {"axes": [1]}),
    ("ReduceProd", 11, [_draw(2, 3, 5)], 1, {"axes": [1, 2]}),
    ("ReduceLogSumExp", 13, [_draw(2, 3, 4) * F32(100)], 1, {"axes": [1]}),
    ("Resize", 10, [_draw(1, 2, 4, 4), F32([1, 1, 1.5, 0.6])], 1, {"mode": "linear"}),
    ("Resize", 10, [_draw(1, 2, 4, 4), F32([1, 1, 2.5, 0.6])], 1, {"mode": "nearest"}),
    # Scales that float32 rounds down, and products with them that it rounds up again.
    *[
        (
            "Resize",
            13,
            [_draw(1, 2, 10, 10), np.zeros(0, F32), F32([1, 1, 0.7, 2.3])],
            1,
            {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        )
        for mode in ("nearest", "linear")
    ],
    (
        "Resize",
        13,
        [_draw(1, 2, 10, 10), np.zeros(0, F32), F32([1, 1, 0.6, 0.3])],
        1,
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Upsample", 9, [_draw(1, 1, 10, 10), F32([1, 1, 2.3, 1.1])], 1, {"mode": "nearest"}),
    ("Upsample", 7, [_draw(1, 2, 3, 3)], 1, {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    ("Upsample", 9, [_draw(1, 2, 3, 3), F32([1, 1, 2, 2])], 1, {"mode": "linear"}),
    (
        "RoiAlign",
        10,
        [_draw(2, 3, 8, 8), _BOXES[:, 1:], _whole(0, 1, 0, 1)],
        1,
        {"output_height": 3, "output_width": 2},
    ),
    ("Scatter", 9, [_draw(3, 3), _whole(0, 2, 1, 0, 1, 2).reshape(2, 3), _draw(2, 3, seed=1)], 1, {}),
    ("ScatterElements", 11, [_draw(1, 5), _whole(1, -2).reshape(1, 2), _draw(1, 2, seed=1)], 1, {"axis": 1}),
    ("Slice", 9, [_draw(5, 6)], 1, {"starts": [1, -3], "ends": [1000, -1]}),
    ("Slice", 13, [_draw(5, 6), _whole(-1, 4), _whole(-100, 0), _whole(0, 1), _whole(-2, -1)], 1, {}),
    ("Split", 11, [_draw(6, 2)], 3, {}),
    ("Split", 11, [_draw(6, 2)], 2, {"split": [2, 4]}),
    ("Squeeze", 11, [_draw(1, 3, 1)], 1, {"axes": [-1]}),
    ("TopK", 9, [_draw(3, 5)], 2, {"k": 3}),
    ("TopK", 11, [np.float32([[1, 3, 3, 2]]), _whole(3)], 2, {"largest": 0}),
    ("Unsqueeze", 11, [_draw(3)], 1, {"axes": [0, -1]}),
    ("ConvTranspose", 11, [_draw(1, 2, 4, 5), _draw(2, 3, 3, 2)], 1, {"strides": [2, 3], "pads": [0, 1, 1, 0]}),
    (
        "ConvTranspose",
        11,
        [_draw(1, 2, 4, 5), _draw(2, 3, 3, 2), _draw(3)],
        1,
        {"strides": [2, 3], "output_padding": [1, 2], "dilations": [2, 1]},
    ),
    ("ConvTranspose", 11, [_draw(1, 4, 6), _draw(4, 1, 3)], 1, {"strides": [2], "group": 2, "auto_pad": "SAME_UPPER"}),
    ("Conv", 11, [_draw(2, 4, 9), _draw(6, 2, 3), _draw(6)], 1, {"strides": [2], "pads": [2, 1], "group": 2}),
    ("Conv", 11, [_draw(1, 2, 5, 6, 7), _draw(3, 2, 2, 3, 2)], 1, {"pads": [1, 0, 2, 0, 1, 1], "dilations": [1, 2, 1]}),
    ("Conv", 11, [_draw(1, 2, 7, 8), _draw(3, 2, 3, 3)], 1, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("InstanceNormalization", 6, [_draw(2, 3, 4, 4), _draw(3, seed=1), _draw(3, seed=2)], 1, {"epsilon": 0.01}),
    ("LayerNormalization", 17, [_draw(2, 3, 4), _draw(4, seed=1), _draw(4, seed=2)], 1, {}),
    ("Einsum", 12, [_draw(2, 3, 4), _draw(2, 4, 5)], 1, {"equation": "bij,bjk->bik"}),
    ("Einsum", 12, [_draw(2, 3), _draw(3, 4), _draw(4, 5)], 1, {"equation": "ij,jk,kl->li"}),
    ("Einsum", 12, [_draw(3, 3), _draw(3)], 1, {"equation": "ii,i"}),
    ("Einsum", 12, [_draw(2, 3), _draw(4)], 1, {"equation": "ij,k->ki"}),
    ("Trilu", 14, [_draw(4, 5), _whole(-1).reshape(())], 1, {"upper": 0}),
    ("CumSum", 14, [_draw(3, 4), _whole(1).reshape(())], 1, {"exclusive": 1, "reverse": 1}),
    ("Mod", 13, [np.int32([-7, 7, -7]), np.int32([3, -3, -3])], 1, {}),
    ("Div", 14, [np.int32([-7, 7, -6]), np.int32([2, -2, 4])], 1, {}),
    ("Pow", 15, [np.int32([2, 3]), np.float32([0.5, 2])], 1, {}),
]


@pytest.mark.parametrize(
    ("operator", "opset", "inputs", "outputs", "attributes"),
    CASES,
    ids=[f"{number}-{case[0]}-{case[1]}" for number, case in enumerate(CASES)],
)
def test_form(operator: str, opset: int, inputs: list[Any], outputs: int, attributes: dict[str, Any]) -> None:
    names = [f"x{i}" for i in range(len(inputs))]
    arrays = [np.asarray(one) for one in inputs]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(outputs)], **attributes)
    dtypes = [helper.np_dtype_to_tensor_dtype(one.dtype) for one in arrays]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, d, one.shape) for n, d, one in zip(names, dtypes, arrays, strict=True)],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip(names, arrays, strict=True)))
    for got, wanted in zip(pycnn.onnx.prepare(model).run(arrays), expected, strict=True):
        assert got.dtype == wanted.dtype
        # Sums of up to some hundred float32 products, in another order.
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def _equation(random: np.random.Generator) -> tuple[str, list[np.ndarray]]:
    """Up to four operands of up to three letters and a batch each, and a result with some of the letters or without."""
    sizes = {letter: int(random.integers(1, 4)) for letter in "abcde"}
    batch = [int(size) for size in random.integers(1, 4, 2)]
    terms, operands = [], []
    for _ in range(random.integers(1, 5)):
        letters = list(random.choice(list(sizes), random.integers(0, 4)))
        shape = [sizes[letter] for letter in letters]
        if random.random() < 0.3:
            place = int(random.integers(len(letters) + 1))
            letters.insert(place, "...")
            shape[place:place] = [size if random.random() < 0.7 else 1 for size in batch][random.integers(3) :]
        terms.append("".join(letters))
        operands.append(random.integers(-4, 5, shape).astype(np.float64))
    equation = ",".join(terms)
    if random.random() < 0.8:
        kept = [letter for letter in sizes if letter in equation and random.random() < 0.5]
        random.shuffle(kept)
        equation += "->" + "".join([*kept, *(["..."] if "..." in equation else [])])
    return equation, operands


def test_einsum_is_numpy_s() -> None:
    """Of whole numbers, so that it is exact."""
    random = np.random.default_rng(0)
    for _ in range(300):
        equation, operands = _equation(random)
        node = helper.make_node("Einsum", [f"x{i}" for i in range(len(operands))], ["y"], equation=equation)
        (y,) = pycnn.onnx.run_node(node, operands)
        np.testing.assert_array_equal(y, np.einsum(equation, *operands), err_msg=equation)


def test_einsum_sums_while_it_multiplies() -> None:
    """A chain of matrix products; every product before the sum would be 8 TB."""
    operands = [_draw(1000, 1000, seed=seed) for seed in range(3)]
    node = helper.make_node("Einsum", ["a", "b", "c"], ["y"], equation="ij,jk,kl->il")
    (y,) = pycnn.onnx.run_node(node, operands)
    expected = operands[0].astype(np.float64) @ operands[1] @ operands[2]
    # Two sums of 1000 products in float32.
    assert np.abs(y - expected).max() <= 2**-23 * 1000 * np.abs(expected).max()
