"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

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
    """Operand after operand is multiplied in, and each letter summed over as soon as nothing behind it has it."""
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
    total: Value = None
    held = ""
    for number, (term, one) in enumerate(zip(terms, operands, strict=True)):
        behind = set(output).union(*terms[number + 1 :])
        term, one = _diagonal(term, one)
        if total is None:
            held, total = _summed(term, one, behind)
        else:
            term, one = _summed(term, one, behind.union(held))
            held, total = _contracted(held, total, term, one, behind)
    return permute(total, [held.index(letter) for letter in output])


def _spelled(term: str, rank: int) -> str:
    """The term with digits in place of ...: the last dimension of the batch is 9, the one before it 8, and so on."""
    batch = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(str(10 - batch + i) for i in range(batch)))


def _diagonal(term: str, x: Value) -> tuple[str, Value]:
    """x with the diagonals of the letters that its term has several times."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            rest = [i for i in range(len(term)) if i not in (first, second)]
            moved = permute(x, (first, second, *rest))
            size = moved.shape[0]
            x = moved.reshape((size * size, *moved.shape[2:]))[:: size + 1]
            term = letter + "".join(term[i] for i in rest)
    return term, x


def _summed(term: str, x: Value, kept: Collection[str]) -> tuple[str, Value]:
    """x summed over the letters that are not kept."""
    axes = tuple(i for i, letter in enumerate(term) if letter not in kept)
    if not axes:
        return term, x
    left = "".join(letter for letter in term if letter in kept)
    return left, x.sum(axes) if is_tensor(x) else x.sum(axis=axes, dtype=x.dtype)


def _contracted(a_term: str, a: Value, b_term: str, b: Value, kept: Collection[str]) -> tuple[str, Value]:
    """The product of two operands, summed over the letters of both that are not kept: a product of matrices."""
    shared = [letter for letter in a_term if letter in b_term]
    inner = [letter for letter in shared if letter not in kept]
    batch = [letter for letter in shared if letter in kept]
    rows = [letter for letter in a_term if letter not in shared]
    columns = [letter for letter in b_term if letter not in shared]
    sizes = dict(zip(a_term, a.shape, strict=True))
    for letter, size in zip(b_term, b.shape, strict=True):
        sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    a = _arranged(a_term, a, (batch, rows, inner), sizes)
    b = _arranged(b_term, b, (batch, inner, columns), sizes)
    product = a @ b if inner else a * b  # of one column and one row, which spread over each other
    term = "".join((*batch, *rows, *columns))
    return term, product.reshape(tuple(sizes[letter] for letter in term))


def _arranged(term: str, x: Value, groups: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> Value:
    """A stack of matrices: the letters of the first group, then those of each other one as one dimension."""
    order = [letter for group in groups for letter in group]
    x = permute(x, [term.index(letter) for letter in order])
    shape = tuple(sizes[letter] for letter in order)
    if tuple(x.shape) != shape:  # what ... stands for is broadcast
        x = x.expand(*shape) if is_tensor(x) else np.broadcast_to(x, shape)
    return x.reshape((*shape[: len(groups[0])], *(math.prod(sizes[one] for one in group) for group in groups[1:])))
