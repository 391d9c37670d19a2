"""Weights from elsewhere: what the packages write is read to the bit, and nothing else is believed or executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random as dice
import struct
import time
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest

import pycnn
from pycnn import nn, weights
from pycnn.weights import WeightsError

LIMIT = 64 << 20  # bytes that a reader may make beside four times the file


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == tuple(value.shape), name
        assert str(ours[name].dtype) == str(value.dtype).removeprefix("torch."), name
        if str(value.dtype).startswith(("torch.bfloat16", "torch.float8")):
            value = value.float()
        np.testing.assert_array_equal(ours[name].astype(np.asarray(value).dtype), np.asarray(value), err_msg=name)


def written(tmp_path, data, name="file"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def header(entries, body=b"", pad=True):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    text += b" " * (-len(text) % 8) if pad else b""
    return len(text).to_bytes(8, "little") + text + body


# -- safetensors -----------------------------------------------------------------------------------------------------


def test_safetensors_of_the_package_are_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    arrays = {
        str(np.dtype(kind)): rng.integers(0, 2, (3, 5)).astype(kind)
        for kind in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ml_dtypes.bfloat16)
    }
    arrays |= {"empty": np.zeros((0, 4), np.float32), "scalar": np.full((), 3, np.float32)}
    library.save_file(arrays, tmp_path / "a")
    read = weights.load(tmp_path / "a")
    assert sorted(read) == sorted(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


def test_safetensors_are_views_of_the_file(tmp_path):
    weights.save(tmp_path / "a", {"x": np.arange(2**20, dtype=np.float32)})
    tracemalloc.start()
    read = weights.load(tmp_path / "a")["x"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < read.nbytes // 8  # were it copied, the peak would be above its 4 MiB
    assert not read.flags.writeable
    assert not read.flags.owndata


def test_what_is_saved_is_read_by_us_and_by_the_package(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    # An odd number of bytes first: what follows must be aligned all the same.
    state = {"bytes": np.arange(3, dtype=np.uint8), **net.state_dict(), "strided": np.arange(12.0).reshape(3, 4).T}
    weights.save(tmp_path / "a", state)
    for read in (weights.load(tmp_path / "a"), library.load_file(tmp_path / "a")):
        assert sorted(read) == sorted(state)
        for name, value in state.items():
            np.testing.assert_array_equal(read[name], np.asarray(value.data if name in net.state_dict() else value))
    assert all(array.flags.aligned for array in weights.load(tmp_path / "a").values())
    assert os.listdir(tmp_path) == ["a"]


def test_saving_says_what_it_cannot(tmp_path):
    with pytest.raises(TypeError, match="map strings to arrays, got 'lr': float"):
        weights.save(tmp_path / "a", {"lr": 0.1})
    with pytest.raises(WeightsError, match=r"a: found when of dtype datetime64\[s\], expected BOOL"):
        weights.save(tmp_path / "a", {"when": np.zeros(2, "M8[s]")})
    assert os.listdir(tmp_path) == []


F4 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WRONG_SAFETENSORS = {
    "a header of 99 bytes": struct.pack("<Q", 99) + b"{}",
    "a header that is no JSON": header(b'{"a": '),
    "stands twice": header(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":1}', b"1"),
    "without dtype": header({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "entry 'a' without": header({"a": 3}),
    "dtype 'F33'": header({"a": F4 | {"dtype": "F33"}}, bytes(8)),
    "dtype 'F4'": header({"a": F4 | {"dtype": "F4"}}, bytes(8)),
    r"shape \[-2\]": header({"a": F4 | {"shape": [-2]}}, bytes(8)),
    r"shape \[True\]": header({"a": F4 | {"shape": [True]}}, bytes(8)),
    "8 bytes of 'a', expected 12": header({"a": F4 | {"shape": [3]}}, bytes(16)),
    "it at 8": header({"a": F4, "b": F4 | {"data_offsets": [4, 12]}}, bytes(12)),
    "'b' at byte 12": header({"a": F4, "b": F4 | {"data_offsets": [12, 20]}}, bytes(20)),
    "a file of": header({"a": F4}, bytes(9)),
    "within the file's": header({"a": F4 | {"shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)),
    "truth values with a byte above 1": header({"a": F4 | {"dtype": "BOOL", "shape": [8]}}, b"\0\1\2\0\0\0\0\0"),
    "at most 32 sizes": header({"a": F4 | {"shape": [1] * 33}}, bytes(8)),
    "no array": header({}),
}


@pytest.mark.parametrize("message", WRONG_SAFETENSORS)
def test_wrong_safetensors_are_refused(message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        weights.load(written(tmp_path, WRONG_SAFETENSORS[message]))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="an empty file"):
        weights.load(written(tmp_path, b""))
    with pytest.raises(WeightsError, match=r"file: found a file that begins with b'GIF89a..', expected safetensors, a"):
        weights.load(written(tmp_path, b"GIF89a.........."))
    with pytest.raises(WeightsError, match=r"tar archive, as PyTorch wrote before"):
        weights.load(written(tmp_path, bytes(257) + b"ustar" + bytes(250)))
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        weights.load(tmp_path)


def test_a_checkpoint_of_ours_gives_its_network(tmp_path):
    pytest.importorskip("safetensors")
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    rule = pycnn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(np.ones((2, 1, 4, 4), np.float32)).sum().backward()
    rule.step()
    pycnn.checkpoint.save(tmp_path / "run", {"model": net, "optimizer": rule})
    read = weights.load(tmp_path / "run")
    assert sorted(read) == sorted(net.state_dict())
    assert any(name.startswith("optimizer.") for name in weights.load(tmp_path / "run", select=""))
    data = bytearray((tmp_path / "run").read_bytes())
    data[-1] ^= 1
    with pytest.raises(WeightsError, match="contents without the checksum"):
        weights.load(written(tmp_path, data))


# -- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["zip", "older", "protocol 5"])
def saved(torch, tmp_path, request):
    """A function that saves a value in each format and gives the path."""
    settings = {
        "zip": {},
        "older": {"_use_new_zipfile_serialization": False},
        "protocol 5": {"pickle_protocol": 5},
    }

    def save(value):
        torch.save(value, tmp_path / "net.bin", **settings[request.param])
        return tmp_path / "net.bin"

    return save


def test_every_dtype_of_torch(torch, saved):
    pytest.importorskip("ml_dtypes")
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    names += ["complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"]
    values = torch.arange(-6, 6).reshape(3, 4).abs()
    state = OrderedDict((name, values.to(getattr(torch, name))) for name in names)
    same(weights.load(saved(state)), state)


def test_strides_offsets_and_shared_storages(torch, saved):
    base = torch.arange(120.0).reshape(4, 5, 6)
    state = {
        "whole": base,
        "turned": base.permute(2, 0, 1),
        "stepped": base[1:, ::2, 3:],
        "row": base[2, 1],
        "number": base[3, 4, 5],
        "last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "broadcast": torch.ones(1).expand(7, 3),
        "none": torch.zeros(3, 0, 2),
        "column": base[:, :1, :1],
    }
    read = weights.load(saved(state))
    same(read, state)
    assert np.shares_memory(read["whole"], read["row"])
    assert read["last"].strides[1] == 4


def test_arrays_may_outlive_everything_but_the_file(torch, saved):
    path = saved({"x": torch.arange(1000.0)})
    read = weights.load(path)["x"]
    path.unlink()
    assert read.sum() == 499500


def test_a_module_with_parameters_buffers_and_attributes(torch, saved):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    net[0].weight.note = "kept by PyTorch, of no use here"
    same(weights.load(saved(net.state_dict())), net.state_dict())
    same(weights.load(saved(dict(net.named_parameters()))), {k: v.detach() for k, v in net.named_parameters()})


def test_nested_checkpoints(torch, saved):
    state, ema = {"a.weight": torch.ones(2), "a.bias": torch.zeros(1)}, {"a.weight": torch.full((2,), 3.0)}
    optimiser = {"state": {0: {"momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    extra = {"epoch": 3, "best": np.float64(0.5), "arch": "net", "mean": np.arange(3, dtype=">f4"), "seen": {1, 2}}
    path = saved(
        {"optimizer": optimiser, "state_dict": state, "ema": {"model": ema}, **extra, "counts": Counter("aab")}
    )
    with_mean = weights.load(path)  # an array beside the parts: everything
    assert sorted(with_mean) == [
        *("ema.model.a.weight", "mean", "optimizer.state.0.momentum", "state_dict.a.bias", "state_dict.a.weight"),
    ]
    np.testing.assert_array_equal(with_mean["mean"], [0, 1, 2])
    same(weights.load(path, select="state_dict"), state)
    same(weights.load(path, select="ema.model"), ema)
    with pytest.raises(WeightsError, match="expected a part 'network', as select says"):
        weights.load(path, select="network")
    same(weights.load(saved({"epoch": 3, "optimizer": optimiser, "model": {"state_dict": state}})), state)
    parallel = {f"module.{name}": value for name, value in state.items()}
    same(weights.load(saved({"state_dict": parallel})), state)
    assert list(weights.load(saved(parallel), select="")) == list(parallel)
    assert list(weights.load(saved([torch.ones(1), (torch.ones(1),)]))) == ["0", "1.0"]
    same(weights.load(saved(torch.ones(2))), {"": torch.ones(2)})


def test_a_network_loads_what_torch_saved(torch, saved):
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    ours.load_state_dict(weights.load(saved(theirs.state_dict())))
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name].data, value.numpy())


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_nothing_else_is_named(torch, saved, tmp_path):
    marker = tmp_path / "executed"
    refused = {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "(builtins|__builtin__).eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "(builtins|__builtin__).getattr": Calls(getattr, "x", "join"),
        "torch._utils._rebuild_sparse_tensor": torch.eye(3).to_sparse(),
        "torch.storage._load_from_bytes": Calls(torch.storage._load_from_bytes, b""),
        "pathlib.PosixPath": tmp_path,
    }
    for name, value in refused.items():
        path = saved({"weight": torch.ones(2), "evil": value})
        with pytest.raises(WeightsError, match=rf"a reference to {name}, which is not needed for tensors, expected"):
            weights.load(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors_are_refused_by_name(torch, saved):
    with pytest.raises(WeightsError, match=r"torch\._utils\._rebuild_qtensor"):
        weights.load(saved({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}))


def test_a_pickled_network_is_refused_by_its_class(torch, saved):
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear"):
        weights.load(saved(torch.nn.Linear(2, 2)))


# -- pickles made by hand --------------------------------------------------------------------------------------------


def older(value, *after):
    """A checkpoint of the older format around the bytes of a pickle, with protocol 2 before everything."""
    start = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return start + b"\x80\x02" + value + b"." + (b"".join(after) or pickle.dumps([], 2))


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


STORAGE = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"k") + text(b"cpu") + b"K\x04NtQ"
NUMBERS = pickle.dumps(["k"], 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)


def tensor(storage=STORAGE, offset=b"K\x00", size=b"K\x04\x85", stride=b"K\x01\x85"):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride + b"\x89Nt" + b"R"


def test_a_tensor_by_hand(tmp_path):
    path = written(tmp_path, older(b"}" + text(b"x") + tensor() + b"s", NUMBERS))
    np.testing.assert_array_equal(weights.load(path)["x"], [1, 2, 3, 4])


def test_an_older_checkpoint_that_is_cut_off_says_so(tmp_path):
    whole = older(b"}" + text(b"x") + tensor() + b"s", NUMBERS)
    for length in range(2, len(whole)):
        with pytest.raises(WeightsError, match=r"cut off|storage 'k' of 16 bytes at byte .* a place within the file's"):
            weights.load(written(tmp_path, whole[:length]))


WRONG_PICKLES = {
    "at element 1 of storage": older(tensor(offset=b"K\x01"), NUMBERS),
    "within its 16 bytes": older(tensor(stride=b"K\x02\x85"), NUMBERS),
    r"of size \(-1,\)": older(tensor(size=b"J\xff\xff\xff\xff\x85"), NUMBERS),
    "as many strides as sizes": older(tensor(size=b"K\x02K\x02\x86"), NUMBERS),
    "a tensor broadcast to 8,589,934,588": older(tensor(size=b"J\xff\xff\xff\x7f\x85", stride=b"K\x00\x85"), NUMBERS),
    "a tensor broadcast to 281,474,976,710,656": older(
        tensor(size=b"K\x00J\x00\x00\x00\x40\x8a\x03\x00\x00\x01\x87", stride=b"K\x01K\x01K\x01\x87"), NUMBERS
    ),
    "no numbers for storage 'k'": older(tensor(), pickle.dumps([], 2)),
    "storage 'k' of 16 bytes at": older(tensor(), NUMBERS[:-1]),
    "5 elements of storage 'k', expected 4": older(tensor(), pickle.dumps(["k"], 2) + struct.pack("<q", 5)),
    "the storage 'j', which no tensor views": older(tensor(), pickle.dumps(["j"], 2)),
    "a storage with type a dict": older(tensor(STORAGE.replace(b"ctorch\nFloatStorage\n", b"}")), NUMBERS),
    "_rebuild_tensor_v2 with 1 arguments": older(b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR"),
    "_rebuild_tensor_v2 with 6 arguments": older(tensor(storage=b"}"), NUMBERS),
    "opcode INST": older(b"(ios\nsystem\n"),
    "opcode OBJ": older(b"(ctorch\nSize\no"),
    "opcode EXT1": older(b"\x82\x01"),
    "opcode NEWOBJ_EX": older(b"ctorch\nSize\n)}\x92"),
    "opcode INT": older(b"I1\n"),
    "byte 0xff": older(b"\xff"),
    "memo entry 7": older(b"h\x07"),
    "takes a value where there is none": older(b"("),
    "looks for a mark": older(b"t"),
    "calls 1": older(b"K\x01)R"),
    "calls None": older(b"cnumpy\nndarray\n)R"),
    "an integer of 65 bytes": older(b"\x8a\x41" + bytes(65)),
    "the key \\(1,\\)": older(b"}K\x01\x85Ns"),
    "the key 2305843009213693951": older(b"}\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x1fNs"),
    "puts something into nothing": older(b"Na"),
    "puts something into 1": older(b"K\x01}b"),
    "a key and no value": older(b"}(Nu"),
    "leaves more than one value": older(b"NN"),
    "not utf-8": older(text(b"\xff\xff")),
    "cut off at byte": older(b"X\xff\xff\xff\x7f"),
    "a name of more than": older(b"c" + b"x" * 300),
    "reference to os.system": older(text(b"os") + text(b"system") + b"\x93"),
    "reference to 1, 2": older(b"K\x01K\x02\x93"),
    "a persistent id": b"\x80\x02K\x01Q.",
    "plain pickles hold no weights": pickle.dumps({"weight": [1.0]}, 2),
    "pickle protocol 9": b"\x80\x02\x80\x09.",
    "more than 64 deep": older(b"]q\x00h\x00a"),
    "the NumPy dtype 'O8'": older(b"cnumpy\ndtype\n(" + text(b"O8") + b"K\x00K\x01tR"),
    "no array": older(b"}"),
}


@pytest.mark.parametrize("message", WRONG_PICKLES)
def test_wrong_pickles_are_refused(message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        weights.load(written(tmp_path, WRONG_PICKLES[message]))


def laughs():
    """A row of dicts, each with two references to the one before: a thousand million names when flattened."""
    row = b"}" + text(b"x") + tensor() + b"sq\x00"
    for i in range(30):
        row += b"}(" + b"".join(text(key) + b"h" + bytes([i]) for key in (b"a", b"b")) + b"uq" + bytes([i + 1])
    return older(b"(" + row + b"t", NUMBERS)


def directory(count):
    """A zip64 archive of `count` empty records, each with a name of its own."""
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<HHH", 6, 0, 0) + bytes(12)
    start, entries = b"PK\x03\x04", b"".join(entry + b"%06d" % i for i in range(count))
    end = b"PK\x06\x06" + bytes(28) + struct.pack("<QQQ", count, len(entries), len(start))
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, len(start + entries), 1)
    return start + entries + end + locator + b"PK\x05\x06" + bytes(18)


BOMBS = {
    "empty dicts": older(b"(" + b"}" * 2_000_000 + b"t"),
    "empty lists": older(b"(" + b"]" * 2_000_000 + b"t"),
    "memo": older(b"N" + b"".join(b"r" + struct.pack("<I", i * 2003 % 2**32) for i in range(100_000))),
    "doubled": older(b"N" + b"2" * 200_000),
    "nested tuples": older(b")" + b"\x85" * 200_000),
    "laughs": laughs(),
    "long key": older(b"}" + b"\x8a\x40" + b"\x11" * 64 + b"Ns"),
    "numbers as keys": older(
        b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", i << 45) + b"N" for i in range(1, 60_000)) + b"u"
    ),
    "directory": directory(60_000),
    "JSON objects": header(b'{"a":[' + b"{}," * 3_000_000 + b"1]}"),
    "JSON in depth": header(b'{"a":' + b"[" * 1_000_000),
    "JSON digits": header(b'{"a":' + b"1" * 1_000_000 + b"}"),
    "wide characters": older(b"".join(text(b"\xf0\x9f\x98\x80" + b"a" * 2_000_000) + b"0" for _ in range(3)) + b"N"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_go_off_in_no_memory_and_no_time(name, tmp_path):
    data = BOMBS[name]
    path = written(tmp_path, data)
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            weights.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data) + LIMIT  # the mapped file itself, which is not traced, is the fourth
    # Some hundred thousand steps, a microsecond each and ten when traced; the rest is for a busy machine.
    assert time.perf_counter() - start < 30


# -- zip archives ----------------------------------------------------------------------------------------------------


def zipped(tmp_path, change=None, compression=zipfile.ZIP_STORED, **records):
    """An archive with a tensor of four numbers in it, some records changed."""
    pickled = b"\x80\x02}" + text(b"x") + tensor(STORAGE.replace(b"NtQ", b"tQ")) + b"s."
    contents = {"net/data.pkl": pickled, "net/data/k": struct.pack("<4f", 1, 2, 3, 4), "net/version": b"3\n", **records}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in contents.items():
            if data is not None:
                archive.writestr(name, data)
    return written(tmp_path, (change or bytes)(buffer.getvalue()), "net.zip")


def test_an_archive_by_hand(tmp_path):
    np.testing.assert_array_equal(weights.load(zipped(tmp_path))["x"], [1, 2, 3, 4])


def test_wrong_archives_are_refused(tmp_path):
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    wrong = {
        "another checksum": {"change": lambda data: data.replace(numbers, numbers[:-1] + b"\x41")},
        "without its end": {"change": lambda data: data[:-30]},
        "damaged directory": {"change": lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03", 1)},
        "no local header": {
            "change": lambda data: data.replace(b"PK\x03\x04", b"PK\x03\x05").replace(b"PK\x03\x05", b"PK\x03\x04", 1)
        },
        r"compressed \(method 8\)": {"compression": zipfile.ZIP_DEFLATED},
        "no record data/k": {"net/data/k": None},
        "data/k of 12 bytes, expected 16": {"net/data/k": bytes(12)},
        "PyTorch's data.pkl": {"net/data.pkl": None},
        "the highest byte first": {"net/byteorder": b"big"},
    }
    for message, settings in wrong.items():
        with pytest.raises(WeightsError, match=message):
            weights.load(zipped(tmp_path, **settings))


def test_records_that_lie_on_each_other_are_refused(tmp_path):
    """The checksum of each would be computed: minutes for some megabytes."""

    def repeated(data):
        begin = data.index(b"PK\x01\x02")
        end = data.index(b"PK\x05\x06")
        entries = data[begin:end]
        last = entries[entries.index(b"net/data/large") - 46 :]
        more = b"".join(last.replace(b"large", b"%05d" % i) for i in range(100))
        count, size = 4 + 100, len(entries) + len(more)
        return data[:end] + more + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, begin, 0)

    assert weights.load(zipped(tmp_path, **{"net/data/large": bytes(10000)}))["x"].shape == (4,)
    with pytest.raises(WeightsError, match=r"records of \d\d,\d\d\d bytes, expected at most the archive's"):
        weights.load(zipped(tmp_path, repeated, **{"net/data/large": bytes(10000)}))


def test_an_archive_without_checksums_is_read(torch, tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"x": torch.arange(5.0)}, tmp_path / "a")
    finally:
        torch.serialization.set_crc32_options(before)
    np.testing.assert_array_equal(weights.load(tmp_path / "a")["x"], np.arange(5))


# -- damage ----------------------------------------------------------------------------------------------------------


def mutated(data, draw):
    """A copy with some bytes changed, moved, repeated or cut off."""
    copy = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(copy))
        kind = draw.randrange(6)
        if kind == 0:
            copy[at] = draw.randrange(256)
        elif kind == 1:
            copy[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            copy[at : at + draw.choice((1, 4, 8))] = draw.choice((b"\xff", b"\0", b"\xff" * 8, bytes(8), b"\x7f"))
        elif kind == 3:
            del copy[at : at + draw.choice((1, 3, 40))]
        elif kind == 4:
            other = draw.randrange(len(copy))
            copy[at:at] = copy[other : other + draw.choice((1, 5, 60))]
        elif at:
            del copy[at:]
        if not copy:
            break
    return bytes(copy)


@pytest.fixture(scope="module")
def originals(torch, tmp_path_factory):
    """A small file of each format."""
    folder = tmp_path_factory.mktemp("originals")
    state = {"a.weight": torch.randn(2, 3).t(), "a.on": torch.tensor([True, False]), "h": torch.ones(3).bfloat16()}
    state |= {"n": np.arange(3.0), "epoch": 3, "s": np.float64(1), "c": Counter("ab")}
    torch.save({"state_dict": state}, folder / "zip")
    torch.save({"state_dict": state}, folder / "older", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state}, folder / "five", pickle_protocol=5)
    weights.save(folder / "safetensors", {"w": np.ones((2, 3), np.float32), "b": np.array([True]), "i": np.arange(3)})
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_refused_or_read_but_nothing_else(originals, tmp_path, seed):
    pytest.importorskip("ml_dtypes")
    draw, path, refused = dice.Random(seed), tmp_path / "damaged", 0
    for turn in range(600):
        path.write_bytes(mutated(originals[turn % len(originals)], draw))
        try:
            for array in weights.load(path).values():
                array.sum()
        except WeightsError:
            refused += 1
    assert refused > 200  # a flipped bit in a number of a format without checksums is nobody's error


def test_every_truncation_is_refused(originals, tmp_path):
    path = tmp_path / "short"
    for data in originals:
        for length in range(0, len(data) - 1, 7):
            path.write_bytes(data[:length])
            with pytest.raises(WeightsError):
                weights.load(path)
