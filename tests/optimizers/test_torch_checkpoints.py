"""State dicts in PyTorch: by name, whatever wraps the model; from torch.optim's own classes; or why they do not fit."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from agnostic import optimizers as ago  # noqa: E402
from agnostic.errors import InvalidInput  # noqa: E402
from agnostic.optimizers import specs  # noqa: E402


def network(*names: str) -> Any:
    """Layers of equal shapes, so that no shape tells one from another."""
    torch.manual_seed(0)
    return torch.nn.Sequential(OrderedDict((name, torch.nn.Linear(3, 3).double()) for name in names or ("a", "b", "c")))


def train(net: Any, optimizer: Any, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)).square().sum().backward()
        optimizer.step()


def weights(net: Any) -> list[Any]:
    return [p.detach().clone() for p in net.parameters()]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


SPECS = [ago.Adam.keras(), ago.Adam.torch(), ago.SGD(0.1, 0.9)]


@pytest.mark.parametrize("spec", SPECS, ids=["ours", "native Adam", "native SGD"])
def test_names_are_matched_through_wrappers_and_in_any_order(spec: specs.Spec) -> None:
    source = network()
    one = ago.build(spec, [{"params": [(f"module._orig_mod.{n}", p) for n, p in source.named_parameters()]}])
    train(source, one)
    saved = copy.deepcopy(one.state_dict())
    target = network()
    target.load_state_dict(source.state_dict())
    two = ago.build(spec, [{"params": list(target.named_parameters())[::-1]}])
    two.load_state_dict(saved)
    train(source, one)
    train(target, two)
    assert same(weights(source), weights(target))
    assert saved["param_groups"][0]["param_names"][0] == "module._orig_mod.a.weight"


@pytest.mark.parametrize("spec", SPECS, ids=["ours", "native Adam", "native SGD"])
def test_what_is_no_state_of_an_optimizer_is_refused(spec: specs.Spec) -> None:
    net = network()
    optimizer = ago.build(spec, net)
    for given, said in [
        (net.state_dict(), "not a dict of 'a.weight', 'a.bias', 'b.weight' and 3 more"),
        ({"epoch": 3, "optimizer": optimizer.state_dict()}, "'epoch', 'optimizer': give its entry 'optimizer'"),
        ({}, "not a dict without entries"),
        ({"state": {}, "param_groups": [{"lr": 0.1}]}, "'state' and 'param_groups', not"),
    ]:
        with pytest.raises(InvalidInput) as error:
            optimizer.load_state_dict(given)
        assert said in str(error.value)


def test_groups_are_found_by_what_is_in_them() -> None:
    source, target = network(), network()
    spec = ago.Adam.keras()
    one = ago.build(spec, ago.groups(source, {"c": {"lr": 0.5}}))
    train(source, one)
    target.load_state_dict(source.state_dict())
    named = dict(target.named_parameters())
    dicts = [
        {"params": [(n, p) for n, p in named.items() if n.startswith("c")]},
        {"params": [(n, p) for n, p in named.items() if not n.startswith("c")]},
    ]
    two = ago.build(spec, dicts)
    two.load_state_dict(copy.deepcopy(one.state_dict()))  # as PyTorch's, it shares the tensors that it is given
    assert [group["lr"] for group in two.param_groups] == [0.5, 1e-3]
    train(source, one)
    train(target, two)
    assert same(weights(source), weights(target))
    whole = ago.build(spec, target)
    with pytest.raises(InvalidInput, match="the state has 2 groups of parameters and the optimizer 1"):
        whole.load_state_dict(one.state_dict())
    other = ago.build(spec, ago.groups(target, {"b": {"lr": 0.5}}))
    with pytest.raises(InvalidInput, match="shared its group with others"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("spec", SPECS, ids=["ours", "native Adam", "native SGD"])
def test_a_renamed_parameter_is_refused_and_nothing_is_changed(spec: specs.Spec) -> None:
    source, target = network("a", "b", "c"), network("a", "bee", "c")
    one, two = ago.build(spec, source), ago.build(spec, target)
    train(source, one)
    before = copy.deepcopy(two.state_dict())
    with pytest.raises(
        InvalidInput, match=r"it has 'b.bias', 'b.weight' where the optimizer has 'bee.weight', 'bee.bias'"
    ):
        two.load_state_dict(one.state_dict())
    assert two.state_dict() == before
    with pytest.raises(InvalidInput, match="build it for the parameters that the state was saved for"):
        ago.build(spec, [{"params": list(network("a").parameters())}]).load_state_dict(one.state_dict())


def test_a_state_never_changes_the_rule() -> None:
    net = network()
    adam, sgd = ago.build(ago.Adam.keras(), net), ago.build(ago.SGD(0.1, 0.9, convention="keras"), net)
    train(net, adam)
    with pytest.raises(InvalidInput, match=r"saved by Adam, and this optimizer is SGD: build Adam"):
        sgd.load_state_dict(adam.state_dict())
    assert sgd.param_groups[0]["kind"] == "SGD"
    train(net, sgd)
    native = torch.optim.Adam(net.parameters())
    train(net, native)
    with pytest.raises(InvalidInput, match=r"saved by torch.optim's Adam, and this optimizer is SGD"):
        sgd.load_state_dict(native.state_dict())
    with pytest.raises(InvalidInput, match=r"our rule of Adam, and this optimizer is torch.optim's SGD"):
        ago.build(ago.SGD(0.1, 0.9), net).load_state_dict(adam.state_dict())
    with pytest.raises(InvalidInput, match=r"torch.optim's Adam, and this optimizer is torch.optim's SGD"):
        ago.build(ago.SGD(0.1, 0.9), net).load_state_dict(native.state_dict())


NATIVE = [
    ago.SGD.torch(learning_rate=0.1), ago.SGD.torch(learning_rate=0.1, momentum=0.9, weight_decay=0.1),
    ago.RMSprop.torch(momentum=0.5, centered=True), ago.Adagrad.torch(), ago.Adadelta.torch(),
    ago.Adam.torch(amsgrad=True),
    ago.Adam.torch(weight_decay=0.1), ago.AdamW.torch(weight_decay=0.1), ago.Adamax.torch(), ago.NAdam.torch(),
    ago.RAdam.torch(), ago.Adafactor.torch(),
]  # fmt: skip


@pytest.mark.parametrize("spec", NATIVE, ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("number", [False, True])
def test_the_state_of_torchs_own_class_goes_on_in_our_rule(spec: specs.Spec, number: bool) -> None:
    source, target = network(), network()
    one = ago.build(spec, source, native=True)
    for group in one.param_groups:  # as of a checkpoint that torch.optim itself wrote, before it knew names
        group.pop("param_names")
    train(source, one, 6)
    saved = copy.deepcopy(one.state_dict())
    if number:
        for state in saved["state"].values():
            state |= {name: float(state[name]) for name in ("step", "mu_product") if name in state}
    target.load_state_dict(source.state_dict())
    # The hyperparameters come with the state.
    two = ago.build(specs.replace(spec, {"learning_rate": 0.7, "clip_global_norm": 1e9}), target, native=False)
    two.load_state_dict(saved)
    assert two.param_groups[0]["lr"] == spec.learning_rate
    assert two.param_groups[0]["clip_global_norm"] == 1e9
    train(source, one, 2)
    train(target, two, 2)
    # Six and two steps of a few roundings of 1.1e-16, enlarged by denominators down to 1e-4.
    assert all(torch.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(weights(source), weights(target), strict=True))


def test_a_state_of_another_convention_is_refused() -> None:
    for ours, match in [
        (ago.Adam.keras(), "epsilon_place"),
        (ago.SGD(0.1, 0.9, convention="keras"), "momentum buffer holds"),
        (ago.AdamW(0.1, weight_decay=0.1, decay="coupled"), "decay"),
    ]:
        net = network()
        native = ago.build(
            type(ours).torch(**({"momentum": 0.9} if isinstance(ours, ago.SGD) else {})), net, native=True
        )
        train(net, native)
        with pytest.raises(InvalidInput, match=match):
            ago.build(ours, net, native=False).load_state_dict(native.state_dict())


def test_steps_as_python_numbers_go_on_and_convert() -> None:
    source, target = network(), network()
    one = ago.build(ago.NAdam.keras(), source)
    train(source, one)
    saved = copy.deepcopy(one.state_dict())
    for state in saved["state"].values():
        state |= {"step": int(state["step"]), "product": float(state["product"])}
    target.load_state_dict(source.state_dict())
    two = ago.build(ago.NAdam.keras(), target)
    two.load_state_dict(saved)
    assert {state.step for state in ago.read(two, target).states.values()} == {2}
    train(source, one)
    train(target, two)
    assert same(weights(source), weights(target))


# Devices: no GPU is needed, since what matters is which tensors stay on the processor ---------------------------------
RULES = [cls(0.01, ema_momentum=0.5) for cls in ago.KINDS.values()]


@pytest.mark.parametrize("spec", RULES, ids=lambda spec: type(spec).__name__)
def test_counts_and_numbers_stay_on_the_processor(spec: specs.Spec) -> None:
    """A step reads them: of a model elsewhere, and of a state that was loaded with another map_location."""
    source = torch.nn.Linear(3, 2, bias=False).double()
    one = ago.build(spec, source, native=False)
    with torch.device("meta"):  # what torch.set_default_device does: new tensors are there
        for _ in range(2):
            source.weight.grad = torch.ones(2, 3, dtype=torch.float64, device="cpu")
            one.step()
    saved = one.state_dict()
    target = torch.nn.Linear(3, 2, bias=False, device="meta").double()
    two = ago.build(spec, target, native=False)
    two.load_state_dict(copy.deepcopy(saved))
    for p, q in zip(source.parameters(), target.parameters(), strict=True):
        for name, value in one.state[p].items():
            assert two.state[q][name].device.type == ("cpu" if value.ndim == 0 else "meta"), name
            assert value.ndim or torch.equal(two.state[q][name], value), name
            assert two.state[q][name].dtype == value.dtype, name
    state = saved["state"][0]
    for name in state:
        lost = {**saved, "state": {0: {**state, name: state[name].to("meta")}}}
        with pytest.raises(InvalidInput, match=f"the saved '{name}' .* has no values"):
            one.load_state_dict(lost)


def test_what_is_loaded_on_a_device_is_asked_to_come_to_the_processor() -> None:
    """``map_location="cuda"`` puts the count there: it must be brought back by ``.to("cpu", ...)``."""
    net = network("a")
    optimizer = ago.build(ago.Adam.keras(), net)
    train(net, optimizer)
    saved = optimizer.state_dict()
    asked = []

    class Elsewhere(torch.Tensor):
        """A count that remembers where it was asked to go."""

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.to:
                asked.append(args[1])
            result = super().__torch_function__(function, types, args, kwargs or {})
            return result.as_subclass(torch.Tensor) if function is torch.Tensor.to else result

    for state in saved["state"].values():
        state["step"] = state["step"].as_subclass(Elsewhere)
    optimizer.load_state_dict(saved)
    assert asked == ["cpu"] * 2
    assert {type(state["step"]) for state in optimizer.state.values()} == {torch.Tensor}


# Carrying -------------------------------------------------------------------------------------------------------------
def test_convert_pairs_by_name_or_refuses_an_order_that_is_the_groups() -> None:
    source, target = network(), network()
    dicts = [{"params": list(source.c.named_parameters("c"))}, {"params": list(source.a.named_parameters("a"))}]
    dicts.append({"params": list(source.b.named_parameters("b"))})
    one = ago.build(ago.Adam.keras(), dicts)
    train(source, one)
    target.load_state_dict(source.state_dict())
    two = ago.convert(one, "torch", target)
    train(source, one)
    train(target, two)
    assert same(weights(source), weights(target))
    nameless = torch.optim.Adam(
        [{"params": source.c.parameters()}, {"params": [*source.a.parameters(), *source.b.parameters()]}]
    )
    with pytest.raises(InvalidInput, match="several groups, whose order is not that of the model: give source="):
        ago.convert(nameless, "torch", target)
