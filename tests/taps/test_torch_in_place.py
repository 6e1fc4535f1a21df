"""A record holds what the layer returned, whatever the model does to that memory afterwards."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agnostic as ag

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


class Conv(nn.Module):
    """A convolution, and what a subclass does to its output before the second layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.second(self.spoil(self.first(x)))


def spoiler(function):
    torch.manual_seed(0)
    return type(function.__name__, (Conv,), {"spoil": function})().eval()


def in_place_module(self, y):
    return self.act(y)


def result_ignored(self, y):
    self.act(y)
    return y


def function_(self, y):
    return F.relu_(y)


def augmented_assignment(self, y):
    y += 1
    return y


def through_a_view(self, y):
    y.flatten(1)[:, :5] = 7
    return y


def out_argument(self, y):
    return torch.add(y, 1, out=y)


def fill_a_slice(self, y):
    y[:, 0].zero_()
    return y


SPOILERS = [
    in_place_module, result_ignored, function_, augmented_assignment, through_a_view, fill_a_slice,
]  # fmt: skip


@pytest.mark.parametrize("spoil", [*SPOILERS, out_argument], ids=lambda f: f.__name__)
def test_capture_holds_the_value_before(spoil):
    model, x = spoiler(spoil), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        expected, output = model.first(x), model(x.clone())
    # The first capture learns, the later ones rely on what was learned; each for its own set of layers.
    for names in (["first"], ["first"], ["first", "second"], ["first", "second"], ["first", "second"]):
        record = ag.capture(model, x, names)
        assert torch.equal(record["first"], expected)
        assert "second" not in names or torch.equal(record["second"], output)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("detach", [False, True])
def test_watch_holds_the_value_before_and_changes_nothing(spoil, detach):
    model, x = spoiler(spoil), torch.randn(2, 2, 6, 6)
    plain = model(x)
    with ag.watch(model, "first", detach=detach) as record:
        watched = model(x)
    assert torch.equal(record["first"], model.first(x))
    assert torch.equal(watched, plain)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda f: f.__name__)
def test_gradients_flow_to_and_through_the_value_before(spoil):
    model, x = spoiler(spoil), torch.randn(2, 2, 6, 6, requires_grad=True)
    with ag.watch(model, "first") as record:
        output = model(x)
    (to_record,) = torch.autograd.grad(output.sum(), record["first"], retain_graph=True)
    through, straight = (torch.autograd.grad(y.sum(), x)[0] for y in (record["first"], model.first(x)))
    # What follows the layer, as a function of a copy of its output.
    y = model.first(x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model.second(model.spoil(y * 1)).sum(), y)
    torch.testing.assert_close(to_record, expected, rtol=0, atol=0)
    torch.testing.assert_close(through, straight, rtol=0, atol=0)


def test_gradients_with_respect_to_an_in_place_layer():
    # The layer most often looked at in networks with in-place activations; its output is its input's memory.
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    with ag.watch(model, "1") as record:
        output = model(torch.randn(1, 2, 6, 6))
    (gradient,) = torch.autograd.grad(output.sum(), record["1"])
    assert gradient.sum() == output.numel()


def test_an_output_that_is_not_changed_is_not_copied():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval()
    x = torch.randn(5, 3)
    ag.capture(model, x, ["0", "1", "2", "4"])

    pointers = []
    for module in model:
        module.register_forward_hook(lambda module, args, output: pointers.append(output.data_ptr()))
    record = ag.capture(model, x, ["0", "1", "2", "4"])
    same = [record[name].data_ptr() == pointers[int(name)] for name in record]
    assert same == [True, True, False, True]


def test_a_list_that_grows_after_the_layer():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.split = Split()

        def forward(self, x):
            parts = self.split(x)
            parts.append(x)
            parts[0] = x
            return torch.cat(parts)

    class Split(nn.Module):
        def forward(self, x):
            return [x * 2, x * 3]

    x = torch.ones(1)
    for _ in range(2):
        assert ag.capture(Grows(), x, "split")["split"] == [2, 3]
    model = Grows()
    with ag.watch(model, "split") as record:
        assert model(x).tolist() == [1, 3, 1]
    assert record["split"] == [2, 3]


def test_a_list_that_the_layer_keeps():
    class Keeps(nn.Module):
        def forward(self, x):
            self.kept = [x * 2]
            return self.kept

    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.keeps = Keeps()

        def forward(self, x):
            self.keeps(x).append(x)
            return sum(self.keeps.kept)

    model, x = Adds(), torch.ones(1, requires_grad=True)
    with ag.watch(model, "keeps") as record:
        assert model(x) == 3
    assert record["keeps"] == [2]


