"""A run ends after the last wanted layer, and never before a layer's last call."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
nn = torch.nn
TapRecorder = pytest.importorskip("agnostic_torch.taps").TapRecorder


class Count(nn.Module):
    """Passes its input on and counts its calls, outside of the model."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        self.count(1)
        return x * 1


def chain(calls):
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), Count(calls.append)).eval()


def ran(calls):
    count = len(calls)
    calls.clear()
    return count


def test_from_the_second_run_on_nothing_runs_after_the_last_layer():
    calls = []
    model, x = chain(calls), torch.randn(2, 3)
    first = ag.capture(model, x, ["0", "1"])
    assert ran(calls) == 1
    second = ag.capture(model, x, ["1", "0"])
    assert ran(calls) == 0
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_listing_teaches_as_well():
    calls = []
    model, x = chain(calls), torch.randn(2, 3)
    ag.layers(model, x)
    ran(calls)
    ag.layers(model, x)
    ag.capture(model, x, 1)
    assert ran(calls) == 0


def test_inputs_of_another_shape_are_learned_anew():
    calls = []
    model = chain(calls)
    for n in (2, 2, 5, 5):
        ag.capture(model, torch.randn(n, 3), "1")
    assert ran(calls) == 2


def test_gradients_do_not_need_the_rest():
    calls = []
    model, x = chain(calls), torch.randn(2, 3, requires_grad=True)
    part = ag.submodel(model, "1")
    part(x)
    ran(calls)
    part(x).sum().backward()
    assert ran(calls) == 0
    expected = torch.autograd.grad(torch.tanh(model[0](x)).sum(), x)[0]
    assert torch.equal(x.grad, expected)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(3, 3)
        self.act = nn.Tanh()
        self.head = nn.Linear(3, 2)

    def forward(self, x, steps=None):
        h = torch.zeros(len(x), 3)
        for i in range(x.shape[1] if steps is None else steps):
            h = self.act(self.cell(h + x[:, i]))
        return self.head(h)


def recurrent_states(model, x):
    h, states = torch.zeros(len(x), 3), []
    for i in range(x.shape[1]):
        h = torch.tanh(model.cell(h + x[:, i]))
        states.append(h)
    return states


@torch.no_grad()
def test_a_layer_that_runs_again_is_recorded_to_the_end():
    model = Recurrent().eval()
    for length in (4, 4, 2, 4, 7, 7):
        x = torch.randn(2, length, 3)
        states = recurrent_states(model, x)
        record = ag.capture(model, x, ["cell", "act"])
        assert len(record.calls("cell")) == length
        assert all(map(torch.equal, record.calls("act"), states))


def test_arguments_that_are_no_tensors_count():
    model, x = Recurrent().eval(), torch.randn(2, 6, 3)
    for steps in (3, 3, 5, 3):
        assert len(ag.capture(model, {"x": x, "steps": steps}, "cell").calls("cell")) == steps


