"""Bundles of compiled kernels, `pycnn warmup`, and compiling many at once."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from played import playing

import pycnn
from pycnn import Tensor, models, nn
from pycnn.cli import main
from pycnn.jit import BundleError, CompileError, bundle, cache, nvrtc
from pycnn.jit.sources import Instance, Sources, installed
from pycnn.models.kernels import kernels_of

SUM = installed().of("sum_slices")["w8"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(bundle.VARIABLE, raising=False)
    yield
    bundle._used.clear()
    bundle._from_environment.clear()


def made(path: Path, data: bytes = b"a cubin") -> Path:
    bundle.write(path, {nvrtc.bundle_key(SUM, "sm_90a"): (str(SUM), "sm_90a", data)})
    return path


def test_a_kernel_in_a_bundle_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_load", lambda: pytest.fail("NVRTC was asked"))  # there need not be any
    pycnn.jit.use_bundle(made(tmp_path / "kernels.zip"))
    path = nvrtc.compile_cubin(SUM, "sm_90a")
    assert path.read_bytes() == b"a cubin"
    bundle._used.clear()
    assert nvrtc.compile_cubin(SUM, "sm_90a") == path  # the cache has it now


def test_the_environment_names_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_load", lambda: pytest.fail("NVRTC was asked"))
    monkeypatch.setenv(bundle.VARIABLE, str(made(tmp_path / "kernels.zip")))
    assert nvrtc.compile_cubin(SUM, "sm_90a").read_bytes() == b"a cubin"


def test_a_bundle_depends_on_sources_arch_and_version_but_on_no_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    key = nvrtc.bundle_key(SUM, "sm_90a")
    monkeypatch.setattr(nvrtc, "version", lambda: (99, 9))
    assert nvrtc.bundle_key(SUM, "sm_90a") == key
    assert nvrtc.bundle_key(SUM, "sm_80") != key
    monkeypatch.setattr(pycnn, "__version__", "99")
    assert nvrtc.bundle_key(SUM, "sm_90a") != key


def test_the_same_kernels_make_the_same_bytes(tmp_path: Path) -> None:
    assert made(tmp_path / "a").read_bytes() == made(tmp_path / "b").read_bytes()


def test_damage_anywhere_is_refused_in_words(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", bytes(range(256)) * 8).read_bytes()
    for place in range(0, len(whole), 7):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read = bundle.Bundle.read(damaged)
        except BundleError as error:
            assert str(damaged) in str(error)  # noqa: PT017
        else:  # a byte that says nothing: a date, a flag
            assert list(read.cubins.values()) == [bytes(range(256)) * 8]


def remade(path: Path, **changes: Any) -> Path:
    """The bundle with other words in its manifest."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents["manifest.json"]) | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**contents, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, data)
    return path


def test_what_is_no_bundle_of_this_pycnn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle"):
        bundle.use(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="is no whole bundle of compiled kernels"):
        bundle.use(tmp_path / "text")
    with pytest.raises(BundleError, match=r"was made by pycnn 0\.0\.9, this is .*; make it anew with `pycnn warmup`"):
        bundle.use(remade(made(tmp_path / "old"), pycnn="0.0.9"))
    with pytest.raises(BundleError, match="has the format 'other'"):
        bundle.use(remade(made(tmp_path / "other"), format="other"))
    entry = {"kernel": "sum_slices", "arch": "sm_90a", "sha256": "0" * 64, "size": 7}
    changed = remade(made(tmp_path / "changed"), kernels={nvrtc.bundle_key(SUM, "sm_90a"): entry})
    with pytest.raises(BundleError, match=r"is damaged: sum_slices does not have the hash"):
        bundle.use(changed)
    assert bundle._used == []


