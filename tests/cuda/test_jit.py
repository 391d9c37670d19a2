"""The JIT: keys, publishing, errors, and what is read from a cubin."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.jit import CompileError, MissingToolError, cache, compile_all, cubin, host, nvrtc, parallel
from pycnn.jit.sources import ARCHS, Instance, Sources, installed

KEY = "0" * 32
SMALL = installed().of("conv2d_fprop_direct")["r3s3_st1_8x8"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(installed().folder, tmp_path / "kernels"))


def edit(file: Path, text: str = "\n// changed\n") -> None:
    file.write_text(file.read_text() + text)


def test_instances_have_unique_names_and_known_archs() -> None:
    labels = [str(instance) for instance in installed().instances]
    assert len(set(labels)) == len(labels) >= 12
    assert all(set(instance.archs) <= set(ARCHS) for instance in installed().instances)


def test_kernels_are_made_for_these_archs() -> None:
    assert ARCHS == ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")
    assert {arch for instance in installed().instances for arch in instance.archs} == set(ARCHS)


def test_unknown_arch_in_the_list_is_refused(copy: Path) -> None:
    toml = copy / "instances.toml"
    toml.write_text(toml.read_text().replace('archs = "all"', 'archs = ["sm_60"]', 1))
    with pytest.raises(ValueError, match="archs that nobody knows: sm_60"):
        Sources(copy)


@pytest.mark.nvrtc
def test_second_compile_is_a_look_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nvrtc.compile_cubin(SMALL, "sm_75")
    monkeypatch.setattr(nvrtc, "_run", lambda *arguments: pytest.fail("compiled again"))
    assert nvrtc.compile_cubin(SMALL, "sm_75") == path
    assert path.parent == folder


@pytest.mark.nvrtc
@pytest.mark.parametrize("file", ["common.cuh", "conv2d_fprop_direct.cu"])
def test_key_covers_source_and_header(folder: Path, copy: Path, file: str) -> None:
    before = nvrtc.compile_cubin(SMALL, "sm_75", Sources(copy))
    edit(copy / file)
    assert nvrtc.compile_cubin(SMALL, "sm_75", Sources(copy)) != before


@pytest.mark.parametrize("included", ['#include "arch/first.cuh"', '  #  include"arch/first.cuh"  // why'])
def test_key_covers_headers_of_headers_in_folders(copy: Path, included: str) -> None:
    (copy / "arch").mkdir(exist_ok=True)
    edit(copy / "common.cuh", f"\n{included}\n")
    (copy / "arch" / "first.cuh").write_text('#include "arch/second.cuh"\n')
    (copy / "arch" / "second.cuh").write_text("// second\n")
    before = nvrtc.portable_key(SMALL, "sm_75", Sources(copy))
    edit(copy / "arch" / "second.cuh")
    assert nvrtc.portable_key(SMALL, "sm_75", Sources(copy)) != before


def test_key_covers_the_instance_and_nothing_of_its_neighbours(copy: Path) -> None:
    instances = installed().of(SMALL.kernel).values()
    assert len({nvrtc.portable_key(instance, "sm_75") for instance in instances}) == len(instances)
    before = nvrtc.portable_key(SMALL, "sm_75", Sources(copy))
    edit(copy / "pool2d.cu")
    edit(copy / "instances.toml", "\n# more\n")
    assert nvrtc.portable_key(SMALL, "sm_75", Sources(copy)) == before


@pytest.mark.nvrtc
def test_key_covers_arch_options_nvrtc_and_pycnn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [nvrtc.compile_cubin(SMALL, "sm_75"), nvrtc.compile_cubin(SMALL, "sm_90a")]
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "-lineinfo"))
        paths.append(nvrtc.compile_cubin(SMALL, "sm_75"))
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "build", lambda: "99.0.1")
        paths.append(nvrtc.compile_cubin(SMALL, "sm_75"))
    with monkeypatch.context() as patch:
        patch.setattr("pycnn.__version__", "99")
        paths.append(nvrtc.compile_cubin(SMALL, "sm_75"))
    assert len(set(paths)) == 5


@pytest.mark.simulator
def test_simulator_key_covers_kernels_and_options(folder: Path, copy: Path) -> None:
    paths = [host.build(SMALL, Sources(copy), ("-O0",)), host.build(SMALL, Sources(copy), ("-O0", "-g"))]
    edit(copy / "common.cuh")
    paths.append(host.build(SMALL, Sources(copy), ("-O0",)))
    assert len(set(paths)) == 3


def test_keys_are_made_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than must differ between any two of today's kernels, too."""
    seen, key = [], cache.key
    monkeypatch.setattr(cache, "key", lambda **parts: seen.append(parts) or key(**parts))
    nvrtc.portable_key(SMALL, "sm_75")
    assert list(map(set, seen)) == [{"kind", "files", "source", "expression", "options"}]
    assert (seen[0]["kind"], seen[0]["source"]) == ("cubin", SMALL.source)
    assert nvrtc._parts(SMALL, "sm_75", installed(), "ptx")["kind"] == "ptx"


