"""Weights of Keras and TensorFlow.js: every layer's names and layouts, checked by running the layers in NumPy."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

from pycnn import nn, weights
from pycnn.bench import memory
from pycnn.weights import WeightsError, hdf5, hdf5_child

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def same_conv(x, kernel, stride=1):
    """TensorFlow's conv2d of one channels-last image, padding "valid": the definition, by loops over the taps."""
    r, s = kernel.shape[:2]
    p, q = (x.shape[0] - r) // stride + 1, (x.shape[1] - s) // stride + 1
    y = np.zeros((p, q, kernel.shape[3]))
    for i in range(r):
        for j in range(s):
            y += x[i : i + stride * (p - 1) + 1 : stride, j : j + stride * (q - 1) + 1 : stride] @ kernel[i, j]
    return y


def same_depthwise(x, kernel):
    """TensorFlow's depthwise_conv2d: channel c becomes channels c * M ... c * M + M - 1."""
    return np.concatenate([same_conv(x[..., c : c + 1], kernel[:, :, c : c + 1]) for c in range(x.shape[2])], axis=-1)


def run(layer, x):
    """A layer of ours on one channels-last image; channels-last."""
    return layer(x.transpose(2, 0, 1)[None]).detach().numpy()[0].transpose(1, 2, 0)


