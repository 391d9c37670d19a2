"""Bundles: what is packed comes back, from the right sources alone, without a compiler; what is wrong is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import pycnn
from pycnn.jit import BundleError, MissingToolError, bundle, cache, nvrtc, use_bundle
from pycnn.jit.sources import Sources, installed

pytestmark = pytest.mark.nvrtc

ARCH = "sm_90a"
PACKED = installed().of("sum_slices")["w8"]
OTHER = installed().of("plane_take")["narrow"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one kernel."""
    path = nvrtc.compile_cubin(PACKED, ARCH, bundles=False)
    target = tmp_path_factory.mktemp("bundle") / "one.kernels"
    log = path.with_suffix(".log").read_text()
    key = nvrtc.portable_key(PACKED, ARCH)
    bundle.write(target, [(PACKED, ARCH, key, path.read_bytes(), log)], "13.5")
    return target


@pytest.fixture
def code(made: Path) -> bytes:
    return bundle.Bundle(made).read(nvrtc.portable_key(PACKED, ARCH))[0]


@pytest.fixture
def no_nvrtc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No NVRTC, and nothing in the cache."""

    def missing() -> None:
        raise MissingToolError("there is no NVRTC")

    monkeypatch.setattr(nvrtc, "_load", missing)
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))


def test_what_is_packed_comes_back(made: Path) -> None:
    opened = bundle.Bundle(made)
    (kernel,) = opened.kernels.values()
    assert (kernel.instance, kernel.arch, opened.archs, opened.nvrtc) == ("sum_slices[w8]", ARCH, [ARCH], "13.5")
    data, log = opened.read(kernel.key)
    path = nvrtc.compile_cubin(PACKED, ARCH)
    assert data == path.read_bytes()
    assert log == path.with_suffix(".log").read_text()
    assert "registers" in log


def test_the_bundle_named_last_is_looked_into_first(made: Path) -> None:
    before = list(bundle.in_use())
    with use_bundle(made) as first, use_bundle(made) as last:
        one, other, *rest = bundle.in_use()
        assert one is last.bundle
        assert other is first.bundle
        assert rest == before
    assert list(bundle.in_use()) == before


def test_the_same_kernels_give_the_same_file(made: Path, tmp_path: Path) -> None:
    (key,) = bundle.Bundle(made).kernels
    bundle.write(tmp_path / "again", [(PACKED, ARCH, key, *bundle.Bundle(made).read(key))], "13.5")
    assert (tmp_path / "again").read_bytes() == made.read_bytes()


def test_nothing_is_left_of_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    def broken() -> object:
        yield PACKED, ARCH, "k", b"code", "log"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle.write(tmp_path / "half", broken(), "13.5")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_nvrtc")
def test_a_bundle_in_use_needs_no_compiler(made: Path, code: bytes) -> None:
    with pytest.raises(MissingToolError):
        nvrtc.compile_cubin(PACKED, ARCH)
    with use_bundle(made):
        path = nvrtc.compile_cubin(PACKED, ARCH)
        assert path.read_bytes() == code
        assert "registers" in path.with_suffix(".log").read_text()
        assert nvrtc.compile_cubin(PACKED, ARCH) == path
        for instance, arch in ((OTHER, ARCH), (PACKED, "sm_80")):
            with pytest.raises(MissingToolError):
                nvrtc.compile_cubin(instance, arch)
        with pytest.raises(MissingToolError):
            nvrtc.compile_cubin(PACKED, ARCH, bundles=False)
    with pytest.raises(MissingToolError):
        nvrtc.compile_cubin(PACKED, ARCH)


@pytest.mark.usefixtures("no_nvrtc")
def test_kernels_load_where_the_cache_cannot_be_written(
    made: Path, code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with use_bundle(made):
        path = nvrtc.compile_cubin(PACKED, ARCH)
    assert path.read_bytes() == code
    assert path.with_suffix(".log").is_file()


@pytest.mark.usefixtures("no_nvrtc")
def test_a_spoiled_copy_in_the_cache_is_replaced(made: Path, code: bytes) -> None:
    with use_bundle(made):
        path = nvrtc.compile_cubin(PACKED, ARCH)
        path.write_bytes(b"something else")
        assert nvrtc.compile_cubin(PACKED, ARCH).read_bytes() == code


@pytest.mark.usefixtures("no_nvrtc")
def test_the_environment_names_bundles(
    made: Path, code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.write(tmp_path / "none", [], "1.0")
    monkeypatch.setenv("PYCNN_KERNELS", f"{tmp_path / 'none'}:{made}")
    assert nvrtc.compile_cubin(PACKED, ARCH).read_bytes() == code
    monkeypatch.setenv("PYCNN_KERNELS", f"{made}:{tmp_path / 'lost'}")
    with pytest.raises(BundleError, match=r"PYCNN_KERNELS: there is no bundle of kernels .*lost"):
        nvrtc.compile_cubin(PACKED, ARCH)


def test_a_machine_without_cupy_loads_a_bundle(made: Path, code: bytes, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cupy'] = None\n"
        "from pycnn.jit import MissingToolError, nvrtc\n"
        "from pycnn.jit.sources import installed\n"
        "path = nvrtc.compile_cubin(installed().of('sum_slices')['w8'], 'sm_90a')\n"
        "sys.stdout.buffer.write(path.read_bytes())\n"
        "try:\n    nvrtc.compile_cubin(installed().of('plane_take')['narrow'], 'sm_90a')\n"
        "except MissingToolError as error:\n    print(error, file=sys.stderr)\n"
    )
    search = ":".join(path for path in sys.path if path)
    environment = {"PYTHONPATH": search, "PYCNN_KERNELS": str(made), "PYCNN_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stdout == code
    assert "pip install 'pycnn[cuda13]', or name a bundle of compiled kernels in PYCNN_KERNELS" in done.stderr.decode()


def test_nvrtcs_version_does_not_matter(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "build", lambda: "99.0.1")
    monkeypatch.setattr(nvrtc, "_run", lambda *given: pytest.fail("compiled"))
    with use_bundle(made):
        nvrtc.compile_cubin(PACKED, ARCH)


def edited(folder: Path, file: str) -> Sources:
    shutil.copytree(installed().folder, folder)
    path = folder / file
    path.write_text(path.read_text() + "\n// changed\n")
    return Sources(folder)


@pytest.mark.usefixtures("no_nvrtc")
@pytest.mark.parametrize("file", ["slices.cu", "common.cuh"])
def test_changed_sources_are_not_served(made: Path, tmp_path: Path, file: str) -> None:
    with use_bundle(made):
        nvrtc.compile_cubin(PACKED, ARCH)
        with pytest.raises(MissingToolError):
            nvrtc.compile_cubin(PACKED, ARCH, edited(tmp_path / "kernels", file))


@pytest.mark.usefixtures("no_nvrtc")
def test_other_options_are_not_served(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "-lineinfo"))
    with use_bundle(made), pytest.raises(MissingToolError):
        nvrtc.compile_cubin(PACKED, ARCH)


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy in which `change` makes each member's new content; None leaves it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def manifest(**changes: object) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **changes}).encode() if name == "manifest.json" else data

    return change


def entry(**changes: object) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != "manifest.json":
            return data
        described = json.loads(data)
        described["kernels"] = [{**described["kernels"][0], **changes}]
        return json.dumps(described).encode()

    return change


def without(kind: str) -> Callable[[str, bytes], bytes | None]:
    return lambda name, data: None if name.startswith(kind) else data


def flipped(kind: str) -> Callable[[str, bytes], bytes]:
    return lambda name, data: data[:-1] + bytes([data[-1] ^ 1]) if name.startswith(kind) else data


WRONG = {
    "no manifest": (without("manifest"), "no bundle of kernels: it has no manifest.json"),
    "manifest is no JSON": (lambda name, data: data[:-5] if name == "manifest.json" else data, "is not JSON"),
    "manifest of something else": (lambda name, data: b"[]", "names no format"),
    "another format": (manifest(format=2), "has format 2; this pycnn reads format 1"),
    "another pycnn": (manifest(pycnn="0.0.7"), rf"was made by pycnn 0\.0\.7, and this is pycnn {pycnn.__version__}"),
    "no list of kernels": (manifest(kernels=3), "no list of kernels"),
    "a kernel is described wrongly": (entry(size="9"), "describes a kernel as"),
    "a kernel has something more": (entry(more=1), "describes a kernel as"),
    "a cubin is missing": (without("cubin"), r"sum_slices\[w8\] for sm_90a is missing"),
    "a log is missing": (without("log"), r"sum_slices\[w8\] for sm_90a is missing"),
    "a cubin differs": (flipped("cubin"), r"machine code of sum_slices\[w8\] for sm_90a is not what"),
    "a log differs": (flipped("log"), r"log of sum_slices\[w8\] for sm_90a is not what"),
    "a cubin is too long": (lambda name, data: data + b"x" if name.startswith("cubin") else data, "larger than its"),
    "a size is wrong": (entry(size=10**9), "is not what"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_bundle_is_said(made: Path, tmp_path: Path, case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(BundleError, match=message):
        bundle.Bundle(repacked(made, tmp_path / "bad", change))


@pytest.mark.parametrize("position", [0.3, 0.6, 0.999])
def test_a_damaged_byte_or_end_is_found(made: Path, tmp_path: Path, position: float) -> None:
    data = bytearray(made.read_bytes())
    cut = int(len(data) * position)
    (tmp_path / "short").write_bytes(data[:cut])
    with pytest.raises(BundleError, match="no bundle of kernels, or a damaged one"):
        bundle.Bundle(tmp_path / "short")
    with zipfile.ZipFile(made) as file:
        middle = file.getinfo("manifest.json").header_offset // 2  # within the compressed cubin
    data[middle] ^= 0x55
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(BundleError, match=r"is damaged: cubin/.* cannot be read"):
        bundle.Bundle(tmp_path / "flipped")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="text is no bundle of kernels"):
        use_bundle(tmp_path / "text")


def test_a_bundle_that_changes_while_it_is_used_is_refused(made: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copy(made, mine)
    opened = bundle.Bundle(mine)
    (key,) = opened.kernels
    mine.write_text("gone")
    with pytest.raises(BundleError, match="has changed since it was opened"):
        opened.read(key)


def test_unpacked_kernels_are_cleared_with_the_cache(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    with use_bundle(made):
        nvrtc.compile_cubin(PACKED, ARCH)
    assert sorted(entry.kind for entry in cache.clear()) == [".cubin", ".log"]
    assert list((tmp_path / "cache").iterdir()) == []
