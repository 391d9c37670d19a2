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

from pycnn.jit import cubin, nvrtc
from pycnn.jit.sources import ARCHS, Instance, installed
from pycnn.shape import PASSES

pytestmark = pytest.mark.nvrtc

FAST = ("sm_75", "sm_90a")
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
    blocks = instance.tile.get("blocks", 1)
    assert -(-compiled.registers // 8) * 8 * threads * blocks <= REGISTERS


def of_source(source: str) -> list[Instance]:
    return [instance for instance in installed().instances if instance.source == source]


def listing(instance: Instance) -> str:
    """The machine code for sm_90a."""
    program = _disassembler()
    if program is None:
        pytest.skip("nvdisasm is not installed (pip install nvidia-cuda-nvdisasm)")
    path = nvrtc.compile_cubin(instance, "sm_90a")
    return subprocess.run([program, "-c", str(path)], capture_output=True, text=True, check=True).stdout


def longest_loop(code: str, word: str) -> str:
    """Of the stretches between a label and a jump back to it, the one with the most of `word`."""
    lines = code.splitlines()
    labels = {line.strip().rstrip(":"): number for number, line in enumerate(lines) if line.startswith(".L_")}
    jumps = [
        (number, target[1]) for number, line in enumerate(lines) if (target := re.search(r"BRA.*`\((\.L_\w+)\)", line))
    ]
    loops = ["\n".join(lines[labels[name] : number + 1]) for number, name in jumps if labels[name] < number]
    return max(loops, key=lambda loop: loop.count(word))


DIRECT = of_source("conv2d_fprop_direct.cu") + of_source("conv2d_dgrad_direct.cu")


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


@pytest.mark.parametrize("instance", of_source("pool2d.cu"), ids=str)
def test_machine_code_of_pooling_divides_no_index_where_32_bits_do(instance: Instance) -> None:
    """A 64-bit division is a subroutine with an integer reciprocal; a float one has the reciprocal MUFU.RCP alone."""
    code = listing(instance)
    assert ("I2F.U64.RP" in code) == (instance.tile["wide"] == 1)
    assert " MUFU.RCP " in code or not instance.kernel.startswith("avg")
    assert " BAR.SYNC" not in code
    assert " STL" not in code