def loaded(layer, arrays, prefix):
    layer.load_state_dict({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
    return layer.eval()


# One of each kind, by Keras' names.
LAYERS = {
    "conv": {"kernel": normal(3, 2, 4, 6), "bias": normal(6)},
    "norm": {"gamma": normal(6), "beta": normal(6), "moving_mean": normal(6), "moving_variance": np.abs(normal(6))},
    "depthwise": {"depthwise_kernel": normal(3, 3, 4, 2), "bias": normal(8)},
    "separable": {
        **{"depthwise_kernel": normal(2, 3, 4, 2), "pointwise_kernel": normal(1, 1, 8, 5), "bias": normal(5)},
    },
    "transposed": {"kernel": normal(2, 3, 5, 4), "bias": normal(5)},
    "line": {"kernel": normal(3, 4, 6), "bias": normal(6)},
    "dense": {"kernel": normal(7, 3), "bias": normal(3)},
    "prelu": {"alpha": normal(1, 1, 4)},
}
# Each gives something of its own rounding order, so sums of at most 100 products of float32 numbers near 1.
CLOSE = {"rtol": 0, "atol": 2e-5}


def check(arrays, names):
    """`arrays` under `names`, layer by layer, compute what Keras' layers compute."""
    x = normal(8, 9, 4)
    expected = same_conv(x, LAYERS["conv"]["kernel"]) + LAYERS["conv"]["bias"]
    found = run(loaded(nn.Conv2d(4, 6, (3, 2)), arrays, names["conv"]), x)
    np.testing.assert_allclose(found, expected, **CLOSE)
    norm = LAYERS["norm"]
    found = run(loaded(nn.BatchNorm2d(6, eps=1e-3), arrays, names["norm"]), found)
    scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + 1e-3)
    np.testing.assert_allclose(found, (expected - norm["moving_mean"]) * scale + norm["beta"], rtol=1e-5, atol=1e-3)
    depthwise = LAYERS["depthwise"]
    found = run(loaded(nn.Conv2d(4, 8, 3, groups=4), arrays, names["depthwise"]), x)
    np.testing.assert_allclose(found, same_depthwise(x, depthwise["depthwise_kernel"]) + depthwise["bias"], **CLOSE)
    separable = LAYERS["separable"]
    first = nn.Conv2d(4, 8, (2, 3), groups=4, bias=False)
    second = nn.Conv2d(8, 5, 1)
    found = run(
        loaded(second, arrays, names["separable"] + "pointwise."),
        run(loaded(first, arrays, names["separable"] + "depthwise."), x),
    )
    middle = same_depthwise(x, separable["depthwise_kernel"])
    np.testing.assert_allclose(found, middle @ separable["pointwise_kernel"][0, 0] + separable["bias"], **CLOSE)
    # A transposed convolution scatters: y[2p + i, 3q + j] += kernel[i, j] x[p, q] at strides as large as the filter.
    transposed = LAYERS["transposed"]
    found = run(loaded(nn.ConvTranspose2d(4, 5, (2, 3), (2, 3)), arrays, names["transposed"]), x)
    expected = np.einsum("pqc,ijkc->piqjk", x, transposed["kernel"]).reshape(16, 27, 5) + transposed["bias"]
    np.testing.assert_allclose(found, expected, **CLOSE)
    v = normal(2, 7)
    found = loaded(nn.Linear(7, 3), arrays, names["dense"])(v).detach().numpy()
    np.testing.assert_allclose(found, v @ LAYERS["dense"]["kernel"] + LAYERS["dense"]["bias"], **CLOSE)
    line = arrays[names["line"] + "weight"]
    np.testing.assert_array_equal(line, LAYERS["line"]["kernel"].transpose(2, 1, 0))
    np.testing.assert_array_equal(arrays[names["prelu"] + "weight"], LAYERS["prelu"]["alpha"].reshape(-1))


# -- HDF5 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


@pytest.mark.parametrize("whole_model", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_keras_2(h5py, tmp_path, whole_model, split):
    with h5py.File(tmp_path / "net", "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        names = [name.encode() for name in (*LAYERS, "dropout")]
        if split:  # lists of more than 64 KB are spread over attributes
            root.attrs["layer_names0"], root.attrs["layer_names1"] = names[:3], names[3:]
        else:
            root.attrs["layer_names"] = names
        for layer, variables in {**LAYERS, "dropout": {}}.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in variables]
            for name, array in variables.items():
                group[f"{layer}/{name}:0"] = array
        if whole_model:
            file.create_group("optimizer_weights")["iterations:0"] = 3
    read = weights.load(tmp_path / "net")
    check(read, {layer: f"{layer}." for layer in LAYERS})
    assert [name.split(".")[0] for name in read][:3] == ["conv", "conv", "norm"]  # the order of the layers
    raw = weights.load(tmp_path / "net", convert=False)
    np.testing.assert_array_equal(raw["conv.kernel"], LAYERS["conv"]["kernel"])


def test_keras_3(h5py, tmp_path):
    classes = {
        **{"conv": "conv2d_2", "norm": "batch_normalization", "depthwise": "depthwise_conv2d", "dense": "dense"},
        **{"separable": "separable_conv2d", "transposed": "conv2d_transpose_10", "line": "conv1d", "prelu": "p_re_lu"},
    }
    with h5py.File(tmp_path / "net", "w") as file:
        for layer, variables in LAYERS.items():
            group = file.create_group(f"layers/{classes[layer]}/vars")
            for i, array in enumerate(variables.values()):
                group[str(i)] = array
        file["optimizer/vars/0"] = 3
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    read = weights.load(tmp_path / "net")
    check(read, {layer: f"layers.{name}." for layer, name in classes.items()})
    assert not [name for name in read if name.startswith("optimizer")]


def test_keras_3_tells_depthwise_kernels_by_their_biases(h5py, tmp_path):
    with h5py.File(tmp_path / "net", "w") as file:
        for name, shape, bias in (("a", (3, 3, 4, 1), 4), ("b", (3, 3, 4, 1), 1), ("c", (1, 1, 1, 6), 6)):
            file[f"{name}/vars/0"], file[f"{name}/vars/1"] = normal(*shape), normal(bias)
    shapes = {name: array.shape for name, array in weights.load(tmp_path / "net").items() if array.ndim == 4}
    assert shapes == {"a.weight": (4, 1, 3, 3), "b.weight": (1, 4, 3, 3), "c.weight": (6, 1, 1, 1)}


def test_arrays_alone_are_left_as_they_are(h5py, tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    with h5py.File(tmp_path / "flat", "w") as flat, h5py.File(tmp_path / "nested", "w") as nested:
        for name, array in state.items():
            flat[name] = array
            nested[name.replace(".", "/")] = array.astype(array.dtype.newbyteorder(">"))
    for kind in ("flat", "nested"):
        read = weights.load(tmp_path / kind)
        assert sorted(read) == sorted(state)
        for name, array in state.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype


def test_hdf5_that_is_refused(h5py, tmp_path):
    def made(fill):
        with h5py.File(tmp_path / "net", "w") as file:
            fill(file)
        return tmp_path / "net"

    def loop(file):
        file["a/x"] = 1.0
        file["a/b"] = file["a"]

    def bomb(file):
        file.create_dataset("x", (2**15, 2**15), "f4", chunks=(1024, 1024), compression="gzip", fillvalue=1)

    cases = {
        "'x', a link to elsewhere": lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "y")),
        "'soft', a link": lambda file: file.__setitem__("soft", h5py.SoftLink("/x")),
        "'x', which is no array of numbers": lambda file: file.__setitem__("x", "text"),
        "deep": loop,
        "far more memory": bomb,
        "no array": lambda file: None,
    }
    for message, fill in cases.items():
        with pytest.raises(WeightsError, match=message):
            weights.load(made(fill))
    whole = made(lambda file: file.__setitem__("x", normal(50, 50))).read_bytes()
    for length in (8, 100, len(whole) // 2):
        (tmp_path / "net").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="a damaged HDF5 file"):
            weights.load(tmp_path / "net")


@pytest.mark.parametrize("chunk", [0, 5])
def test_a_damaged_piece_of_a_compressed_array_is_refused(h5py, tmp_path, chunk):
    """The HDF5 library finds it when the array, or a part of it, has been announced already."""
    with h5py.File(tmp_path / "net", "w") as file:
        array = file.create_dataset("x", data=normal(6 << 8, 1024), chunks=(256, 1024), compression="gzip")
        file.create_dataset("short", data=np.arange(3.0), chunks=(3,), compression="gzip")
        places = [array.id.get_chunk_info(chunk), file["short"].id.get_chunk_info(0)]
    whole = (tmp_path / "net").read_bytes()
    for place in places:
        damaged = bytearray(whole)
        damaged[place.byte_offset : place.byte_offset + 8] = bytes(8)
        (tmp_path / "net").write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"a damaged HDF5 file \(Can't .*read data .*filter returned failure"):
            weights.load(tmp_path / "net")


