"""Which plan `auto` takes on a GPU: by the table in force, as `pycnn.algorithms` on the CPU, else by rules.

This is a pure function of the pass, the shape, the plans that can run it within the workspace limit, the accuracy and
the table in force.  Plans count their work alike, in multiply-adds of all tiles, idle lanes and memory traffic of
transforms included, so that costs of two families may be compared.

A table that was calibrated on a GPU (``pycnn tune --backend cuda``) has, for each pass and family, the seconds of

    launch    a kernel that is started
    work      a multiply-add of `Plan.cost`: what a family's inner loop makes of it is its coefficient
    bytes     a byte of operands and workspace

and the plan predicted to be the fastest is taken.  Where no table was calibrated the work alone is counted, and what it
is worth in each family is written here, once, as rules in order, each with its reason.  They are not calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pycnn import tuning, winograd
from pycnn.algorithms import HANDICAPS, accuracy
from pycnn.backends.cuda.plan import Plan
from pycnn.shape import Conv2dShape, Problem
from pycnn.tuning import Candidate, Table

__all__ = ["candidate", "family_of", "first_tiers", "least", "take", "without_copies"]

Choice = tuple[Plan, str]  # what is taken, and why
Rule = Callable[[str, Conv2dShape, Sequence[Plan]], Choice | None]

# Winograd is taken where its work, transforms and their memory traffic included, is under this share of the best other
# kernel's: the count leaves out launches and what caches save, and where less is gained the exact sum is the better
# bargain.
_WORTH = 0.8
# Tiles of eight points along an axis, F(6x6, 3x3) and F(4x4, 5x5), lose another factor of two or three in accuracy:
# they have to save this much on the next smaller ones.  (The lines of F(4, 5) have none to be compared with.)
_WORTH_MORE = 0.75

# Channels (or filters) of a group below which a matrix product has nothing to share: its narrowest tile is 32 wide and
# a step of its inner loop 8 deep.
_FEW = 8


def take(operator: str, shape: Conv2dShape, able: Sequence[Plan], table: Table | None = None) -> Choice:
    """The plan that `auto` takes among those that can run, at least one, and the sentence saying why.

    Args:
        operator: the pass.
        shape: the problem.
        able: the plans.
        table: what was measured; None for nothing.
    """
    problem = str(Problem(shape, operator))
    measured = table is not None and problem in table.measured
    if table is not None and shape.N and (table.calibrated or measured):
        allowed = [plan for plan in able if _accurate(plan)] or list(able)
        plans = allowed if measured else first_tiers(allowed)
        barred = {plan.name: "strict accuracy does not allow it" for plan in able if plan not in allowed}
        name, why = tuning.choose(table, operator, problem, [candidate(plan, shape) for plan in plans], barred)
        return next(plan for plan in plans if plan.name == name), why
    for rule in _RULES:
        found = rule(operator, shape, able)
        if found is not None:
            return found
    plan = least(able)
    return plan, f"the only family that can run it: {plan.why}"


def without_copies(able: Sequence[Plan]) -> list[Plan]:
    """The plans that read arrays as they lie, for what is channels-last and tensor cores compute; all if none do.

    The others would be given copies.  A copy moves each element there and back, half of the way against the order of
    memory, and the result is NCHW: the next layer would copy again, or read one by one the channels that it could read
    16 bytes at a time.  Who lays a network's images channels-last does not want that of one layer.
    """
    return [plan for plan in able if plan.strided] or list(able)


def least(plans: Sequence[Plan]) -> Plan:
    """Within a family: the lowest tier, and there the least work; the first of equals."""
    return min(plans, key=lambda plan: (plan.tier, plan.cost))


def candidate(plan: Plan, shape: Conv2dShape) -> Candidate:
    """A plan that can run the problem, with its work in the terms of a table."""
    work = {"launch": len(plan.kernels), "work": plan.cost, "bytes": shape.bytes() + plan.workspace}
    return Candidate(plan.name, family_of(plan), work, HANDICAPS.get(winograd.points_of(plan.name) or 4, 1.0))


def first_tiers(plans: Sequence[Plan]) -> list[Plan]:
    """Of each family those of its lowest tier: the others are general kernels, slower than their work says."""
    tiers: dict[str, int] = {}
    for plan in plans:
        tiers[family_of(plan)] = min(plan.tier, tiers.get(family_of(plan), plan.tier))
    return [plan for plan in plans if plan.tier == tiers[family_of(plan)]]


def _accurate(plan: Plan) -> bool:
    """Whether the accuracy in force allows the plan."""
    return accuracy() == "fast" or family_of(plan) != "winograd" or winograd.points_of(plan.name) == 4


def family_of(plan: Plan) -> str:
    """What the rules call it: "direct", "im2col_implicit", "im2col_explicit", "im2col_tensor", "winograd"."""
    words = plan.name.split("_")
    return "_".join(words[:2]) if words[0] == "im2col" else words[0]


def _of(family: str, able: Sequence[Plan]) -> list[Plan]:
    return [plan for plan in able if family_of(plan) == family]


def _empty(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    return None if shape.N else (least(able), "an empty batch: nothing is launched")


def _few_channels(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    direct = _of("direct", able)
    channels, filters = shape.C // shape.groups, shape.K // shape.groups
    if not direct or min(channels, filters) >= _FEW:
        return None
    if channels == 1 and shape.groups > 1:
        what = "depthwise: each tap is used by one channel alone, so there is no matrix product to share it"
    elif channels < _FEW:
        what = (
            f"{channels} channels a group: direct reads the image where it lies, a product's steps would be mostly idle"
        )
    else:
        what = f"{filters} filters a group: a product's narrowest tile, 32 wide, would be mostly idle"
    if _tensor(operator, shape, able) is not None:  # fast enough to idle
        return None
    return least(direct), what


def _tensor(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    tensor = _of("im2col_tensor", able)
    if not tensor:
        return None
    plan, others = least(tensor), [each for each in able if family_of(each) != "im2col_tensor" and _accurate(each)]
    if others and min(each.cost for each in others) < plan.cost:
        return None
    return plan, plan.why


def _winograd(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    allowed = [plan for plan in _of("winograd", able) if _accurate(plan)]
    # Not the explicit product, which no rule takes before the implicit one, and whose work leaves out idle tiles.
    others = _of("direct", able) + _of("im2col_implicit", able)
    if not allowed:
        return None

    def judged(plan: Plan) -> float:
        return plan.cost / (_WORTH_MORE if winograd.points_of(plan.name) == 8 else 1.0)

    best = min(allowed, key=judged)
    share = best.cost / min((plan.cost for plan in others), default=shape.macs)
    if share > _WORTH:
        return None
    strict = " that strict accuracy allows" if accuracy() == "strict" else ""
    return (
        best,
        f"{share:.2f} of the work of the best direct or implicit kernel, transforms and what they move included, "
        f"the least{strict}",
    )


def _implicit(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    implicit, direct = _of("im2col_implicit", able), _of("direct", able)
    if not implicit:
        return None
    best = least(implicit)
    if direct and least(direct).cost * 2 < best.cost:
        plan = least(direct)
        return plan, f"half or less of the work of the matrix product's tiles, whose tails idle; {plan.why}"
    return best, f"large register tiles, the columns never stored; {best.why}"


def _direct(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    direct = _of("direct", able)
    if not direct:
        return None
    plan = least(direct)
    if _of("im2col_tensor", able):
        return plan, f"less work than on tensor cores, whose tiles idle; {plan.why}"
    return plan, f"no implicit product can run it; {plan.why}" if _others(able) else plan.why


def _others(able: Sequence[Plan]) -> bool:
    return any(family_of(plan) != "direct" for plan in able)


# In the order in which they are asked.
_RULES: tuple[Rule, ...] = (_empty, _few_channels, _tensor, _winograd, _implicit, _direct)
