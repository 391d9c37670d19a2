"""``pycnn warmup``: the bundle has what the network launches; what cannot be is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycnn import models
from pycnn.cli import _progress, main, warmup
from pycnn.jit import bundle, nvrtc, use_bundle
from pycnn.jit.sources import installed
from pycnn.models.kernels import kernels_of
from pycnn.nn import init

pytestmark = pytest.mark.nvrtc


def expected(name: str, arch: str, shape: tuple[int, int, int], batch: int) -> set[str]:
    with init.skip():
        net = models.create(name)
    return {str(kernel) for kernel in kernels_of(net, shape, arch, batch=batch)}


def test_bundle_has_what_the_network_launches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "lenet5.kernels"
    assert main(["warmup", "lenet5", "--arch", "sm_90a", "--arch", "sm_75", "--batch", "3", "--out", str(out)]) == 0
    made = bundle.Bundle(out)
    assert made.archs == ["sm_75", "sm_90a"]
    for arch in made.archs:
        found = {kernel.instance for kernel in made.kernels.values() if kernel.arch == arch}
        assert found == expected("lenet5", arch, models.info("lenet5").input_shape, 3)
    printed = capsys.readouterr().out
    assert "lenet5, 1x32x32, batch 3\n" in printed
    assert f"{len(made.kernels)} kernels ready after" in printed
    assert f"{out}: " in printed
    assert [file.name for file in tmp_path.iterdir()] == ["lenet5.kernels"]

    def missing() -> None:
        pytest.fail("NVRTC was asked for")

    monkeypatch.setattr(nvrtc, "_load", missing)
    with use_bundle(out):
        for kernel in kernels_of(models.create("lenet5"), (1, 32, 32), "sm_90a", batch=3):
            assert nvrtc.compile_cubin(kernel, "sm_90a").is_file()


def compiled_nothing(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Have `warmup` compile nothing; what it would have, by arch, comes into the dict."""
    asked: dict[str, list[str]] = {}
    monkeypatch.setattr(warmup, "_compile", lambda wanted: asked.update(wanted))
    monkeypatch.setattr(warmup, "_compiled", lambda wanted: iter(()))
    return asked


def test_training_takes_the_batches_of_pycnn_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = compiled_nothing(monkeypatch)
    arguments = ["warmup", "resnet20", "--arch", "sm_80", "--train", "--out", str(tmp_path / "b")]
    assert main(arguments) == 0
    assert "batch 128 (training), 256\n" in capsys.readouterr().out
    kernels = " ".join(str(kernel) for kernel in asked["sm_80"])
    assert "wgrad" in kernels
    assert "sgd_step" in kernels
    assert main([*arguments, "--batch", "4", "--batch", "2", "--input", "3,40x48", "--classes", "7"]) == 0
    assert "resnet20, 3x40x48, batch 4 (training), 2 (training)\n" in capsys.readouterr().out


def test_all_takes_every_instance_of_the_arch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = compiled_nothing(monkeypatch)
    assert main(["warmup", "--all", "--arch", "sm_75", "--out", str(tmp_path / "b")]) == 0
    assert asked == {"sm_75": [instance for instance in installed().instances if "sm_75" in instance.archs]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet50", "--arch", "sm_60"], "--arch must be one of sm_75, "),
        (["resnet51", "--arch", "sm_80"], "no network is named 'resnet51'; did you mean resnet"),
        (["--arch", "sm_80"], "name either a network or --all"),
        (["lenet5", "--all", "--arch", "sm_80"], "name either a network or --all"),
        (["lenet5", "--arch", "sm_80", "--batch", "0"], "--batch must be between 1 and"),
        (["lenet5", "--arch", "sm_80", "--input", "32"], "--input must be CxHxW, such as 3x224x224, got '32'"),
        (["vgg16", "--arch", "sm_80", "--input", "3,4,4"], ""),
        (["lenet5", "--arch", "sm_80", "--out", "/no/such/folder/b"], "there is no folder /no/such/folder"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "b")]
    assert main(["warmup", *arguments, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pycnn warmup: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_a_kernel_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycnn.backends.cuda import Host

    monkeypatch.setattr(Host, "linear_fwd", lambda self, *given: self._unavailable("linear_fwd"))
    assert main(["warmup", "lenet5", "--arch", "sm_80", "--out", str(tmp_path / "b")]) == 2
    assert "lenet5 cannot run on a GPU: the cuda backend has no kernel for linear_fwd" in capsys.readouterr().err


def test_without_nvrtc_a_sentence_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cupy.cuda import nvrtc as binding

    def unloadable() -> None:
        raise RuntimeError("libnvrtc.so.13: cannot open shared object file")

    nvrtc._load.cache_clear()
    monkeypatch.setattr(binding, "getVersion", unloadable)
    assert main(["warmup", "lenet5", "--arch", "sm_80", "--out", str(tmp_path / "b")]) == 2
    said = capsys.readouterr().err
    assert "NVRTC, CUDA's run-time compiler, cannot be loaded (libnvrtc.so.13" in said
    assert "pip install 'pycnn[cuda13]'" in said


class Watched(_progress.Bar):
    """What was drawn."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float | None, str]] = []

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        self.seen.append((done, total, text))


@pytest.mark.parametrize("patience", [0.0, 1e9])
def test_there_is_a_bar_when_it_takes_long(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    watched = Watched()
    monkeypatch.setattr(_progress, "bar", lambda words: nullcontext(watched))
    monkeypatch.setattr(warmup, "_PATIENCE", patience)
    kernel: Any = installed().of("sum_slices")["w8"]
    warmup._compile({"sm_75": [kernel], "sm_90a": [kernel]})
    assert watched.seen == ([] if patience else [(1, 2, "sum_slices[w8]"), (2, 2, "sum_slices[w8]")])