@pytest.mark.simulator
def test_simulator_key_is_made_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, key = [], cache.key
    monkeypatch.setattr(cache, "key", lambda **parts: seen.append(parts) or key(**parts))
    host.build(SMALL)
    assert set(seen[0]) == {"unit", "files", "simulator", "options", "compiler", "machine"}
    assert {"engine.cpp", "fiber.cpp", "cuda.h"} <= set(seen[0]["simulator"])
    assert {"conv2d_fprop_direct.cu", "common.cuh"} <= set(seen[0]["files"])
    assert "-O2" in seen[0]["options"]
    assert seen[0]["compiler"]
    assert seen[0]["machine"]


def test_key_parts_cannot_run_into_each_other() -> None:
    assert cache.key(a="x", b="y") != cache.key(a="xb", b="y") != cache.key(a="x", by="")
    assert cache.key(files={"a": "bc"}) != cache.key(files={"ab": "c"})
    assert len({cache.key(a="x"), cache.key(b="x"), cache.key(a={"a": "x"}), cache.key(a={"b": "x"})}) == 4


def test_publish_leaves_the_whole_or_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            cache.publish(KEY, ".cubin", b"data")
    assert list(folder.iterdir()) == []
    assert cache.publish(KEY, ".cubin", b"data").read_bytes() == b"data"
    assert [entry.path.name for entry in cache.entries()] == [f"{KEY}.cubin"]
    assert len(cache.clear()) == 1
    assert list(folder.iterdir()) == []


def test_readers_find_the_whole_while_others_write(folder: Path) -> None:
    data = [bytes([i]) * 2**20 for i in range(4)]
    cache.publish(KEY, ".cubin", data[0])
    seen = set()
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(cache.publish, KEY, ".cubin", data[i % 4]) for i in range(40)]
        while not all(writer.done() for writer in writers):
            seen.add(cache.path(KEY, ".cubin").read_bytes())
    assert seen <= set(data)
    assert [file.name for file in folder.iterdir()] == [f"{KEY}.cubin"]


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYCNN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "pycnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "pycnn"
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "here"))
    assert cache.folder() == tmp_path / "here"


def _compile(_: int) -> bytes:
    return nvrtc.compile_cubin(SMALL, "sm_75").read_bytes()


@pytest.mark.nvrtc
def test_processes_may_compile_the_same_at_once(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        images = pool.map(_compile, range(6))
    assert len({cubin.Cubin.read(image).entry for image in images}) == 1
    assert not list(folder.glob("*.part"))


@pytest.mark.nvrtc
def test_compile_error_carries_the_log(folder: Path, copy: Path) -> None:
    edit(copy / "conv2d_fprop_direct.cu", "\nint nonsense = undefined_name;\n")
    with pytest.raises(CompileError, match="undefined_name") as raised:
        nvrtc.compile_cubin(SMALL, "sm_90a", Sources(copy))
    assert "sm_90a" in str(raised.value)
    assert list(cache.entries()) == []


@pytest.mark.nvrtc
def test_arch_that_an_instance_is_not_for_is_refused() -> None:
    with pytest.raises(ValueError, match="not sm_60"):
        nvrtc.compile_cubin(SMALL, "sm_60")


@pytest.mark.nvrtc
def test_arch_that_this_nvrtc_does_not_know_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "supports", lambda arch: False)
    with pytest.raises(ValueError, match=r"NVRTC \d+\.\d+ does not compile for sm_90a"):
        nvrtc.compile_cubin(SMALL, "sm_90a")