def test_listed_weights_of_keras_that_lie_elsewhere_are_refused(h5py, tmp_path):
    with h5py.File(tmp_path / "other", "w") as file:
        file["group/x"] = 1.0
    for place, link in {"layer": h5py.ExternalLink("other", "group"), "layer/x": h5py.SoftLink("/secret")}.items():
        with h5py.File(tmp_path / "net", "w") as file:
            file["secret"] = 1.0
            file.attrs["layer_names"] = [b"layer"]
            file[place] = link
            file["layer"].attrs["weight_names"] = [b"x"]
        with pytest.raises(WeightsError, match="a link to elsewhere"):
            weights.load(tmp_path / "net")
    with h5py.File(tmp_path / "net", "w") as file:
        file.attrs["layer_names"] = [b"layer"]
    with pytest.raises(WeightsError, match="no 'layer', which a list of layers or weights names"):
        weights.load(tmp_path / "net")


def test_hdf5_of_every_kind_of_storage(h5py, tmp_path):
    """Most arrays are views of the file, and those that it has in another form come from the HDF5 library."""
    arrays = {
        "plain": normal(5, 7),
        "turned": normal(5, 7).astype(">f8"),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 3), np.int16),
        "truths": np.array([True, False, True]),
        "complex": np.array([1 + 2j, 3 - 4j], np.complex64),
        "half": normal(3).astype(np.float16),
    }
    packed = RNG.integers(0, 9, (700, 3, 1000), np.uint8)  # rows that do not fill a whole number of pieces
    with h5py.File(tmp_path / "net", "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.create_dataset("packed", data=packed, chunks=(64, 3, 500), compression="gzip")
        file.create_dataset("filled", (4, 5), "i4", fillvalue=7)  # no bytes of it are in the file
    read = weights.load(tmp_path / "net")
    for name, array in {**arrays, "packed": packed, "filled": np.full((4, 5), 7, np.int32)}.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == np.shape(array)
        assert read[name].dtype == array.dtype.newbyteorder("=")
    assert not read["plain"].flags.owndata
    assert read["packed"].flags.owndata


LIMITED = """
import importlib.util, json, os, signal, sys, time
spec = importlib.util.spec_from_file_location("child", {path!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.limit(int(sys.argv[2]), int(sys.argv[3]))
print('["ready"]', flush=True)
"""
LARGE = """
try:
    bytearray(100 << 20)
except MemoryError:
    print(json.dumps(["error", "no memory", "some"]))
"""


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("while True: pass", "reading it takes more than 1 s"),
        ("time.sleep(60)", "reading it takes more than 1 s"),
        ("os.close(1); time.sleep(60)", "reading it takes more than 1 s"),
        ("print(' ' * (3 << 20))", "names of more than 1 MiB"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "reading it ends it with status -11"),
        ("sys.exit()", "reading it ends it with status 0"),
        ("print('[\"array\", [', end='')", "reading it ends it with status 0"),
        ('print(\'["array", ["x"], "<f4", [3], null]\\n["bytes", 12]\\nab\')', "reading it ends it with status 0"),
        ("print(json.dumps(['array', ['x'], '<f4', [3], 1 << 40]))", "a place within the file"),
        ("print(json.dumps(['array', ['x'], '<f4', [1 << 40], None]))", "far more memory"),
        ("while True: print(json.dumps(['array', ['x' * 9999], '<f4', [1], 0]))", "far more memory"),
        (LARGE, "found no memory, expected some"),
    ],
)
def test_what_the_hdf5_library_does_ends_with_its_process(h5py, tmp_path, monkeypatch, program, message):
    with h5py.File(tmp_path / "net", "w") as file:
        file["x"] = 1.0
    (tmp_path / "child.py").write_text(LIMITED.format(path=hdf5_child.__file__) + program)
    monkeypatch.setattr(hdf5_child, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    monkeypatch.setattr(hdf5, "_CLOCK", 1 if "sleep" in program else 60)
    start = time.monotonic()
    with pytest.raises(WeightsError, match=message):
        weights.load(tmp_path / "net")
    assert time.monotonic() - start < 50  # not the clock, but its own limit ends a loop


def test_an_interrupt_ends_the_hdf5_librarys_process(h5py, tmp_path, monkeypatch):
    with h5py.File(tmp_path / "net", "w") as file:
        file["x"] = 1.0
    program = "import os, signal, sys, time; open(sys.argv[1] + '.pid', 'w').write(str(os.getpid()))"
    (tmp_path / "child.py").write_text(f"{program}; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)")
    monkeypatch.setattr(hdf5_child, "__file__", str(tmp_path / "child.py"))
    with pytest.raises(KeyboardInterrupt):
        weights.load(tmp_path / "net")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "net.pid").read_text()), 0)


