"""Captures, live records and submodels of torch modules."""

import collections
import copy
import dataclasses
import gc
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import agnostic as ag
from agnostic.errors import InvalidInput, UnknownName

torch = pytest.importorskip("torch")
nn = torch.nn


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        collections.OrderedDict(
            conv=nn.Conv2d(3, 4, 3),
            norm=nn.BatchNorm2d(4),
            act=nn.ReLU(inplace=True),
            flat=nn.Flatten(),
            head=nn.Linear(4 * 4 * 4, 5),
        )
    )


@pytest.fixture
def model():
    return small().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# What comes back -----------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_capture_returns_what_the_layers_return(model, x):
    record = ag.capture(model, x, ["conv", "head"])
    assert list(record) == ["conv", "head"]
    assert torch.equal(record["conv"], model.conv(x))
    assert torch.equal(record["head"], model(x))
    assert record.axes("conv") == "NCHW"
    assert not record["head"].requires_grad


def test_arrays_of_a_capture_can_be_used_in_training(model, x):
    # Tensors of torch.inference_mode could not.
    features = ag.capture(model, x, "flat")["flat"]
    model.head(features).sum().backward()
    assert model.head.weight.grad is not None


@torch.no_grad()
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_inputs_come_in_the_models_type(model, x, dtype):
    record = ag.capture(model, x.numpy().astype(dtype), "head")
    assert torch.equal(record["head"], model(x))
    half = model.bfloat16()
    assert ag.capture(half, x.numpy().astype(dtype), "head")["head"].dtype == torch.bfloat16


def test_numpy_outputs(model, x):
    record = ag.capture(model.bfloat16(), x.numpy(), "head").numpy()
    assert record["head"].dtype == np.float32
    assert isinstance(dict(record)["head"], np.ndarray)
    assert record.axes("head") == "NC"


def test_inputs_that_are_no_numbers(model):
    with pytest.raises(InvalidInput, match="array of numbers of up to 64 bits, not of object"):
        ag.capture(model, np.array(["a", None]), "head")


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Embedding(5, 3)

    def forward(self, image, label):
        return self.left(image) + self.right(label)


@torch.no_grad()
@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs(kind):
    model = TwoInputs()
    image, label = np.ones((4, 2)), np.arange(4)
    inputs = (image, label) if kind is tuple else {"label": label, "image": image}
    record = ag.capture(model, inputs, ["left", "right"])
    assert torch.equal(record["right"], model.right.weight[:4])
    assert record["left"].shape == (4, 3)


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Output(collections.OrderedDict):
    """A dict with attributes, as the outputs of model libraries are."""

    hidden: object = None
    cache: object = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self[field.name] = getattr(self, field.name)


@dataclasses.dataclass(frozen=True)
class Frozen:
    hidden: object
    number: int = 3


OUTPUTS = {
    "tuple": lambda x: (x, x + 1),
    "nested": lambda x: [x, {"a": (x * 2, None)}, "text", 3],
    "namedtuple": lambda x: Point(x, x + 1),
    "ordered dict": lambda x: collections.OrderedDict(b=x, a=x + 1),
    "dict with attributes": lambda x: Output(hidden=x, cache=(x + 1,)),
    "dataclass": Frozen,
}


