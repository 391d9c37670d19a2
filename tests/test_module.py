"""nn.Module and its containers: names, state, hooks, modes."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import pycnn
from pycnn import nn
from pycnn.tensor import Tensor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))
        self.register_buffer("seen", Tensor(np.zeros(2, np.float32)))
        self.register_buffer("scratch", Tensor(np.zeros(2, np.float32)), persistent=False)

    def forward(self, x):
        return self.rest(self.first(x))


def x():
    return np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def test_names_are_dotted_paths():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "first.bias", "rest.1.weight"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert list(net.state_dict()) == ["seen", "first.weight", "first.bias", "rest.1.weight"]
    assert net.get_submodule("rest.1") is net.rest[1]
    with pytest.raises(AttributeError, match=r"no child 'nope' \(in 'rest.nope'\)"):
        net.get_submodule("rest.nope")


def test_names_equal_torch():
    torch = pytest.importorskip("torch")

    def build(nn):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)]),
            nn.ModuleDict({"a": nn.ConvTranspose2d(2, 3, 2), "b": nn.BatchNorm2d(2, track_running_stats=False)}),
        )

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert ours.state_dict()[key].shape == tuple(value.shape)
    ours.load_state_dict(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())


def test_a_shared_part_is_listed_once_but_saved_under_every_name():
    net = Net()
    net.again = net.first
    assert len(list(net.parameters())) == 3
    assert len(list(net.modules())) == 5
    assert "again.weight" in net.state_dict()


def test_state_dict_shares_memory_and_version_with_the_module():
    net = Net()
    before = net.first.weight.version
    with pycnn.no_grad():
        net.state_dict()["first.weight"].fill_(3)
    assert (net.first.weight.data == 3).all()
    assert net.first.weight.version == before + 1


def test_load_state_dict_copies_converts_and_is_noticed_by_autograd():
    net, other = Net(), Net()
    values = {key: value.numpy().astype(np.float64) for key, value in other.state_dict().items()}
    y = net(Tensor(x()))
    net.load_state_dict(values)
    for key, value in net.state_dict().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value.numpy(), values[key])
        assert not np.shares_memory(value.numpy(), values[key])
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_load_state_dict_lists_every_fault_and_changes_nothing():
    net = Net()
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    bad = {key: value + 1 for key, value in before.items()}
    del bad["first.bias"]
    bad["rest.1.weight"] = np.zeros((2, 5), np.float32)
    bad["nobody"] = np.zeros(1, np.float32)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(bad)
    for part in (
        "into Net",
        "missing keys: first.bias",
        "unexpected keys: nobody",
        "size mismatch for rest.1.weight: the value has shape (2, 5), the module (2, 4)",
    ):
        assert part in str(error.value)
    with pytest.raises(RuntimeError, match="size mismatch") as error:
        net.load_state_dict(bad, strict=False)
    assert "missing" not in str(error.value)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    del bad["rest.1.weight"]
    assert net.load_state_dict(bad, strict=False) == (["first.bias", "rest.1.weight"], ["nobody"])
    np.testing.assert_array_equal(net.first.weight.data, before["first.weight"] + 1)


@pytest.mark.parametrize("value", ["a string", None, np.array(["a"]), np.array([1j])])
def test_load_state_dict_refuses_what_is_no_number(value):
    net = Net()
    with pytest.raises(TypeError, match=r"first.weight must be an array of numbers"):
        net.load_state_dict({"first.weight": value}, strict=False)
    with pytest.raises(TypeError, match="must be a mapping"):
        net.load_state_dict([("first.weight", value)])


def test_weights_older_than_num_batches_tracked_load():
    norm = nn.BatchNorm2d(2)
    state = {key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    assert norm.load_state_dict(state) == ([], [])


def test_assignment_registers_replaces_and_refuses():
    net = Net()
    net.first = nn.Linear(3, 4, bias=False)
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "rest.1.weight"]
    net.note = "plain"
    net.note = nn.Identity()
    assert "note" in dict(net.named_children())
    with pytest.raises(TypeError, match="'weight' is a parameter"):
        net.first.weight = np.zeros(3)
    with pytest.raises(TypeError, match="'first' is a module"):
        net.first = 3
    with pytest.raises(TypeError, match="buffer 'seen' must be a Tensor"):
        net.seen = 3
    net.first = None
    assert "first" not in dict(net.named_children())
    with pytest.raises(ValueError, match="without dots"):
        net.add_module("a.b", nn.Identity())
    with pytest.raises(ValueError, match="already has an attribute 'forward'"):
        net.add_module("forward", nn.Identity())
    del net.seen
    with pytest.raises(AttributeError, match="Net has no attribute 'seen'"):
        _ = net.seen

    class Forgetful(nn.Module):
        def __init__(self):
            self.part = nn.Identity()

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Forgetful()


def test_hooks_see_replace_and_go():
    net, seen = Net(), []
    pre = net.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    post = net.first.register_forward_hook(lambda module, args, result: seen.append(args[0]))
    doubled = net(Tensor(x()))
    np.testing.assert_array_equal(seen[0].data, 2 * x())
    pre.remove()
    post.remove()
    post.remove()
    np.testing.assert_array_equal(net(Tensor(2 * x())).data, doubled.data)
    assert len(seen) == 1
    net.register_forward_hook(lambda module, args, result: result * 0)
    assert not net(Tensor(x())).data.any()


def test_modes_apply_requires_grad_and_zero_grad():
    net = Net()
    assert net.training
    net.eval()
    assert not any(module.training for module in net.modules())
    net.train()
    order = []
    assert net.apply(lambda module: order.append(type(module).__name__)) is net
    assert order == ["Linear", "ReLU", "Linear", "Sequential", "Net"]
    net(Tensor(x())).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    net.requires_grad_(False)
    assert not net(Tensor(x())).requires_grad


def test_to_converts_floats_only():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).double()
    kinds = {key: str(value.dtype) for key, value in net.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == "int64"
    assert set(kinds.values()) == {"float64"}
    assert net(Tensor(np.ones((2, 1, 2, 2)))).dtype == np.float64
    assert {str(p.dtype) for p in net.to("float32").parameters()} == {"float32"}
    with pytest.raises(TypeError, match="floating dtype, got int64"):
        net.to("int64")


def test_copies_are_independent():
    net = Net()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(Tensor(x())).data, net(Tensor(x())).data)
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in net.named_parameters()]
        other.first.weight.data[...] = 0
        assert net.first.weight.data.any()


def test_containers():
    parts = [nn.Linear(2, 2) for _ in range(3)]
    chain = nn.Sequential(*parts)
    assert chain[-1] is parts[2]
    assert list(chain[1:].state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert nn.Sequential({"a": parts[0]}).a is parts[0]
    assert list(nn.ModuleList(parts)[1:]) == parts[1:]
    named = nn.ModuleDict({"a": parts[0]})
    named["b"] = parts[1]
    assert "b" in named
    assert list(named) == ["a", "b"]
    del named["a"]
    assert list(named.values()) == [parts[1]]
    with pytest.raises(TypeError, match=r"expected an nn\.Module, got int"):
        nn.Sequential(3)


def test_repr_shows_the_tree():
    text = repr(nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.Sequential(nn.ReLU())))
    assert text == (
        "Sequential(\n  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding='same', bias=False)\n"
        "  (1): Sequential(\n    (0): ReLU()\n  )\n)"
    )


def test_the_package_knows_its_parts_without_importing_them():
    code = (
        "import sys, pycnn\n"
        "assert not any(m.startswith(('pycnn.models', 'pycnn.optim', 'pycnn.data')) for m in sys.modules)\n"
        "assert {'nn', 'models', 'optim', 'data', 'checkpoint'} <= set(dir(pycnn))\n"
        "assert pycnn.models.list_models() and pycnn.nn.Linear and pycnn.optim.SGD and pycnn.checkpoint.save\n"
        "try:\n    pycnn.nonsense\nexcept AttributeError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "module 'pycnn' has no attribute 'nonsense'", result.stderr
