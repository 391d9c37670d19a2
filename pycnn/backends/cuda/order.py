"""Which family of kernels `auto` takes on a GPU: rules in order, each with its reason.

As `pycnn.algorithms` on the CPU, this is a pure function: of the pass, the shape, the plans that can run it within the
workspace limit, and the accuracy in force.  Plans count their work alike, in multiply-adds of all tiles, idle lanes and
memory traffic of transforms included, so costs of two families may be compared; what a family's inner loop makes of a
multiply-add is written here, once, as a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pycnn import winograd
from pycnn.algorithms import accuracy
from pycnn.backends.cuda.plan import Plan
from pycnn.shape import Conv2dShape

__all__ = ["family_of", "least", "take"]

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


def take(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice:
    """The plan that `auto` takes among those that can run, at least one, and the sentence saying why."""
    for rule in _RULES:
        found = rule(operator, shape, able)
        if found is not None:
            return found
    plan = least(able)
    return plan, f"the only family that can run it: {plan.why}"


def least(plans: Sequence[Plan]) -> Plan:
    """Within a family: the lowest tier, and there the least work; the first of equals."""
    return min(plans, key=lambda plan: (plan.tier, plan.cost))


def family_of(plan: Plan) -> str:
    """What the rules call it: "direct", "im2col_implicit", "im2col_explicit", "winograd"."""
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
    return least(direct), what


def _winograd(operator: str, shape: Conv2dShape, able: Sequence[Plan]) -> Choice | None:
    allowed = [plan for plan in _of("winograd", able) if accuracy() == "fast" or winograd.points_of(plan.name) == 4]
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
    return plan, f"no implicit product can run it; {plan.why}" if _others(able) else plan.why


def _others(able: Sequence[Plan]) -> bool:
    return any(family_of(plan) != "direct" for plan in able)


# In the order in which they are asked.
_RULES: tuple[Rule, ...] = (_empty, _few_channels, _winograd, _implicit, _direct)
