"""Convolution problems by the reason they are tested for, each one string (see `pycnn.shape.Problem`).

>>> [str(p.shape) for p in problems("one pixel")][:1]
['n2c3h1w1_k4r1s1_st1pd0dl1g1']
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pycnn.shape import PASSES, Problem

__all__ = ["BY_REASON", "LAYERS", "every_pass", "layers", "problems"]

# Sizes: "plain" fills whole SIMD vectors, GEMM tiles and Winograd tiles; "tail" leaves a remainder in every dimension
# at once; the rest are each about one thing that is easy to get wrong.
BY_REASON: dict[str, tuple[str, ...]] = {
    "plain": (
        "n2c16h16w16_k32r3s3_pd1",
        "n1c32h24w24_k64r3s3_pd1",
        "n1c64h14w14_k64r1s1",
        "n2c16h20w20_k16r5s5_pd2",
    ),
    "tail": (
        "n1c3h7w7_k5r3s3",
        "n3c13h17w19_k37r3s3_pd1",
        "n2c17h9w11_k19r3s3_pd1",
        "n1c7h33w35_k9r5s5_pd2",
        "n2c35h13w15_k67r1s1",
        "n1c5h13w13_k3r7s7_pd3",
        "n1c18h10w34_k33r3s3",
    ),
    "stride and tail": (
        "n2c5h15w17_k7r3s3_st2pd1",
        "n1c3h29w31_k9r7s7_st2pd3",
        "n1c3h43w47_k17r11s11_st4pd2",
        "n2c9h14w16_k11r1s1_st2",
        "n1c6h17w23_k10r3s3_st3pd1",
        "n2c4h16w16_k8r3s3_st2",  # the last row and column of x are never read
    ),
    "one pixel": (
        "n2c3h1w1_k4r1s1",
        "n2c5h1w1_k4r3s3_pd1",
        "n3c8h4w4_k6r4s4",  # one output pixel: a linear layer
        "n1c3h1w9_k4r1s3_pd0x1",
        "n1c3h9w1_k4r3s1_pd1x0",
    ),
    "one channel": ("n2c1h11w13_k6r3s3_pd1", "n1c1h28w28_k6r5s5_pd2", "n2c1h8w8_k1r3s3"),
    "one filter": ("n2c6h11w13_k1r3s3_pd1", "n1c33h9w9_k1r1s1", "n1c8h12w12_k1r5s5_st2pd2"),
    "even filter": (
        "n2c5h9w11_k6r2s2",
        "n1c3h12w13_k7r4s4_pd1",
        "n1c4h8w8_k4r2s2_st2",
        "n1c3h10w10_k4r2s4_pd1.0.2.1",
        "n1c3h14w14_k4r6s6_st3pd2",
    ),
    "asymmetric stride": ("n2c4h13w17_k6r3s3_st2x1pd1", "n1c5h16w15_k3r3s3_st1x3pd1", "n1c5h16w15_k3r1s1_st3x2"),
    "asymmetric padding": ("n2c4h9w10_k6r3s3_pd0.1.2.3", "n1c3h8w8_k5r3s3_st2pd1.0.0.1", "n1c3h9w9_k5r3s3_pd2x0"),
    "asymmetric filter": (
        "n2c4h11w13_k6r1s7_pd0x3",
        "n2c4h11w13_k6r7s1_pd3x0",
        "n1c4h11w13_k6r5s2_pd2x1",
        "n1c4h9w11_k6r1s5_pd0x2",
        "n2c3h11w9_k5r5s1_pd2x0",
    ),
    "padding larger than the filter": (
        "n1c3h5w6_k4r3s3_pd4",
        "n1c3h4w4_k4r1s1_pd2",
        "n2c3h3w5_k4r2s3_st2pd5x3",
        "n1c2h2w2_k3r3s3_st3pd7.0.1.6",
    ),
    "dilation": (
        "n2c4h13w15_k6r3s3_pd2dl2",
        "n1c5h17w17_k3r3s3_dl3",
        "n1c4h15w16_k4r3s2_st2pd1dl2x3",
        "n1c3h11w11_k4r2s2_dl5",
        "n1c6h12w12_k8r3s3_st2pd4dl4g2",
    ),
    "groups": (
        "n2c6h9w11_k9r3s3_pd1g3",
        "n1c8h10w10_k4r3s3_st2pd1g2",
        "n1c32h8w8_k64r3s3_pd1g4",
        "n2c12h7w7_k12r1s1_g4",
        "n1c10h9w9_k15r5s3_st2x1pd2x1dl1x2g5",
    ),
    "depthwise": (
        "n2c16h12w12_k16r3s3_pd1g16",
        "n1c7h13w15_k7r3s3_st2pd1g7",
        "n1c5h11w11_k10r5s5_pd2g5",  # channel multiplier 2
        "n1c19h9w9_k19r3s3_pd2dl2g19",
        "n2c3h20w37_k3r3s3_pd1g3",  # some vectors of a row meet no padding
        "n1c4h21w70_k4r3s3_st2pd1g4",
        "n1c3h9w40_k3r3s3_st1x2pd1g3",
        "n1c3h17w19_k3r5s5_st2pd2g3",
        "n1c3h16w18_k3r7s7_pd3g3",
        "n1c2h15w16_k2r3s4_st3pd1g2",
        "n1c3h14w40_k3r1s1_st2g3",
        "n1c2h300w90_k2r3s3_pd1g2",  # several bands of rows
    ),
    "stride larger than the filter": (
        "n2c4h13w14_k6r2s2_st3",
        "n1c3h16w16_k4r1s1_st5x4pd1",
        "n1c3h17w9_k4r3s1_st4x3pd1x0",
    ),
    "empty batch": ("n0c3h8w8_k4r3s3_pd1", "n0c4h6w6_k4r3s3_st2pd1g4", "n0c4h6w6_k8r1s1"),
    "wide": ("n1c2h3w300_k3r3s3_pd1", "n1c2h300w3_k3r3s3_pd1", "n1c300h3w3_k5r3s3_pd1", "n33c3h5w5_k4r3s3_pd1"),
}

# The distinct convolution layers of the lecture's networks, batch 1, in the order in which they run.
LAYERS: dict[str, tuple[str, ...]] = {
    "lenet5": ("n1c1h32_k6r5_C1", "n1c6h14_k16r5_C3", "n1c16h5_k120r5_C5"),
    "alexnet": (
        "n1c3h224_k64r11_st4pd2_conv1",
        "n1c64h27_k192r5_pd2_conv2",
        "n1c192h13_k384r3_pd1_conv3",
        "n1c384h13_k256r3_pd1_conv4",
        "n1c256h13_k256r3_pd1_conv5",
    ),
    "alexnet-two-tower": (
        "n1c3h227_k96r11_st4_conv1",
        "n1c96h27_k256r5_pd2g2_conv2",
        "n1c256h13_k384r3_pd1_conv3",
        "n1c384h13_k384r3_pd1g2_conv4",
        "n1c384h13_k256r3_pd1g2_conv5",
    ),
    "zfnet": ("n1c3h224_k96r7_st2pd1_conv1", "n1c96h55_k256r5_st2_conv2", "n1c256h13_k384r3_pd1_conv3"),
    "overfeat": (
        "n1c3h231_k96r11_st4_conv1",
        "n1c96h24_k256r5_conv2",
        "n1c256h12_k512r3_pd1_conv3",
        "n1c512h12_k1024r3_pd1_conv4",
        "n1c1024h12_k1024r3_pd1_conv5",
    ),
    "vgg16": (
        "n1c3h224_k64r3_pd1_conv1-1",
        "n1c64h224_k64r3_pd1_conv1-2",
        "n1c64h112_k128r3_pd1_conv2-1",
        "n1c128h112_k128r3_pd1_conv2-2",
        "n1c128h56_k256r3_pd1_conv3-1",
        "n1c256h56_k256r3_pd1_conv3-2",
        "n1c256h28_k512r3_pd1_conv4-1",
        "n1c512h28_k512r3_pd1_conv4-2",
        "n1c512h14_k512r3_pd1_conv5-1",
    ),
    "googlenet": (
        "n1c3h224_k64r7_st2pd3_conv1",
        "n1c64h56_k64r1_conv2-reduce",
        "n1c64h56_k192r3_pd1_conv2",
        "n1c192h28_k64r1_3a-1x1",
        "n1c96h28_k128r3_pd1_3a-3x3",
        "n1c16h28_k32r5_pd2_3a-5x5",
        "n1c480h14_k192r1_4a-1x1",
        "n1c112h14_k224r3_pd1_4b-3x3",
        "n1c24h14_k64r5_pd2_4b-5x5",
        "n1c832h7_k384r1_5b-1x1",
        "n1c192h7_k384r3_pd1_5b-3x3",
        "n1c48h7_k128r5_pd2_5b-5x5",
    ),
    "resnet50": (
        "n1c3h224_k64r7_st2pd3_conv1",
        "n1c64h56_k64r1_2-reduce",
        "n1c64h56_k64r3_pd1_2-3x3",
        "n1c64h56_k256r1_2-expand",
        "n1c128h56_k128r3_st2pd1_3-down",
        "n1c256h56_k512r1_st2_3-shortcut",
        "n1c128h28_k128r3_pd1_3-3x3",
        "n1c256h28_k256r3_st2pd1_4-down",
        "n1c256h14_k256r3_pd1_4-3x3",
        "n1c256h14_k1024r1_4-expand",
        "n1c512h14_k512r3_st2pd1_5-down",
        "n1c512h7_k512r3_pd1_5-3x3",
        "n1c512h7_k2048r1_5-expand",
    ),
    "resnet20-cifar": (
        "n1c3h32_k16r3_pd1_conv1",
        "n1c16h32_k16r3_pd1_1",
        "n1c16h32_k32r3_st2pd1_2-down",
        "n1c32h16_k32r3_pd1_2",
        "n1c32h16_k64r3_st2pd1_3-down",
        "n1c64h8_k64r3_pd1_3",
    ),
}


def problems(*reasons: str) -> list[Problem]:
    """The problems kept for these reasons, all of them where none is named, as float32 fprop.

    Raises KeyError for a reason that is not in `BY_REASON`.
    """
    return [Problem.parse(text) for reason in reasons or BY_REASON for text in BY_REASON[reason]]


def layers(*networks: str, most_macs: int | None = None) -> list[Problem]:
    """The convolution layers of these networks (all where none is named) of at most `most_macs` multiply-adds.

    >>> [problem.name for problem in layers("lenet5")]
    ['C1', 'C3', 'C5']
    """
    found = [Problem.parse(text) for network in networks or LAYERS for text in LAYERS[network]]
    return [problem for problem in found if most_macs is None or problem.shape.macs <= most_macs]


def every_pass(given: Iterable[Problem]) -> list[Problem]:
    """Each of `given` as fprop, dgrad and wgrad."""
    return [replace(problem, operator=operator) for problem in given for operator in PASSES]