def test_an_h5py_that_cannot_be_imported_is_no_damaged_file(h5py, tmp_path, monkeypatch, capfd):
    with h5py.File(tmp_path / "net", "w") as file:
        file["x"] = 1.0
    (tmp_path / "h5py.py").write_text("raise ImportError('built for another NumPy')")
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])
    with pytest.raises(ImportError, match=r"h5py cannot be imported by .*, which ends with status 1"):
        weights.load(tmp_path / "net")
    assert "built for another NumPy" in capfd.readouterr().err


def test_hdf5_without_h5py(h5py, tmp_path, monkeypatch):
    with h5py.File(tmp_path / "net", "w") as file:
        file["x"] = 1.0
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"h5py is not installed: pip install 'pycnn\[weights\]'"):
        weights.load(tmp_path / "net")


# -- TensorFlow.js ---------------------------------------------------------------------------------------------------


def manifest(tmp_path, groups, name="weights_manifest.json", wrap=False):
    (tmp_path / name).write_text(json.dumps({"modelTopology": {}, "weightsManifest": groups} if wrap else groups))
    return tmp_path / name


@pytest.mark.parametrize("wrap", [False, True])
def test_tfjs(tmp_path, wrap):
    entries, data = [], b""
    for layer, variables in LAYERS.items():
        for name, array in variables.items():
            entries.append({"name": f"net/{layer}/{name}", "shape": list(array.shape), "dtype": "float32"})
            data += array.tobytes()
    # Shards end where they are full, in the middle of an array or of a number.
    for i in range(3):
        (tmp_path / f"shard{i}.bin").write_bytes(data[i * 1001 : (i + 1) * 1001 if i < 2 else None])
    path = manifest(tmp_path, [{"paths": [f"shard{i}.bin" for i in range(3)], "weights": entries}], wrap=wrap)
    check(weights.load(path), {layer: f"net.{layer}." for layer in LAYERS})
    raw = weights.load(path, convert=False)
    np.testing.assert_array_equal(raw["net.depthwise.depthwise_kernel"], LAYERS["depthwise"]["depthwise_kernel"])