class Decides(nn.Module):
    """Calls a layer as often as a subclass says, then another one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.last = nn.Identity()

    def forward(self, x):
        for _ in range(self.times(x)):
            x = self.layer(x)
        return self.last(x)


TIMES = {
    "item": lambda self, x: int(x.sum().item()),
    "int": lambda self, x: int(x.sum()),
    "truth": lambda self, x: 3 if (x > 2).any() else 1,
    "equal": lambda self, x: 3 if torch.equal(x, x * 0 + 3) else 1,
    "tolist": lambda self, x: int(x.tolist()[0]),
    "numpy": lambda self, x: int(x.numpy().sum()),
    "array": lambda self, x: int(np.asarray(x).sum()),
    "nonzero": lambda self, x: len((x > 2).nonzero()) * 2 + 1,
    "mask": lambda self, x: x[x > 2].numel() * 2 + 1,
    "index": lambda self, x: len([1, 2, 3][: x.sum().long()]),
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_values_that_decide_what_runs(times):
    model = type("Model", (Decides,), {"times": times})().eval()
    for value, expected in ((1.0, 1), (1.0, 1), (3.0, 3), (1.0, 1), (3.0, 3)):
        assert len(ag.capture(model, torch.tensor([value]), "layer").calls("layer")) == expected


RANDOM = {
    "random": lambda self, x: random.randint(1, 5),
    "numpy": lambda self, x: np.random.randint(1, 6),
    "torch": lambda self, x: int(torch.randint(1, 6, ())),
}


@pytest.mark.parametrize("times", RANDOM.values(), ids=RANDOM)
def test_random_numbers_that_decide_what_runs(times):
    def count(self, x):
        drawn.append(times(self, x))
        return drawn[-1]

    drawn = []
    model = type("Model", (Decides,), {"times": count})().eval()
    recorded = [len(ag.capture(model, torch.ones(1), "layer").calls("layer")) for _ in range(20)]
    assert recorded == drawn
    assert len(set(drawn)) > 1


def test_a_model_that_counts_its_own_runs():
    class Counts(Decides):
        runs = 0

        def times(self, x):
            self.runs += 1
            return self.runs % 3 + 1

    model = Counts().eval()
    assert [len(ag.capture(model, torch.ones(1), "layer").calls("layer")) for _ in range(6)] == [2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("account", ["runs", "busy", "both"])
def test_a_model_that_keeps_an_account_is_not_cut_short(account):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other, self.runs, self.busy = nn.Identity(), nn.Identity(), 0, False

        def forward(self, x):
            self.busy = account != "runs"
            x = self.other(self.layer(x))
            self.runs += account != "busy"
            self.busy = False
            return x

    model = Keeps().eval()
    for names in ("layer", "layer", "other", ["layer", "other"]) * 2:
        model.runs = 0
        ag.capture(model, torch.ones(1), names)
        assert not model.busy
        assert model.runs == (account != "busy")


@pytest.mark.parametrize("where", ["attribute", "list", "dict", "method", "module", "name"])
def test_changes_of_the_model_between_captures(where):
    class Set(Decides):
        def __init__(self):
            super().__init__()
            self.number, self.numbers, self.options = 1, [1, [1]], {"number": 1}
            self.other = self.before = self.after = nn.Identity()

        def times(self, x):
            self.after(self.before(x))
            return max(self.number, self.numbers[1][0], self.options["number"])

    model = Set().eval()
    for _ in range(2):
        assert len(ag.capture(model, torch.ones(1), "layer").calls("layer")) == 1
    if where == "attribute":
        model.number = 3
    elif where == "list":
        model.numbers[1][0] = 3
    elif where == "dict":
        model.options["number"] = 3
    elif where == "method":
        model.times = lambda x: 3
    elif where == "name":
        # No module comes or goes: two of the names are another module's.
        model.before = model.after = model.layer
    else:
        # The last layer now calls the first one twice more.
        model.last = nn.Sequential(model.layer, nn.ReLU(), model.layer)
    assert len(ag.capture(model, torch.ones(1), "layer").calls("layer")) == 3


def test_training_mode_that_decides_what_runs():
    class Aux(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(2, 2), nn.Identity()

        def forward(self, x):
            x = self.layer(x)
            return self.last(self.layer(x)) if self.training else self.last(x)

    model = Aux()
    part, taps = ag.submodel(model, "last"), TapRecorder(model, ["layer"])
    x = torch.randn(1, 2)
    for training in (True, False, True, False):
        model.train(training)
        expected = model(x)
        assert torch.equal(part(x), expected)
        outputs, _ = taps(x)
        assert len(outputs["layer"]) == 1 + training
        assert len(ag.capture(model, x, "layer").calls("layer")) == 1


def test_a_model_that_catches_everything():
    class Catches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(2, 2), nn.Identity()

        def forward(self, x):
            try:
                return self.layer(x)
            except BaseException:  # noqa: BLE001
                return self.last(x)

    model, x = Catches().eval(), torch.randn(1, 2)
    for _ in range(3):
        with torch.no_grad():
            assert torch.equal(ag.capture(model, x, "layer")["layer"], model.layer(x))


def test_a_submodel_of_a_submodel_stops_itself_only():
    calls = []
    model, x = chain(calls), torch.randn(2, 3)
    inner = ag.submodel(model, "2")
    outer = ag.submodel(inner, "0")
    holder = nn.Sequential(inner, nn.Tanh())
    for _ in range(3):
        assert torch.equal(outer(x), model[0](x))
        assert torch.equal(inner(x), model[:3](x))
        assert torch.equal(ag.submodel(holder, "1")(x), torch.tanh(model[:3](x)))
        assert torch.equal(ag.submodel(holder, "0.1")(x), model[:2](x))


def test_threads_do_not_see_each_other():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6))).eval()
    part, full = ag.submodel(model, ["1", "3"]), ag.submodel(model, ["0", "5"])

    def work(seed):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
        expected = [model[: i + 1](x) for i in (1, 3, 0, 5, 5)]
        return all(all(map(torch.equal, (*part(x), *full(x), model(x)), expected)) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