@pytest.mark.parametrize("bundles", [True, False])
def test_whether_bundles_count_is_said_for_many_as_for_one(bundles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(instance: Instance, arch: str, sources: object, *, bundles: bool) -> Path:
        return Path(f"{instance} {arch} {bundles}")

    monkeypatch.setattr(nvrtc, "compile_cubin", compiled)
    assert compile_all([SMALL], "sm_90a", bundles=bundles) == {SMALL: Path(f"{SMALL} sm_90a {bundles}")}


def test_without_cupy_a_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cupy'] = None\n"
        "from pycnn.jit import MissingToolError, nvrtc\n"
        "try:\n    nvrtc.version()\n"
        "except MissingToolError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'pycnn[cuda13]'" in said


def test_without_a_compiler_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    host._version.cache_clear()
    with pytest.raises(MissingToolError, match="apt install g\\+\\+"):
        host.build(SMALL)


@pytest.mark.nvrtc
def test_cubin_is_whole(folder: Path) -> None:
    image = nvrtc.compile_cubin(SMALL, "sm_90a").read_bytes()
    assert cubin.whole(image) == image
    assert cubin.whole(image[:-1]) == image
    with pytest.raises(ValueError, match="came back as"):
        cubin.whole(image[:-2])
    with pytest.raises(ValueError, match="not an ELF file"):
        cubin.Cubin.read(b"PK" + image[2:])


@pytest.mark.nvrtc
@pytest.mark.simulator
@pytest.mark.parametrize("instance", installed().instances, ids=str)
def test_argument_layout_is_one_for_cubin_and_simulator(instance) -> None:  # type: ignore[no-untyped-def]
    compiled = cubin.Cubin.read(nvrtc.compile_cubin(instance, "sm_90a").read_bytes())
    assert compiled.parameters == SimDevice().load(instance).parameters
    assert compiled.max_threads == instance.tile["warps"] * 32


FEW = [installed().of("plane_take")["narrow"], installed().of("plane_take")["wide"], installed().of("sum_slices")["w8"]]


@pytest.mark.nvrtc
def test_nvrtc_says_its_whole_version() -> None:
    assert nvrtc.build().split(".")[:2] == [str(part) for part in nvrtc.version()]
    assert nvrtc.build().count(".") == 2


@pytest.mark.nvrtc
def test_nvrtc_leaves_python_running() -> None:
    """Threads are of use only if the binding gives Python's lock away; if it kept it, nobody else would get a turn."""
    compiler = threading.Thread(
        target=nvrtc._run,
        args=(SMALL, installed().closure(SMALL.source), nvrtc._options("sm_75", "cubin"), "cubin"),
    )
    turns = 0
    compiler.start()
    while compiler.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 20


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Instance]:
    """What is compiled, in place of compiling it."""
    asked: list[Instance] = []

    def compile_cubin(instance: Instance, arch: str, sources: Sources | None, bundles: bool) -> Path:
        asked.append(instance)
        time.sleep(0.01)
        return Path(f"{instance}.{arch}")

    monkeypatch.setattr(parallel.nvrtc, "compile_cubin", compile_cubin)
    return asked


@pytest.mark.nvrtc
def test_compiling_all_is_compiling_each(folder: Path) -> None:
    done: list[Instance] = []
    found = compile_all(FEW, "sm_75", workers=2, on_done=lambda instance, path: done.append(instance))
    assert list(found) == FEW
    assert set(done) == set(FEW)
    for instance, path in found.items():
        assert path == nvrtc.compile_cubin(instance, "sm_75")


def test_several_compile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=20)

    def compile_cubin(*given: object, **options: object) -> Path:
        together.wait()
        return Path()

    monkeypatch.setattr(parallel.nvrtc, "compile_cubin", compile_cubin)
    assert len(compile_all(FEW, "sm_75", workers=3)) == 3


def test_each_is_compiled_once_and_reported_in_the_callers_thread(compiles: list[Instance]) -> None:
    threads = set()
    found = compile_all([*FEW, *FEW], "sm_75", on_done=lambda *given: threads.add(threading.get_ident()))
    assert sorted(map(str, compiles)) == sorted(map(str, FEW))
    assert list(found.items()) == [(instance, Path(f"{instance}.sm_75")) for instance in FEW]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_after_an_error_nothing_new_is_begun(compiles: list[Instance], error: type[BaseException]) -> None:
    def stop(*given: object) -> None:
        raise error

    many = installed().instances
    with pytest.raises(error):
        compile_all(many, "sm_75", workers=1, on_done=stop)
    began = len(compiles)
    assert began < 5 < len(many)
    time.sleep(0.1)
    assert len(compiles) == began


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        compile_all(FEW, "sm_75", workers=0)


@pytest.mark.nvrtc
def test_an_error_of_one_carries_its_log(folder: Path, copy: Path) -> None:
    edit(copy / "slices.cu", "\nint nonsense = undefined_name;\n")
    with pytest.raises(CompileError, match=r"sum_slices\[w8\] .*sm_75.* does not compile:\n(.|\n)*undefined_name"):
        compile_all(FEW, "sm_75", Sources(copy))
