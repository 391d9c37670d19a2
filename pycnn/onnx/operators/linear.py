"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

from pycnn import functional as F
from pycnn.functional.linear import Gemm
from pycnn.onnx.operators._common import Value, is_tensor, permute
from pycnn.onnx.registry import operator


@operator("MatMul")
def matmul(a: Value, b: Value) -> Value:
    if is_tensor(a) and is_tensor(b) and a.ndim >= b.ndim == 2 and a.shape[-1] == b.shape[0]:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])  # one matrix for all rows: one product
        return Gemm.apply(rows, b, False, False, None).reshape((*a.shape[:-1], b.shape[1]))
    return a @ b


@operator("Gemm")
def gemm(
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    if not is_tensor(a):
        product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
        return (product if c is None else product + beta * c).astype(a.dtype)
    if transB and not transA and alpha == 1.0 and c is not None and beta == 1.0 and c.shape == (b.shape[0],):
        return F.linear(a, b, c)  # what exporters make of a fully connected layer
    product = Gemm.apply(a, b, bool(transA), bool(transB), None)
    if alpha != 1.0:
        product = product * alpha
    if c is None or beta == 0.0:
        return product
    return product + (c if beta == 1.0 else c * beta)


@operator("Einsum")
def einsum(*operands: Value, equation: str) -> Value:
    """Products of all operands over all their letters, summed over those that the result does not have."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"equation {equation!r} for {len(operands)} operands")
    terms = [_spelled(term, one.ndim) for term, one in zip(terms, operands, strict=True)]
    letters = sorted(set("".join(terms)))
    if arrow:
        batch = max(sum(letter.isdigit() for letter in term) for term in terms)  # what ... stands for
        output = _spelled(output, len(output.replace("...", "")) + batch)
    else:
        once = [one for one in letters if "".join(terms).count(one) == 1 and not one.isdigit()]
        output = "".join([*(one for one in letters if one.isdigit()), *once])
    order = [*output, *(one for one in letters if one not in output)]
    product: Any = None
    for term, one in zip(terms, operands, strict=True):
        spread = _spread(term, one, order)
        product = spread if product is None else product * spread
    summed = tuple(range(len(output), len(order)))
    if not summed:
        return product
    return product.sum(summed) if is_tensor(product) else product.sum(axis=summed, dtype=product.dtype)


def _spelled(term: str, rank: int) -> str:
    """The term with digits in place of ...: the last dimension of the batch is 9, the one before it 8, and so on."""
    batch = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(str(10 - batch + i) for i in range(batch)))


def _spread(term: str, x: Value, order: list[str]) -> Value:
    """x with one dimension for each letter of `order`, of size 1 where the term does not have it."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:  # a diagonal
            first, second = term.index(letter), term.rindex(letter)
            rest = [i for i in range(len(term)) if i not in (first, second)]
            moved = permute(x, (first, second, *rest))
            size = moved.shape[0]
            x = moved.reshape((size * size, *moved.shape[2:]))[:: size + 1]
            term = letter + "".join(term[i] for i in rest)
    present = [letter for letter in order if letter in term]
    x = permute(x, tuple(term.index(letter) for letter in present)) if present else x
    sizes = iter(x.shape)
    return x.reshape(tuple(next(sizes) if letter in term else 1 for letter in order))