@pytest.mark.nvrtc
def test_many_kernels_are_compiled_at_once() -> None:
    instances = [SUM, *installed().of("plane_take").values(), SUM]
    told: list[tuple[int, int]] = []
    paths = nvrtc.compile_all(instances, "sm_90a", jobs=2, progress=lambda done, total, _: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(path == nvrtc.compile_cubin(instance, "sm_90a") for instance, path in paths.items())
    assert len(list(cache.entries())) == 6  # a cubin and a log each


@pytest.mark.nvrtc
def test_one_that_does_not_compile_is_said_with_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "bad.cu").write_text(
        "namespace pycnn { struct T { int warps; }; template <T t> __global__ void bad() { x; } }"
    )
    (folder / "instances.toml").write_text(
        '[bad]\nsource = "bad.cu"\ntile = "T"\narchs = "all"\n[bad.instances]\none = { warps = 1 }\n'
    )
    sources = Sources(folder)
    with pytest.raises(CompileError, match=r'identifier "x" is undefined'):
        nvrtc.compile_all(sources.instances, "sm_90a", sources)


@pytest.mark.nvrtc
def test_warmup_writes_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [SUM]
    monkeypatch.setattr("pycnn.models.kernels.kernels_of", lambda *given, **named: chosen)
    out = tmp_path / "lenet5.zip"
    assert main(["warmup", "lenet5", "--arch", "sm_80", "--out", str(out)]) == 0
    assert "1 kernels of lenet5 for sm_80" in capsys.readouterr().out
    assert [entry["kernel"] for entry in bundle.Bundle.read(out).entries.values()] == ["sum_slices[w8]"]
    assert main(["cache", "size"]) == 0
    assert capsys.readouterr().out.startswith("2 files")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet6"], "did you mean lenet5"),
        (["lenet5", "--arch", "sm_12"], "--arch must be among sm_75"),
        (["lenet5", "--arch", "sm_80", "--out", "/no/such/place"], "--out: there is no folder /no/such"),
        (["lenet5", "--arch", "sm_80", "--batch", "0"], "--batch must be between 1"),
    ],
)
def test_bad_arguments_are_one_line_and_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


class Net(nn.Module):
    """Convolutions of several kinds, norm, pooling, dropout, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 5, stride=2)
        self.bn, self.drop, self.fc = nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Linear(24, 4)

    def forward(self, x: Any) -> Any:
        x = pycnn.relu(self.wide(pycnn.max_pool2d(self.bn(self.conv(x)), 2)))
        x = pycnn.cat([x, pycnn.tanh(x)], 1)
        return self.fc(self.drop(pycnn.adaptive_avg_pool2d(x, 1).flatten(1)))


@pytest.mark.nvrtc
@pytest.mark.simulator
@pytest.mark.parametrize("train", [False, True])
def test_the_kernels_of_a_network_are_those_that_it_launches(train: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYCNN_CACHE_DIR")
    net = Net().train(train)
    mean = net.bn.running_mean
    assert mean is not None
    expected = kernels_of(net, (3, 14, 15), batch=2, train=train)
    assert net.training == train
    with playing() as gpu:
        on_gpu = Net().cuda().train(train)
        with pycnn.no_grad() if not train else pycnn.enable_grad():
            y = on_gpu(pycnn.zeros(2, 3, 14, 15, device="cuda"))
            if train:
                pycnn.cross_entropy(y, Tensor(np.array([0, 1])).cuda()).backward()
                optimizer = pycnn.optim.SGD(on_gpu.parameters(), lr=0.1)
                pycnn.optim.clip_grad_norm_(on_gpu.parameters(), 1.0)
                optimizer.step()
        launched = {instance for _, instance in gpu.loaded}
    assert launched <= set(expected)
    assert train or launched == set(expected)


def test_finding_them_takes_no_memory() -> None:
    import tracemalloc

    with nn.init.skip():
        net = models.resnet18()
    tracemalloc.start()
    try:
        kernels = kernels_of(net, (3, 224, 224), batch=64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(isinstance(kernel, Instance) for kernel in kernels)
    assert len(kernels) > 5
    assert sys.getsizeof(kernels) < peak