def test_a_change_in_place_that_was_not_there_when_the_model_was_learned():
    hidden = []

    class Changes(Conv):
        def spoil(self, y):
            return y.mul_(hidden[0]) if hidden else y

    model, x = Changes().eval(), torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        expected = model.first(x)
    for _ in range(4):
        assert torch.equal(ag.capture(model, x, ["first", "second"])["first"], expected)
        hidden.append(3.0)


def test_tensors_that_count_no_changes():
    class Inner(Conv):
        @torch.inference_mode()
        def forward(self, x):
            return self.second(self.act(self.first(x)))

    model, x = Inner().eval(), torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        expected = model.first(x)
    for _ in range(2):
        assert torch.equal(ag.capture(model, x, ["first", "second"])["first"], expected)
    with ag.watch(model, "first") as record:
        model(x)
    assert torch.equal(record["first"], expected)


def test_inside_inference_mode():
    model = spoiler(in_place_module)
    with torch.inference_mode():
        x = torch.randn(1, 2, 6, 6)
        for _ in range(2):
            assert torch.equal(ag.capture(model, x, ["first", "second"])["first"], model.first(x))


# Any program --------------------------------------------------------------------------------------------------------
class View(nn.Module):
    def forward(self, x):
        return x.view(x.shape)


class Half(nn.Module):
    def forward(self, x):
        return x[:, :2]


class Pair(nn.Module):
    def forward(self, x):
        return x, x * 2


class Dict(nn.Module):
    def forward(self, x):
        return {"same": x, "new": x + 1}


KINDS = {
    "linear": lambda: nn.Linear(4, 4),
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "view": View,
    "pair": Pair,
    "dict": Dict,
    "half": Half,
}
FUNCTIONS = {
    "add_": lambda x: x.add_(1),
    "mul_": lambda x: x.mul_(0.5),
    "half_": lambda x: x[:, :1].neg_(),
    "new": lambda x: x - 1,
}


class Program(nn.Module):
    """Steps (what, on which earlier value); a step "again" calls an earlier layer once more."""

    def __init__(self, steps):
        super().__init__()
        torch.manual_seed(0)
        self.steps = steps
        self.layers = nn.ModuleDict({f"l{i}": KINDS[what]() for i, (what, _) in enumerate(steps) if what in KINDS})

    def forward(self, x):
        values = [x * 1]
        for i, (what, which) in enumerate(self.steps):
            value = values[which % len(values)]
            if what in FUNCTIONS:
                result = FUNCTIONS[what](value)
            else:
                layers = list(self.layers.values())[: sum(k in KINDS for k, _ in self.steps[:i])]
                layer = self.layers[f"l{i}"] if what in KINDS else layers[which % len(layers)] if layers else Pair()
                if value.shape[1] != 4 and isinstance(layer, nn.Linear):
                    layer = Pair()
                result = layer(value)
            if isinstance(result, dict):
                result = tuple(result.values())
            values += result if isinstance(result, tuple) else (result,)
        return sum(value.sum() * (i + 1) for i, value in enumerate(values))


steps = st.lists(st.tuples(st.sampled_from([*KINDS, *FUNCTIONS, "again"]), st.integers(0, 9)), min_size=1, max_size=10)


def copies(model, x):
    """What every layer returns, copied at once."""
    found = {}
    for name, module in model.layers.items():
        module.register_forward_hook(
            lambda module, args, output, name=name: found.setdefault(f"layers.{name}", []).append(leaves(output, True))
        )
    model(x)
    return found


def leaves(value, copied=False):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    return [part.detach().clone() if copied else part.detach() for part in parts]


def same(record, expected):
    return all(
        len(record.calls(name)) == len(expected[name])
        and all(map(equal, map(leaves, record.calls(name)), expected[name]))
        for name in record
    )


def equal(some, others):
    return len(some) == len(others) and all(map(torch.equal, some, others))


@settings(max_examples=150, deadline=None)
@given(steps=steps, chosen=st.sets(st.integers(0, 9)))
def test_any_program(steps, chosen):
    model, x = Program(steps).eval(), torch.linspace(-1, 1, 12).reshape(3, 4)
    # Whether a program calls a layer at all is its own affair.
    expected = copies(copy.deepcopy(model), x)
    names = [name for i, name in enumerate(expected) if i in chosen] or list(expected)
    if not names:
        return
    plain = model(x)
    for _ in range(2):
        assert same(ag.capture(model, x, names), expected)
        assert same(ag.capture(model, x, names[:1]), expected)
    for detach in (False, True):
        with ag.watch(model, names, detach=detach) as record:
            assert torch.equal(model(x), plain)
        assert same(record, expected)
    single = [name for name in names if len(expected[name]) == 1]
    if single:
        part = ag.submodel(model, single)
        for _ in range(2):
            outputs = part(x) if len(single) > 1 else [part(x)]
            assert all(equal(leaves(outputs[i]), expected[name][0]) for i, name in enumerate(single))
