"""The JIT: keys, publishing, errors, and what is read from a cubin."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.jit import CompileError, MissingToolError, cache, cubin, host, nvrtc
from pycnn.jit.sources import ARCHS, Sources, installed

SMALL = installed().of("conv2d_fprop_direct")["r1s1_st1_8x8"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "kernels"
    target.mkdir()
    for file in installed().folder.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(file: Path, text: str = "\n// changed\n") -> None:
    file.write_text(file.read_text() + text)


def test_instances_have_unique_names_and_known_archs() -> None:
    labels = [str(instance) for instance in installed().instances]
    assert len(set(labels)) == len(labels) >= 12
    assert all(set(instance.archs) <= set(ARCHS) for instance in installed().instances)


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


@pytest.mark.nvrtc
def test_key_covers_arch_options_nvrtc_and_pycnn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [nvrtc.compile_cubin(SMALL, "sm_75"), nvrtc.compile_cubin(SMALL, "sm_90a")]
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "-lineinfo"))
        paths.append(nvrtc.compile_cubin(SMALL, "sm_75"))
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "version", lambda: (99, 0))
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


def test_key_parts_cannot_run_into_each_other() -> None:
    assert cache.key(a="x", b="y") != cache.key(a="xb", b="y") != cache.key(a="x", by="")
    assert cache.key(files={"a": "bc"}) != cache.key(files={"ab": "c"})


def test_publish_leaves_the_whole_or_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            cache.publish("k", ".bin", b"data")
    assert list(folder.iterdir()) == []
    assert cache.publish("k", ".bin", b"data").read_bytes() == b"data"
    assert [file.name for file, _ in cache.entries()] == ["k.bin"]
    assert cache.clear() == 1


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
