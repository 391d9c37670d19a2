"""Every kernel instance compiles for the archs it names; what it takes of the machine, and what its machine code holds.

The fast run compiles for the oldest arch and for sm_90a; ``pytest --slow`` for all of them.  ``-s`` shows the table.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ahead import FAST

from pycnn.backends.cuda import tensor
from pycnn.jit import cubin, nvrtc
from pycnn.jit.sources import ARCHS, Instance, Sources, installed
from pycnn.shape import PASSES

pytestmark = pytest.mark.nvrtc

REGISTERS = 65536  # of one SM, on every arch here
STATIC_SHARED = 48 * 1024
RESERVED_SHARED = 1024  # what the system keeps of each block's shared memory, sm_90 and later; part of the section


TABLE: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\nregisters  shared  spilled  instance")
    print("\n".join(sorted(TABLE)))


def _disassembler() -> str | None:
    try:
        import nvidia.cu13 as toolkit
    except ImportError:
        return shutil.which("nvdisasm")
    program = Path(next(iter(toolkit.__path__))) / "bin" / "nvdisasm"
    return str(program) if program.is_file() else shutil.which("nvdisasm")


@pytest.fixture(params=ARCHS)
def arch(request: pytest.FixtureRequest) -> str:
    if request.param not in FAST and not request.config.getoption("--slow"):
        pytest.skip("compiled with --slow")
    if not nvrtc.supports(request.param):
        pytest.skip(f"this NVRTC does not know {request.param}")
    return str(request.param)


@pytest.mark.parametrize("instance", installed().instances, ids=str)
def test_instance_compiles_and_fits(instance: Instance, arch: str) -> None:
    if arch not in instance.archs:
        pytest.skip(f"it is for {instance.archs[0]} and later")
    path = nvrtc.compile_cubin(instance, arch)
    compiled = cubin.Cubin.read(path.read_bytes())
    spilled = cubin.spilled(path.with_suffix(".log").read_text())
    threads = instance.tile["warps"] * 32
    TABLE.append(f"{compiled.registers:9}  {compiled.shared:6}  {spilled:7}  {instance} {arch}")
    assert spilled == instance.spills
    assert compiled.stack == 0 or instance.spills
    assert compiled.max_threads == threads
    assert compiled.shared <= STATIC_SHARED + RESERVED_SHARED
    # Registers are handed out by 8 a thread; as many blocks as the instance asks for must fit.
    blocks = instance.tile.get("blocks", 1) or 1
    assert -(-compiled.registers // 8) * 8 * threads * blocks <= REGISTERS


def of_source(source: str) -> list[Instance]:
    return [instance for instance in installed().instances if instance.source == source]


def listing(instance: Instance, arch: str = "sm_90a", sources: Sources | None = None) -> str:
    """The machine code."""
    program = _disassembler()
    if program is None:
        pytest.skip("nvdisasm is not installed (pip install nvidia-cuda-nvdisasm)")
    path = nvrtc.compile_cubin(instance, arch, sources)
    return subprocess.run([program, "-c", str(path)], capture_output=True, text=True, check=True).stdout


def longest_loop(code: str, word: str) -> str:
    """Of the stretches between a label and a jump back to it, the one with the most of `word`."""
    return longest_loops(code, word)[0]


def longest_loops(code: str, word: str) -> list[str]:
    """All that have as many."""
    lines = code.splitlines()
    labels = {line.strip().rstrip(":"): number for number, line in enumerate(lines) if line.startswith(".L_")}
    jumps = [
        (number, target[1]) for number, line in enumerate(lines) if (target := re.search(r"BRA.*`\((\.L_\w+)\)", line))
    ]
    loops = ["\n".join(lines[labels[name] : number + 1]) for number, name in jumps if labels[name] < number]
    most = max(loop.count(word) for loop in loops)
    return [loop for loop in loops if loop.count(word) == most]


DIRECT = of_source("conv2d_fprop_direct.cu") + of_source("conv2d_dgrad_direct.cu")

# Their loops have all their operands in shared memory, and nothing to do but multiply.
IN_REGISTERS = [
    instance
    for source in ("fprop_direct", "dgrad_direct", "wgrad_direct", "pointwise_direct")
    for instance in of_source(f"conv2d_{source}.cu")
    if instance.tile_type != "AnyTile" and instance.tile_type != "DgradTile"
]


@pytest.mark.parametrize("instance", IN_REGISTERS, ids=str)
def test_machine_code_of_the_inner_loop_is_multiply_adds(instance: Instance) -> None:
    """Of what is issued in it, the rest being loads of several operands at a time and the counting of the loop."""
    blocks = [
        re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ )?([A-Z0-9_.]+)", text) for text in labelled(listing(instance))
    ]
    loop = max(blocks, key=lambda block: block.count("FFMA"))
    assert loop.count("FFMA") >= 0.82 * len(loop)
    assert "LDS.128" in loop
    assert not {"LDL", "STL", "LDG.E", "LDG.E.CONSTANT"}.intersection(loop)


@pytest.mark.parametrize(
    "instance", [each for each in of_source("conv2d_depthwise_direct.cu") if each.tile["type"]], ids=str
)
def test_machine_code_of_depthwise_in_16_bits_is_that_of_float32_and_a_conversion_each(instance: Instance) -> None:
    code = listing(instance)
    name = instance.name.removesuffix("_bf16").removesuffix("_f16")
    float32 = listing(installed().of(instance.kernel)[name])
    assert code.count(" FFMA ") == float32.count(" FFMA ")
    assert code.count(" LDG.") == float32.count(" LDG.")
    elements = code.count(" LDG.E.U16")
    if instance.kernel != "conv2d_fprop_depthwise":  # which reads scale and b too
        assert elements == code.count(" LDG.")
    if instance.tile["type"] == 1:
        assert code.count(" HADD2.F32") == elements
    if instance.tile["R"]:
        assert code.count(" BRA ") <= float32.count(" BRA ") + 4, "a branch around a load keeps the next one waiting"


def labelled(code: str) -> list[str]:
    """The stretches between labels."""
    return re.split(r"^\.L_x_\d+:", code, flags=re.MULTILINE)


@pytest.mark.parametrize("instance", DIRECT, ids=str)
def test_machine_code_multiplies_and_adds(instance: Instance) -> None:
    code = listing(instance)
    tile = instance.tile
    sums = tile.get("filters", tile.get("channels", 0)) * tile.get("rows", tile.get("pixels", 0))
    assert code.count(" FFMA ") >= sums, "fewer FFMA than a thread has sums: the loops are not unrolled"
    assert " LDS.128 " in code, "filter taps are not read four at a time"


GEMM = of_source("sgemm.cu") + [each for operator in PASSES for each in of_source(f"conv2d_{operator}_im2col.cu")]


@pytest.mark.parametrize("instance", GEMM, ids=str)
def test_machine_code_of_products_copies_while_it_multiplies(instance: Instance) -> None:
    """The inner loop: every k of a tile at once, operands four at a time, another tile on its way past registers."""
    code = listing(instance)
    tile = instance.tile
    loop = longest_loop(code, " FFMA ")
    multiplies = tile["thread_m"] * tile["thread_n"] * tile["tile_k"]
    assert loop.count(" FFMA ") == multiplies
    # One 16-byte read for four operands; beyond them only places of the gathering ones are read.
    assert loop.count(" LDS.128 ") >= (tile["thread_m"] + tile["thread_n"]) // 4 * tile["tile_k"]
    assert " LDGSTS." in loop
    if not tile.get("wide"):
        assert multiplies >= 0.5 * sum(line.count(";") for line in loop.splitlines())


TENSOR = [each for operator in PASSES for each in of_source(f"conv2d_{operator}_tensor.cu")]


@pytest.mark.parametrize("instance", TENSOR, ids=str)
def test_as_many_blocks_share_the_memory_of_an_sm_as_a_tile_wants(instance: Instance) -> None:
    """Of sm_90a's 228 KiB; the dynamic part is none of the cubin's."""
    static = cubin.Cubin.read(nvrtc.compile_cubin(instance, "sm_90a").read_bytes()).shared
    dynamic = tensor.shared_bytes(instance.kernel.split("_")[1], instance)
    block = max(static, RESERVED_SHARED) + dynamic
    assert block <= 227 * 1024
    assert block * instance.tile["blocks"] <= 228 * 1024


@pytest.mark.parametrize("instance", TENSOR, ids=str)
def test_machine_code_of_tensor_cores_is_what_the_tile_says(instance: Instance) -> None:
    """The loop over tiles of k: a warp's products, its fragments by ldmatrix, another tile on its way by cp.async."""
    code, operator = listing(instance), instance.kernel.split("_")[1]
    tile, arithmetic = instance.tile, instance.tile["arithmetic"]
    loops = longest_loops(code, " HMMA.")
    # One for filters in chunks, and one for those that come one by one, where filters can.
    assert len(loops) == (1 if operator == "wgrad" or arithmetic >= 4 else 2)
    down, across = tile["tile_m"] // tile["warps_m"] // 16, tile["tile_n"] * tile["warps_m"] // tile["warps"] // 16
    number, length = {
        1: (" HMMA.16816.F32 ", 16),
        2: (" HMMA.16816.F32.BF16 ", 16),
        3: (" HMMA.1688.F32.TF32 ", 8),
        4: (" HMMA.1688.F32.TF32 ", 8),
        5: (" HMMA.16816.F32 ", 16),
    }[arithmetic]
    products = 3 if arithmetic >= 4 else 1
    of_tile = down * 2 * across * (tile["tile_k"] // length) * products
    assert [loop.count(number) for loop in loops] == [of_tile] * len(loops)
    assert code.count(" HMMA") == of_tile * len(loops)
    # Four registers at a time; of 32 bits, ldmatrix reads what lies along k alone.
    if arithmetic < 3:
        reads = tile["tile_k"] // 16 * (down + across)
    else:
        pixels, filters = (down, across) if tile["vectors"] else (across, down)
        parts = 2 if arithmetic == 4 else 1
        along_k = {"fprop": pixels + parts * filters, "dgrad": pixels, "wgrad": 0}[operator]
        reads = tile["tile_k"] // 8 * along_k
    assert [loop.count(" LDSM.") for loop in loops] == [reads] * len(loops)
    by_registers = operator == "wgrad" and arithmetic < 3 and not tile["vectors"]  # both operands element by element
    assert any(" LDGSTS." in loop for loop in loops) == (not by_registers)
    # By chunks, nothing is read by way of registers but a strided image's elements of 16 bits.
    assert (arithmetic < 3 and not tile["vectors"]) or any(" LDG." not in loop for loop in loops)
    assert " LDL" not in code
    assert " STL" not in code
    assert all(loop.count(" BAR.SYNC") == 1 for loop in loops)


@pytest.mark.parametrize("instance", of_source("pool2d.cu"), ids=str)
def test_machine_code_of_pooling_divides_no_index_where_32_bits_do(instance: Instance) -> None:
    """A 64-bit division is a subroutine with an integer reciprocal; a float one has the reciprocal MUFU.RCP alone."""
    code = listing(instance)
    assert ("I2F.U64.RP" in code) == (instance.tile["wide"] == 1)
    assert " MUFU.RCP " in code or not instance.kernel.startswith("avg")
    assert " BAR.SYNC" not in code
    assert " STL" not in code


# Kernels that stream arrays: how many they read and write by 128 bits, vectors apart.
STREAMS = {
    "unary": (1, 1),
    "binary": (2, 1),
    "activation_fwd": (1, 1),
    "activation_bwd": (2, 1),
    "pad2d": (0, 1),
    "unfold2d": (0, 1),
    "concat": (1, 1),
    "channel_map": (1, 1),
    "batch_norm_dx": (2, 1),
    "dropout": (1, 1),
    "sgd_step": (3, 2),
    "adam_step": (4, 3),
    "squares": (1, 0),
    "clip": (1, 1),
}


@pytest.mark.parametrize(
    "instance", [instance for instance in installed().instances if instance.kernel in STREAMS], ids=str
)
def test_machine_code_streams_by_128_bits(instance: Instance) -> None:
    code = listing(instance)
    reads, writes = STREAMS[instance.kernel]
    vectors = instance.tile["vectors"]
    if instance.kernel == "channel_map":
        reads += instance.tile["finish"]  # the residual
    assert code.count(" LDG.E.128") == reads * vectors
    assert code.count(" STG.E.128") == writes * vectors
    assert ("I2F.U64.RP" in code) == (instance.tile.get("wide", 0) == 1), "a 64-bit division where 32 bits do"
    assert " STL" not in code


@pytest.mark.parametrize(
    "instance",
    of_source("channel_sum.cu") + of_source("batchnorm.cu") + of_source("group_norm.cu") + of_source("softmax.cu"),
    ids=str,
)
def test_machine_code_of_reductions_reads_ahead_and_meets_in_shuffles(instance: Instance) -> None:
    code = listing(instance)
    if "columns" in instance.tile:
        arrays = 2 if instance.kernel == "batch_norm_slopes" else 1
        vectors = 0 if instance.tile["columns"] else 2 if instance.tile["type"] else 4
        assert code.count(" LDG.E.128") == vectors * arrays, "so many of each array, before the first is used"
        assert code.count(" LDG.E.64") == (4 * arrays if vectors == 2 else 0), "planes of fours, of 16 bits"
        assert (" SHFL.BFLY" in code) == (not instance.tile["columns"])
    assert " STL" not in code
    assert " ATOM" not in code
    assert " RED" not in code


# Kernels of channels_last.cu: how many vectors a thread asks for before it uses the first.
ROWS = {
    "channel_sum_last": 4,
    "batch_norm_moments_last": 4,
    "batch_norm_slopes_last": 4,  # two of either array
    "channel_map_last": 8,  # four of x and four of the residual
    "batch_norm_dx_last": 8,
}


@pytest.mark.parametrize("instance", of_source("channels_last.cu"), ids=str)
def test_machine_code_of_channels_last_reads_rows_ahead(instance: Instance) -> None:
    code = listing(instance)
    loop, is_map = longest_loop(code, " LDG.E.128"), ROWS[instance.kernel] == 8
    assert loop.count(" LDG.E.128") == ROWS[instance.kernel]
    assert loop.count(" STG.E.128") in ((4, 8) if is_map else (0,)), "apart with and without a ReLU, or not"
    assert (" SHFL.BFLY" in code) == (not is_map)
    assert " I2F.U64.RP" not in code, "a 64-bit division"
    assert " STL" not in code
    assert " ATOM" not in code


@pytest.mark.parametrize("instance", of_source("conv2d_winograd_staged.cu"), ids=str)
def test_machine_code_of_winograds_transforms_stays_in_registers(instance: Instance) -> None:
    """All points of a tile are in registers, and results are stored in vectors where they may be."""
    code, m = listing(instance), instance.tile["m"]
    side, axes = m + instance.tile["r"] - 1, instance.tile["axes"]
    points = side if axes else side**2
    assert " STL" not in code
    assert " LDL" not in code
    loads, stores = code.count(" LDG.E"), code.count(" STG.E")
    match instance.kernel:
        case "winograd_windows":
            assert (loads, stores) == (m**2 if instance.tile["gradient"] else points, points)
        case "winograd_results":
            assert loads >= points
            vector, width = (" STG.E.128 ", 4) if m == 4 else (" STG.E.64 ", 2)
            # A column goes by words, of which neighbouring lanes make whole lines.
            assert code.count(vector) >= {0: m * m // width, 1: m // width, 2: 0}[axes]
            assert axes != 2 or code.count(" STG") % m == 0
        case "winograd_filters":
            assert stores == points or (axes and stores == 2 * points)  # short enough for a copy each way of turning
        case _:
            assert loads >= points


def test_machine_code_of_the_fused_winograd_keeps_its_sums_in_registers() -> None:
    (instance,) = of_source("conv2d_winograd_fused.cu")
    code, channels = listing(instance), instance.tile["channels"]
    assert " STL" not in code
    # The loop and the last stage: 64 sums a channel, from four loads of 128 bits.
    assert code.count(" FFMA ") >= 2 * 64 * channels
    assert code.count(" LDS.128 ") == 2 * 4 * channels
    loop = code.split(" BAR.SYNC")[1]
    products = loop.count(" FFMA ")
    first, last = (loop.find(" LDG.E"), loop.rfind(" LDG.E"))
    # The next stage's loads are on their way before a quarter of this one's products, which hide them.
    assert products >= 64 * channels
    assert loop[:last].count(" FFMA ") < products / 4
    assert 0 < first < last < loop.find(" SHFL")
    # What is not a product: loads, the transform, stores, addresses.
    instructions = loop[first:].count(" ;")
    assert products / instructions > 0.7
