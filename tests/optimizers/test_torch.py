"""Optimizers in PyTorch: native ones equal ours, groups, schedulers, checkpoints, clipping, averages."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from agnostic import optimizers as ago  # noqa: E402
from agnostic.errors import InvalidInput, UnknownName  # noqa: E402
from agnostic.optimizers import specs  # noqa: E402
from agnostic.reference import optimizers as reference  # noqa: E402
from tests.optimizers.problems import CASES  # noqa: E402

# 5 steps of about 20 operations on numbers below 10, each rounded to 1.1e-16: 1e-14. The denominators of adaptive rules
# are as small as 1e-2 and enlarge that by 100.
EXACT = 1e-12

START, GRADIENT, RATES = reference.standard_problem()


def follow(optimizer: Any, parameters: Sequence[Any], rates: Sequence[float] = RATES) -> list[np.ndarray]:
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        for p, g in zip(parameters, GRADIENT([p.detach().double().numpy() for p in parameters]), strict=True):
            p.grad = torch.tensor(g, dtype=p.dtype)
        optimizer.step()
    return [p.detach().numpy().copy() for p in parameters]


def leaves(dtype: Any = None) -> list[Any]:
    return [torch.tensor(p, dtype=dtype).requires_grad_() for p in START]


def far(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_our_rule_and_the_native_optimizer_follow_the_reference(case: str) -> None:
    cls, options = CASES[case]
    rates = [*RATES, 0.02, 0.04]  # 7 steps: RAdam's rectification starts within them
    framework = "torch" if "torch" in cls.natives else "keras"
    spec = getattr(cls, framework)(**options)
    expected = reference.run(spec, START, GRADIENT, rates)[-1]
    for native in [False, *[True] * (framework == "torch")]:
        parameters = leaves()
        optimizer = ago.build(spec, [{"params": parameters}], native=native)
        assert type(optimizer).__module__.startswith("torch.optim") == native
        assert far(follow(optimizer, parameters, rates), expected) < EXACT


@pytest.mark.parametrize("case", CASES)
def test_keras_conventions_are_followed_in_torch(case: str) -> None:
    cls, options = CASES[case]
    if "keras" not in cls.natives:
        pytest.skip(f"Keras has no {cls.__name__}")
    spec = cls.keras(**options)
    parameters = leaves()
    got = follow(ago.build(spec, [{"params": parameters}]), parameters)
    assert far(got, reference.run(spec, START, GRADIENT, RATES)[-1]) < EXACT


def test_the_native_optimizer_is_chosen_only_where_it_is_exact() -> None:
    def module(spec: specs.Spec) -> str:
        return type(ago.build(spec, [{"params": leaves()}])).__module__.partition(".")[0]

    assert module(ago.SGD(0.1, 0.9)) == "torch"
    assert module(ago.SGD(0.1, 0.0, convention="keras")) == "torch"  # without momentum all forms are one
    assert module(ago.SGD(0.1, 0.9, convention="keras")) == "agnostic_torch"
    assert module(ago.Adam(0.1, epsilon_place="before correction")) == "agnostic_torch"
    assert module(ago.Adam(0.1, clip_norm=1.0)) == "agnostic_torch"
    with pytest.raises(InvalidInput, match="momentum buffer holds"):
        ago.build(ago.SGD(0.1, 0.9, convention="keras"), [{"params": leaves()}], native=True)


def test_muon_in_the_parameters_type_is_near_torchs_in_bfloat16() -> None:
    # bfloat16 has 8 bits; 5 iterations of 3 products each on numbers below 1 lose a few of them: 5 * 3 * 2^-8 = 6e-2 of
    # a step whose elements are at most 1, times the rates, which sum to 0.29.
    ends = []
    for dtype in ("bfloat16", "parameter"):
        p = torch.tensor(START[0]).requires_grad_()
        spec = ago.Muon.torch(iteration_dtype=dtype)
        optimizer = ago.build(spec, [{"params": [p]}])
        assert type(optimizer).__module__.startswith("torch.optim") == (dtype == "bfloat16")
        for rate in RATES:
            optimizer.param_groups[0]["lr"] = rate
            p.grad = torch.tensor(GRADIENT([p.detach().numpy(), START[1]])[0])
            optimizer.step()
        ends.append(p.detach().numpy())
    assert 0 < np.abs(ends[0] - ends[1]).max() < 6e-2 * sum(RATES)
    spec = ago.Muon.torch(iteration_dtype="parameter")
    expected = reference.run(spec, START[:1], lambda p: GRADIENT([*p, START[1]])[:1], RATES)
    assert np.abs(ends[1] - expected[-1][0]).max() < EXACT


@pytest.mark.parametrize("shape", [(3, 4), (64, 16), (100, 128)])
def test_our_muon_rounds_where_torchs_does(shape: tuple[int, int]) -> None:
    """Each product of the iteration is rounded to bfloat16 once, with what is added to it, as by torch.addmm."""
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=shape), rng.normal(size=(3, *shape))
    for dtype, spacing in ((torch.float64, 2.0**-52), (torch.float32, 2.0**-23)):
        ends = []
        for native in (True, False):
            p = torch.tensor(start, dtype=dtype).requires_grad_()
            optimizer = ago.build(ago.Muon.torch(learning_rate=0.1), [{"params": [p]}], native=native)
            for g in grads:
                p.grad = torch.tensor(g, dtype=dtype)
                optimizer.step()
            ends.append(p.detach().numpy())
        # Only the last sum of each of 3 steps, of weights of at most 4, may be fused or not; an iteration rounded
        # otherwise differs by 2^-8 of a step of 0.1.
        assert far(*([end] for end in ends)) <= 3 * 4 * spacing


def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    ).double()


def train(net: Any, optimizer: Any, steps: int = 3, scheduler: Any = None) -> None:
    x = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_groups_by_name_glob_and_kind_equal_the_list_of_dicts(convention: str) -> None:
    spec = ago.SGD(0.1, 0.9, convention=convention)
    first, second = model(), model()
    rules = {
        "0": {"learning_rate": 0.01},
        "kind:BatchNorm2d": {"trainable": False},
        "**.bias": {"weight_decay": 0.5},
    }
    by_name = ago.groups(first, rules)
    train(first, ago.build(spec, by_name))
    by_dict = [
        {"params": [second[0].weight], "lr": 0.01},
        {"params": [second[0].bias], "lr": 0.01, "weight_decay": 0.5},
        {"params": (p for p in [second[3].weight])},
        {"params": second[3].bias, "weight_decay": 0.5},
    ]
    train(second, ago.build(spec, by_dict))
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(first[1].weight, model()[1].weight)
    assert not torch.equal(first[0].weight, model()[0].weight)


def test_a_selector_that_chooses_nothing_is_an_error_that_names_the_nearest() -> None:
    net = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)})
    with pytest.raises(UnknownName, match="did you mean 'encoder"):
        ago.groups(net, {"enc": {"lr": 0.1}})
    with pytest.raises(UnknownName, match="no layer matches"):
        ago.groups(net, {"decoder.*": {"lr": 0.1}})
    with pytest.raises(UnknownName, match="weight_decay"):
        ago.build(ago.SGD(0.1), ago.groups(net, {"encoder": {"weight_decy": 0.1}}))
    with pytest.raises(InvalidInput, match="all parameters together"):
        ago.build(ago.SGD(0.1), ago.groups(net, {"encoder": {"clip_norm": 0.1}}))
    with pytest.raises(InvalidInput, match="in group 0 and in group 1"):
        ago.build(ago.SGD(0.1), [{"params": net.encoder.weight}, {"params": net.parameters()}])


def test_a_selector_of_what_is_frozen_tied_or_empty_says_so() -> None:
    net = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2, bias=False), "act": torch.nn.ReLU()}
    )
    net["b"].weight, net["twice"] = net["a"].weight, net["a"]
    net["still"] = torch.nn.Sequential(torch.nn.Linear(2, 2)).requires_grad_(False)
    for selector, match in [
        ("b", "'b' is tied, its parameters go by their first names: choose 'a.weight'"),
        ("b.weight", "'b.weight' is tied, .* choose 'a.weight'"),
        ("twice", "'twice' is tied, .* choose 'a.weight' and 'a.bias'"),
        ("act", "'act' has no parameters"),
        ("still", "'still' is frozen: requires_grad is False"),
        ("still.*", "'still.0' is frozen"),
        ("kind:ReLU", "chosen by 'kind:ReLU': 'act' has no parameters"),
    ]:
        with pytest.raises(UnknownName, match=match):
            ago.groups(net, {selector: {"lr": 0.1}})


def test_vgg_layers_answer_to_their_keras_names() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        net = torchvision.models.vgg16()
    chosen = ago.groups(net, {"block1_*": {"lr": 1e-4}})
    assert [name for name, _ in chosen.groups[0].parameters] == [
        "features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias",
    ]  # fmt: skip


def test_groups_may_have_rules_of_their_own() -> None:
    net = model()
    own = {name: {"spec": ago.Adam(0.1)} for name in ("**.bias", "kind:BatchNorm2d", "0")}
    optimizer = ago.build(ago.Muon(0.1), ago.groups(net, own))
    before = [p.clone() for p in net.parameters()]
    train(net, optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(InvalidInput, match="Muon moves matrices"):
        train(net, ago.build(ago.Muon(0.1), net))


def test_a_checkpoint_loads_without_pickle_and_continues_exactly() -> None:
    spec = ago.NAdam(0.01, weight_decay=0.1, clip_global_norm=1.0, ema_momentum=0.9)
    first, second = model(), model()
    one = ago.build(spec, first)
    train(first, one)
    buffer = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": one.state_dict()}, buffer)
    train(first, one)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    two = ago.build(spec, second)
    second.load_state_dict(saved["model"])
    two.load_state_dict(saved["optimizer"])
    train(second, two)
    for (name, a), b in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b[1]), name


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.StepLR(o, 1, 0.5)], [2]
        ),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    ],
)
@pytest.mark.parametrize("spec", [ago.SGD(0.01, 0.9), ago.Adam(0.01)])
def test_schedulers_of_rate_and_momentum_move_ours_as_they_move_the_native(
    make: Callable[[Any], Any], spec: specs.Spec
) -> None:
    ends = []
    for native in (True, False):
        net = model()
        # The normalization takes it away again: its gradient is rounding, of which Adam makes whole steps.
        net[0].bias.requires_grad_(False)
        optimizer = ago.build(spec, net, native=native)
        train(net, optimizer, 5, make(optimizer))
        ends.append([p.detach().numpy() for p in net.parameters()])
    assert far(*ends) < EXACT


def test_a_closure_is_called_with_gradients() -> None:
    net = model()
    optimizer = ago.build(ago.Lion(0.01), net)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = net(torch.ones(2, 1, 4, 4, dtype=torch.float64)).square().sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_clipping_is_that_of_torch() -> None:
    for options, native in [
        ({"clip_global_norm": 0.1}, lambda ps: torch.nn.utils.clip_grad_norm_(ps, 0.1)),
        ({"clip_norm": 0.1}, lambda ps: [torch.nn.utils.clip_grad_norm_([p], 0.1) for p in ps]),
        ({"clip_value": 0.01}, lambda ps: torch.nn.utils.clip_grad_value_(ps, 0.01)),
    ]:
        first, second = model(), model()
        train(first, ago.build(ago.SGD(0.1, **options), first))
        optimizer = torch.optim.SGD(second.parameters(), 0.1)
        x = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4)
        for _ in range(3):
            optimizer.zero_grad()
            second(x).square().sum().backward()
            native(list(second.parameters()))
            optimizer.step()
        plain = model()
        train(plain, ago.build(ago.SGD(0.1), plain))
        ends = [[p.detach().numpy() for p in net.parameters()] for net in (first, second, plain)]
        assert far(ends[0], ends[1]) < EXACT < far(ends[0], ends[2])


def test_accumulation_takes_the_mean_and_the_average_follows_the_reference() -> None:
    spec = ago.Adam(0.1, accumulate=2, ema_momentum=0.5, ema_overwrite=2)
    rates = [0.1, 0.1, 0.03, 0.03, 0.05, 0.05, 0.01, 0.01]
    parameters = leaves()
    got = follow(ago.build(spec, [{"params": parameters}]), parameters, rates)
    assert far(got, reference.run(spec, START, GRADIENT, rates)[-1]) < EXACT


def test_the_average_takes_the_weights_place_when_asked_to() -> None:
    # With momentum 0.5: average = (p1 + p2) / 2 after two steps; plain SGD of gradient 1 at rate 1 gives -1, -2.
    p = torch.zeros(1, dtype=torch.float64).requires_grad_()
    optimizer = ago.build(ago.SGD(1.0, ema_momentum=0.5), [{"params": [p]}])
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert p.item() == -2.0
    optimizer.finalize()
    assert p.item() == -1.5


def test_averaged_weights_are_swapped_in_and_out() -> None:
    net = model()
    optimizer = ago.build(ago.SGD(0.1, ema_momentum=0.5), ago.groups(net, {"0": {"trainable": False}}))
    with pytest.raises(InvalidInput, match="before the first step"), ago.averaged_weights(optimizer):
        pass
    path = []
    for _ in range(2):
        train(net, optimizer, 1)
        path.append([p.detach().clone() for p in net.parameters()])
    own = path[-1]
    buffers = [b.clone() for b in net.buffers()]
    with contextlib.suppress(ZeroDivisionError), ago.averaged_weights(optimizer):
        for p, a, b in zip(net.parameters(), *path, strict=True):
            assert torch.equal(p, 0.5 * a + (1 - 0.5) * b)
        assert all(map(torch.equal, net.buffers(), buffers))
        state = optimizer.state_dict()["state"][0]["average"]
        assert torch.equal(state, 0.5 * path[0][2] + 0.5 * path[1][2])  # the state can be saved inside
        with pytest.raises(InvalidInput, match="already"), ago.averaged_weights(optimizer):
            pass
        with pytest.raises(InvalidInput, match="make steps outside"):
            optimizer.step()
        _ = 1 / 0
    assert all(map(torch.equal, net.parameters(), own))
    train(net, optimizer, 1)
    for other in (ago.build(ago.SGD(0.1), net), ago.build(ago.SGD(0.1), net, native=False)):
        with pytest.raises(InvalidInput, match="build it with ema_momentum"), ago.averaged_weights(other):
            pass


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "gradient_only"])
def test_large_parameters_move_in_blocks_as_small_ones_do(layout: str) -> None:
    rng = np.random.default_rng(0)
    value, grads = rng.normal(size=(48, 40, 5, 5)), rng.normal(size=(3, 48, 40, 5, 5))
    p = torch.tensor(value)
    if layout == "channels_last":
        p = p.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        p = torch.tensor(value.transpose(1, 0, 3, 2).copy()).permute(1, 0, 3, 2)
    p.requires_grad_()
    spec = ago.Adam(0.1, weight_decay=0.1)
    optimizer = ago.build(spec, [{"params": [p]}], native=False)
    for g in grads:
        p.grad = torch.tensor(g)
        if layout == "gradient_only":
            p.grad = p.grad.contiguous(memory_format=torch.channels_last)
        optimizer.step()
    step = iter(grads)
    expected = reference.run(spec, [value], lambda _: [next(step)], [0.1] * 3)[-1][0]
    assert np.abs(p.detach().numpy() - expected).max() < EXACT


@pytest.mark.parametrize("spec", [ago.Adam(0.1), ago.NAdam(0.1), ago.Lion(0.1), ago.Adafactor(0.1)])
@pytest.mark.parametrize("shape", [(), (1,), (0,)])
def test_scalars_and_empty_parameters(spec: specs.Spec, shape: tuple[int, ...]) -> None:
    p = torch.full(shape, 2.0, dtype=torch.float64).requires_grad_()
    optimizer = ago.build(spec, [{"params": [p]}], native=False)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.shape == shape
    assert bool((p < 2).all())


def test_mixed_precision_with_a_scaler() -> None:
    net = torch.nn.Linear(4, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = ago.build(ago.Adam(0.01, epsilon_place="before correction"), net)
    before = net.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(torch.ones(3, 4)).square().sum()
    scaler.scale(loss).backward()
    net.weight.grad[0, 0] = math.inf
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(net.weight, before)  # a step with an infinite gradient is left out
    optimizer.zero_grad()
    scaler.scale(net(torch.ones(3, 4)).square().sum()).backward()
    scaler.step(optimizer)
    # Adam's first step has the size of the rate, whatever the gradient; float32 keeps 7 digits of it.
    assert torch.allclose((net.weight - before).abs(), torch.tensor(0.01), rtol=1e-4)


def test_frozen_everything_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="nothing to optimize"):
        ago.build(ago.SGD(0.1), ago.groups(model(), {}, default={"trainable": False}))


@pytest.mark.parametrize(
    "spec",
    [
        ago.SGD(0.1), ago.SGD(0.1, 0.9), ago.SGD.torch(learning_rate=0.1, momentum=0.9, dampening=0.5),
        ago.RMSprop(0.1), ago.Adam(0.1), ago.AdamW.torch(learning_rate=0.1, weight_decay=0.2),
        ago.RAdam.torch(learning_rate=0.1),
    ],
    ids=lambda spec: type(spec).__name__,
)  # fmt: skip
def test_what_is_kept_from_step_to_step_follows_the_groups_as_they_change(spec: specs.Spec) -> None:
    """The rate, zero among its values, the momentum and the loaded state of a group take effect at the next step."""
    ends = []
    for native in (True, False):
        parameters = [torch.linspace(-1, 1, n, dtype=torch.float64).requires_grad_() for n in (3, 40, 2**14 + 1)]
        groups = [{"params": [p]} for p in parameters]
        optimizer = ago.build(spec, groups, native=native)
        for step, rate in enumerate([0.1, 0.1, 0.0, 0.1, 1.0, 0.1, 0.2, 0.1]):  # RAdam rectifies from the sixth on
            optimizer.param_groups[1]["lr"] = rate
            if step == 4 and optimizer.param_groups[2].get("momentum"):
                optimizer.param_groups[2]["momentum"] = 0.5
            if step == 3:
                saved, optimizer = optimizer.state_dict(), ago.build(spec, groups, native=native)
                optimizer.load_state_dict(saved)
            for p in parameters:
                p.grad = (p.detach() - 0.3) * (step + 1)
            optimizer.step()
        ends.append([p.detach().numpy() for p in parameters])
    assert far(*ends) < EXACT


@pytest.mark.parametrize("native", [True, False])
def test_a_group_that_is_added_has_the_first_ones_options(native: bool) -> None:
    ends = []
    for add in (True, False):
        net = model()
        dicts = [{"params": net[3].parameters()}, {"params": net[0].parameters(), "lr": 0.01}]
        optimizer = ago.build(ago.SGD(0.1, 0.9, weight_decay=0.1), dicts[: 1 if add else 2], native=native)
        if add:
            optimizer.add_param_group(dicts[1])
        train(net, optimizer)
        ends.append([p.detach().numpy() for p in net.parameters()])
    assert far(*ends) == 0


def test_a_group_may_be_added_by_our_names_and_with_another_rule() -> None:
    net = model()
    optimizer = ago.build(ago.Adam.keras(), ago.groups(net[3], {}))
    optimizer.add_param_group({"params": net[1], "learning_rate": 0.5, "beta_1": 0.5, "name": "norm"})
    optimizer.add_param_group({"params": net[0].weight, "spec": ago.SGD(0.2, 0.9), "lr": 0.1})
    one, two = optimizer.param_groups[1:]
    assert (one["lr"], one["betas"], one["eps"], one["name"]) == (0.5, (0.5, 0.999), 1e-7, "norm")
    assert (two["kind"], two["lr"], two["momentum"]) == ("SGD", 0.1, 0.9)
    train(net, optimizer)


def test_a_checkpoint_finds_parameters_by_their_names_and_refuses_those_of_others() -> None:
    spec = ago.Adam.keras()
    first, second = model(), model()
    one = ago.build(spec, first)
    train(first, one)
    saved = copy.deepcopy(one.state_dict())
    second.load_state_dict(first.state_dict())
    two = ago.build(spec, [{"params": list(second.named_parameters())[::-1]}])
    two.load_state_dict(saved)
    train(first, one)
    train(second, two)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    nameless = ago.build(spec, [{"params": list(second.parameters())[::-1]}])
    with pytest.raises(InvalidInput, match=r"saved 'mean' of parameter '0' \(3,\) is \(2, 1, 3, 3\)"):
        nameless.load_state_dict(saved)


def test_a_compiled_model_has_the_names_of_the_model() -> None:
    first, second = model(), model()
    compiled = torch.compile(second, backend="eager")
    rules = {"0": {"lr": 0.01}, "kind:BatchNorm2d": {"trainable": False}}
    train(first, ago.build(ago.SGD(0.1, 0.9, convention="keras"), ago.groups(first, rules)))
    optimizer = ago.build(ago.SGD(0.1, 0.9, convention="keras"), ago.groups(compiled, rules))
    train(second, optimizer)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert ago.read(optimizer, compiled).states.keys() == ago.read(optimizer, second).states.keys()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_model_and_optimizer_goes_its_own_way(duplicate: Callable[[Any], Any]) -> None:
    net = model()
    optimizer = ago.build(ago.NAdam.keras(), ago.groups(net, {"0": {"lr": 0.01}}))
    train(net, optimizer)
    other, its_own = duplicate((net, optimizer))
    train(other, its_own)
    train(net, optimizer)
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