@pytest.mark.parametrize("make", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("gradients", [False, True])
def test_nested_outputs_come_as_they_are(make, gradients):
    class Nested(nn.Module):
        def forward(self, x):
            return make(x)

    class Spoils(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.nested = nn.Linear(2, 2), Nested()

        def forward(self, x):
            x = self.first(x)
            output = self.nested(x)
            x += 5
            return output

    model, x = Spoils(), torch.ones(1, 2)
    expected = make(model.first(x).detach())
    records = [ag.capture(model, x, ["nested", "first"]) for _ in range(3)]
    with torch.set_grad_enabled(gradients), ag.watch(model, "nested") as record:
        output = model(x)
    assert type(output) is type(expected)
    for found in (*records, record):
        assert type(found["nested"]) is type(expected)
        assert repr(flat(found["nested"])) == repr(flat(expected))
    if isinstance(expected, Output):
        # Also by attribute, where the items are not.
        assert isinstance(records[0]["nested"]["hidden"], torch.Tensor)


def flat(value):
    """Numbers and texts, in order."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return [(key, flat(item)) for key, item in value.items()]
    if dataclasses.is_dataclass(value):
        return [flat(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [flat(item) for item in value] if isinstance(value, tuple | list) else value


def test_recurrent_layers_and_packed_sequences():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.pack = nn.LSTM(3, 4, batch_first=True), Pack()

        def forward(self, x):
            return self.rnn(self.pack(x))[1][0]

    class Pack(nn.Module):
        def forward(self, x):
            return nn.utils.rnn.pack_padded_sequence(x, [3, 1], batch_first=True)

    record = ag.capture(Packed().eval(), torch.randn(2, 3, 3), ["rnn", "pack"])
    output, (h, _) = record["rnn"]
    assert type(record["pack"]) is type(output) is nn.utils.rnn.PackedSequence
    assert h.shape == (1, 2, 4)
    assert record.numpy()["rnn"][1][0].shape == (1, 2, 4)


def test_several_calls():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    record = ag.capture(model, torch.ones(1, 2), ["0", "1"])
    assert len(record.calls("0")) == 2
    with pytest.raises(InvalidInput, match=r"layer '0' ran 2 times: choose one of .calls\('0'\)"):
        record["0"]
    assert record.numpy().calls("0")[1].shape == (1, 2)


def test_a_shared_module_has_both_names():
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Tanh()})
    model.forward = lambda x: model["c"](model["b"](model["a"](x)))
    record = ag.capture(model, torch.ones(1, 2), ["b", "c"])
    assert list(record) == ["b", "c"]
    assert len(record.calls("a")) == len(record.calls("b")) == 2


# State ---------------------------------------------------------------------------------------------------------------
class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit()], ids=repr)
def test_after_an_error_all_is_as_before(error, x):
    model = small().append(Fails(error))
    model.norm.eval()
    modes = [m.training for m in model.modules()]
    for names in ("conv", "**"):
        with pytest.raises(type(error)):
            ag.capture(model, x, names)
        with pytest.raises(type(error)), ag.watch(model, names):
            model(x)
    with pytest.raises(type(error)):
        ag.submodel(model, "act")(x)
    with pytest.raises(type(error)):
        ag.layers(model, x)
    assert hooks(model) == 0
    assert [m.training for m in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_modes_and_statistics_are_as_before(x):
    model = small()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    for _ in range(2):
        record = ag.capture(model, x, ["norm", "act"])
    ag.layers(model, x)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(record["act"], model.eval().act(model.norm(model.conv(x))))
    assert hooks(model) == 0


def test_a_model_that_does_more_when_its_mode_changes():
    class Merges(nn.Linear):
        """Adds a second weight while it is in inference mode, as low-rank adapters do."""

        merged = False

        def train(self, mode=True):
            if self.merged == mode:
                self.weight.data += -1 if mode else 1
                self.merged = not mode
            return super().train(mode)

    model = nn.Sequential(Merges(2, 2), nn.Tanh(), Merges(2, 2))
    model[2].eval()
    before = [model[0].weight.clone(), model[2].weight.clone()]
    ag.capture(model, torch.ones(1, 2), "1")
    assert [model[0].merged, model[2].merged] == [False, True]
    # 1 is added and taken away again: each sum is rounded once, by at most half the spacing of numbers below 2.
    for value, old in zip((model[0].weight, model[2].weight), before, strict=True):
        torch.testing.assert_close(value, old, rtol=0, atol=2**-23)


def test_listing_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[0].register_forward_hook(lambda module, args, output: output + torch.randn(()))
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    ag.layers(model)
    assert torch.rand(()) == expected


def test_watchers_can_be_nested_and_abandoned(model, x):
    with ag.watch(model, "conv") as outer:
        model(x)
        with ag.watch(model, ["conv", "head"]) as inner:
            model(x)
        model(x)
    assert len(outer.calls("conv")) == 3
    assert len(inner.calls("conv")) == 1
    assert all(torch.equal(call, inner["conv"]) for call in outer.calls("conv"))

    def generator():
        with ag.watch(model, "conv") as record:
            yield model(x)
            yield record

    started = generator()
    next(started)
    assert hooks(model) == 1
    del started
    gc.collect()
    assert hooks(model) == 0


def test_an_empty_record_says_so(model, x):
    with ag.watch(model, "head") as record:
        with pytest.raises(InvalidInput, match="layer 'head' has not run"):
            record["head"]
        assert record.calls("head") == []
        model(x)
    assert record["head"].shape == (2, 5)
    with pytest.raises(UnknownName, match="layer 'conv' is not recorded here"):
        record["conv"]


def test_watch_records_training_with_gradients(x):
    model = small()
    with ag.watch(model, ["norm", "head"]) as record:
        model(x).sum().backward(retain_graph=True)
    assert record["norm"].requires_grad
    (gradient,) = torch.autograd.grad(record["norm"].square().sum(), model.conv.weight)
    assert gradient.abs().sum() > 0
    with ag.watch(model, "head", detach=True) as detached:
        model(x)
    assert not detached["head"].requires_grad


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_the_backward_pass_computes_again_is_no_call(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=reentrant))

    import torch.utils.checkpoint

    model, x = Checkpointed(), torch.randn(2, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(model.head(model.inner(x)).sum(), x)
    with ag.watch(model, ["inner.0", "head"]) as record:
        model(x).sum().backward()
    assert len(record.calls("inner.0")) == 1
    assert torch.equal(x.grad, expected)


# Wrappers ------------------------------------------------------------------------------------------------------------
def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, compiled_in_place], ids=lambda f: f.__name__)
def test_wrapped_models_have_the_layers_of_what_they_wrap(wrap, model, x):
    with torch.no_grad():
        expected = model.conv(x)
        wrapped = wrap(model)
        wrapped(x)  # hooks that come later are not called by compiled code
    assert [layer.name for layer in ag.layers(wrapped, x)] == ["conv", "norm", "act", "flat", "head"]
    assert torch.equal(ag.capture(wrapped, x, "conv")["conv"], expected)
    assert torch.equal(ag.submodel(wrapped, "conv")(x), expected)
    with ag.watch(wrapped, "conv") as record:
        wrapped(x)
    assert torch.equal(record["conv"], expected)


def test_compiled_callers_and_parts(model, x):
    call = torch.compile(model, backend="eager")
    call(x)
    with ag.watch(model, "conv") as record:
        call(x)
    assert torch.equal(record["conv"], model.conv(x))

    whole = nn.Sequential(torch.compile(model, backend="eager"), nn.Tanh())
    whole(x)
    assert torch.equal(ag.capture(whole, x, "0._orig_mod.conv")["0._orig_mod.conv"], model.conv(x))


def test_afterwards_compiled_code_is_compiled_again(model, x):
    compiled = []

    def backend(graph, inputs):
        compiled.append(1)
        return graph.forward

    whole = torch.compile(model, backend=backend)
    # Not in the order of a stack, as abandoned generators leave them.
    first, second = ag.watch(model, "conv"), ag.watch(model, "act")
    first.__enter__()
    second.__enter__()
    whole(x)
    first.__exit__(None, None, None)
    whole(x)
    assert compiled == []
    second.__exit__(None, None, None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: ag.capture(model, x, "act"), range(20)))
    whole(x)
    assert compiled == [1]


def test_torchscript_says_that_it_cannot_be_seen(model, x):
    with pytest.warns((FutureWarning, DeprecationWarning), match="deprecated"):  # which of them differs by release
        script = torch.jit.trace(model, x)
    for verb in (
        lambda: ag.layers(script, x),
        lambda: ag.capture(script, x, "conv"),
        lambda: ag.watch(script, "conv").__enter__(),
        lambda: ag.submodel(script, "conv"),
    ):
        with pytest.raises(InvalidInput, match="TorchScript"):
            verb()
    whole = nn.Sequential(nn.Identity(), script)
    assert [layer.name for layer in ag.layers(whole, x)] == ["0"]


# Submodels -----------------------------------------------------------------------------------------------------------
def test_one_layer_gives_an_array_and_several_a_list(model, x):
    assert torch.equal(ag.submodel(model, "conv")(x), model.conv(x))
    head, conv = ag.submodel(model, ["head", "conv"])(x)
    assert torch.equal(head, model(x))
    assert torch.equal(conv, model.conv(x))


def test_a_submodel_shares_everything(model, x):
    part = ag.submodel(model, "norm")
    assert list(part.state_dict()) == list(model.state_dict())
    assert {id(p) for p in part.parameters()} == {id(p) for p in model.parameters()}

    part.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert torch.equal(part(x), model.norm(model.conv(x)))
    part.double()
    assert model.conv.weight.dtype == torch.float64
    assert part(x.double()).dtype == torch.float64
    part.train()
    assert model.training
    assert model.norm.training
    model.eval()
    model.conv = nn.Conv2d(3, 4, 3, dtype=torch.float64)
    assert torch.equal(part(x.double()), model.norm(model.conv(x.double())))


def test_a_root_with_parameters_of_its_own():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("shift", torch.zeros(3), persistent=False)
            self.act = nn.Tanh()

        def forward(self, x):
            return self.act(x * self.scale + self.shift)

    model = Root()
    part = ag.submodel(model, "act")
    part.to(torch.float64)
    assert model.scale.dtype == model.shift.dtype == torch.float64
    assert list(part.state_dict()) == ["scale"]


def test_copies_of_a_submodel_are_independent(model, x):
    part = ag.submodel(model, "norm")
    stored = io.BytesIO()
    torch.save(part, stored)
    stored.seek(0)
    for other in (copy.deepcopy(part), pickle.loads(pickle.dumps(part)), torch.load(stored, weights_only=False)):
        assert torch.equal(other(x), part(x))
        with torch.no_grad():
            other.conv.weight.zero_()
        assert other(x).std() < part(x).std()
        assert list(other.state_dict()) == list(model.state_dict())


def test_training_a_submodel_trains_the_model(x):
    model = small()
    part = ag.submodel(model, "act").train()
    part(x).sum().backward()
    assert model.conv.weight.grad is not None
    assert model.head.weight.grad is None
    assert model.norm.num_batches_tracked == 1


def test_a_submodel_of_a_layer_that_runs_again():
    layer = nn.Linear(2, 2)
    part = ag.submodel(nn.Sequential(layer, layer), "0")
    with pytest.raises(InvalidInput, match="layer '0' ran 2 times"):
        part(torch.ones(1, 2))


@pytest.mark.skipif(
    torch.__version__ < "2.14", reason="compiled code of PyTorch below 2.14 leaves modules without a place for hooks"
)
def test_a_compiled_submodel(model, x):
    part = ag.submodel(model, ["norm", "head"])
    whole = torch.compile(part, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert all(map(torch.equal, whole(x), part(x)))
    x.requires_grad_()
    gradients = [torch.autograd.grad(f(x)[0].sum(), x)[0] for f in (whole, part)]
    assert torch.equal(*gradients)
    assert hooks(model) == 0