def test_tfjs_quantised(tmp_path):
    q8, q16 = np.arange(256, dtype=np.uint8), np.array([0, 1, 40000, 65535], np.uint16)
    half, whole, on = np.array([0.5, -2], np.float16), np.array([7, -7], np.int32), np.array([True, False])
    (tmp_path / "a.bin").write_bytes(b"".join(a.tobytes() for a in (q8, q16, half, q8[:3], whole, on)))
    quantised = {"dtype": "uint8", "scale": 0.01, "min": -1.28}
    entries = [
        {"name": "a", "shape": [16, 16], "dtype": "float32", "quantization": quantised},
        {"name": "b", "shape": [4], "dtype": "float32", "quantization": quantised | {"dtype": "uint16"}},
        {"name": "c", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "d", "shape": [3], "dtype": "int32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}},
        {"name": "e", "shape": [2], "dtype": "int32"},
        {"name": "f", "shape": [2], "dtype": "bool"},
    ]
    read = weights.load(manifest(tmp_path, [{"paths": ["a.bin"], "weights": entries}]))
    # One rounding to float32 of the same float64 sum.
    np.testing.assert_array_equal(read["a"].ravel(), (q8 * 0.01 - 1.28).astype(np.float32))
    np.testing.assert_array_equal(read["b"], (q16 * 0.01 - 1.28).astype(np.float32))
    np.testing.assert_array_equal(read["c"], half.astype(np.float32))
    np.testing.assert_array_equal(read["d"], [-1, 0, 0])  # -1, -0.5, 0: halves are rounded up, as JavaScript does
    np.testing.assert_array_equal(read["e"], whole)
    np.testing.assert_array_equal(read["f"], on)
    assert {str(array.dtype) for array in read.values()} == {"float32", "int32", "bool"}


def test_tfjs_that_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(8))
    entry = {"name": "x", "shape": [2], "dtype": "float32"}

    def load(paths=("a.bin",), **changes):
        return weights.load(manifest(tmp_path, [{"paths": list(paths), "weights": [entry | changes]}]))

    assert load()["x"].tolist() == [0, 0]
    for paths in (["../a.bin"], ["/etc/passwd"], ["b/a.bin"], [".."], ["\ud800"], ["a\0"]):
        with pytest.raises(WeightsError, match=r"a shard at .*, expected files in the manifest's own folder"):
            load(paths)
    with pytest.raises(FileNotFoundError):
        load(["b.bin"])
    with pytest.raises(WeightsError, match=r"the shard 'a\.bin' twice"):  # of which a large array could be made
        load(["a.bin", "a.bin"], shape=[4])
    assert load([], shape=[0])["x"].shape == (0,)
    for message, changes in {
        "8 bytes, expected 12 up to the end of 'x'": {"shape": [3]},
        "8 bytes, expected 4, as the weights add up": {"shape": [1]},
        "'x' of dtype 'string'": {"dtype": "string"},
        r"shape \[-1\]": {"shape": [-1]},
        "shape a dict": {"shape": {}},
        "a weight None": {"name": None},
        "quantised to 'int4'": {"quantization": {"dtype": "int4"}},
        "scale None": {"quantization": {"dtype": "uint8"}, "shape": [8]},
        "scale 1000": {"quantization": {"dtype": "uint8", "scale": 10**400, "min": 0}, "shape": [8]},
        "scale inf": {"quantization": {"dtype": "uint8", "scale": float("inf"), "min": 0}, "shape": [8]},
        "up to the end": {"shape": [2**20, 2**20]},
    }.items():
        with pytest.raises(WeightsError, match=message):
            load(**changes)
    for text in ("{}", "[3]", "[", "[" * 100_000, '{"weightsManifest": 3}', '[{"weights": []}]'):
        (tmp_path / "m").write_text(text)
        with pytest.raises(WeightsError):
            weights.load(tmp_path / "m")


def test_tfjs_in_the_memory_of_four_times_its_file(tmp_path):
    """Quantised weights are four times as long when they are not, and are turned once more."""
    count = 48 << 20
    (tmp_path / "a.bin").write_bytes(bytes(count))
    quantised = {"dtype": "uint8", "scale": 0.5, "min": -1}
    entries = [
        {"name": f"{i}/kernel", "shape": [1024, 1 << 10], "dtype": "float32", "quantization": quantised}
        for i in range(count >> 20)
    ]
    path = manifest(tmp_path, [{"paths": ["a.bin"], "weights": entries}])
    memory.forget_peak()
    before = memory.resident()
    read = weights.load(path)
    assert memory.peak() - before < 4 * count + (64 << 20)
    assert all(array[-1, -1] == -1 for array in read.values())
