"""Specifications: what an optimizer computes, with all conventions in which frameworks differ.

A specification is a value. :func:`agnostic.optimizers.build` makes a native optimizer of it; ``Adam.torch()`` and
``Adam.keras()`` give what ``torch.optim.Adam`` and ``keras.optimizers.Adam`` compute by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from agnostic import display
from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.optimizers.ranges import AT_LEAST_0, COUNT, DECAY, POSITIVE, SHARE, Range

Framework = Literal["torch", "keras"]

# Of fields by their names, where the class says nothing else.
_RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("beta_1", "beta_2", "rho"), DECAY),
    **dict.fromkeys(("momentum", "dampening", "ema_momentum"), SHARE),
    **dict.fromkeys(("learning_rate", "weight_decay", "epsilon", "epsilon_1", "epsilon_2"), AT_LEAST_0),
    **dict.fromkeys(("initial_accumulator", "lr_decay", "momentum_decay"), AT_LEAST_0),
    **dict.fromkeys(("clip_value", "clip_norm", "clip_global_norm", "clip_threshold"), POSITIVE),
    **dict.fromkeys(("accumulate", "ema_overwrite"), COUNT),
    "beta_2_decay": Range(high=0),
    "steps": Range(1, 99, whole=True),
}
_OPTIONAL = frozenset({"clip_value", "clip_norm", "clip_global_norm", "ema_momentum", "ema_overwrite", "epsilon_1"})

S = TypeVar("S", bound="Spec")

TERMS: Mapping[str, str] = {
    "convention": "what the momentum buffer holds: the gradients (torch), or steps that include the learning rate "
    "(keras: downhill, classical: uphill)",
    "dampening": "the share of the gradient that the momentum buffer leaves out",
    "epsilon_place": "where epsilon is added",
    "epsilon": "epsilon",
    "epsilon_1": "an epsilon that depends on the parameters' type",
    "decay": "weight decay added to the gradient (coupled), taken from the weights by learning_rate * weight_decay "
    "(decoupled), or inside the trust ratio (ratio)",
    "lr_decay": "the decay of the learning rate inside the rule",
    "momentum_decay": "how fast the momentum schedule of NAdam approaches beta_1",
    "product_dtype": "the type in which NAdam's product of momenta is kept",
    "iteration_dtype": "the type in which Muon's Newton-Schulz iteration runs",
    "scale": "how Muon's step depends on the shape of the matrix",
    "momentum_form": "whether Muon's buffer is an average or a sum",
    "clip": "clipping of gradients",
    "clip_threshold": "a maximum step of less than 1",
    "ema_momentum": "the moving average of the weights",
    "accumulate": "accumulation of gradients over several calls",
}
"""What each convention means, for errors and the field guide."""


@dataclass(frozen=True)
class Native:
    """What one framework's own optimizer of a kind can express.

    Attributes:
        name: its class, such as ``"Adam"``.
        defaults: the framework's default of each field that differs from the specification's.
        fixed: the conventions that it cannot change, with the values it can have.
    """

    name: str
    defaults: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, repr=False)
class Spec:
    """The settings that every optimizer has.

    Attributes:
        learning_rate: 0 or more. A Keras ``LearningRateSchedule`` is taken by the Keras backend; PyTorch's schedulers
            are put on the built optimizer.
        weight_decay: 0 or more.
        decay: "coupled": ``g + weight_decay * p`` replaces the gradient. "decoupled": the weights are multiplied
            by ``1 - learning_rate * weight_decay`` first.
        clip_value: each element of the gradient is clipped to [-clip_value, clip_value].
        clip_norm: the gradient of each parameter is scaled down to this L2 norm.
        clip_global_norm: all gradients together are scaled down to this L2 norm. At most one of the three is given.
        clip_convention: "torch" scales by ``min(1, c / (norm + 1e-6))``, "keras" by ``c / max(norm, c)``.
        ema_momentum: keep a moving average of the weights, ``m * average + (1 - m) * p`` after each step, which starts
            as a copy of the weights after the first step.
        ema_overwrite: replace the weights by the average every so many steps; None: never.
        accumulate: average the gradients of so many calls per step.

    Example:
        >>> isinstance(ag.optimizers.SGD(0.1), ag.optimizers.Spec)
        True
    """

    learning_rate: Any
    _: KW_ONLY
    weight_decay: float = 0.0
    decay: str = "coupled"
    clip_value: float | None = None
    clip_norm: float | None = None
    clip_global_norm: float | None = None
    clip_convention: Literal["torch", "keras"] = "torch"
    ema_momentum: float | None = None
    ema_overwrite: int | None = None
    accumulate: int = 1

    natives: ClassVar[Mapping[str, Native]] = {}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"decay": ("coupled", "decoupled")}
    ranges: ClassVar[Mapping[str, Range]] = {}
    switches: ClassVar[frozenset[str]] = frozenset({"nesterov", "centered", "amsgrad"})

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name, allowed in {**Spec.choices, "clip_convention": ("torch", "keras"), **self.choices}.items():
            if getattr(self, name) not in allowed:
                given = getattr(self, name)
                hint = nearest(str(given), map(str, allowed))
                raise InvalidInput(f"{kind}: {name} is one of {', '.join(map(repr, allowed))}, not {given!r}{hint}")
        for field in dataclasses.fields(self):
            self._check(field.name)
        clips = [n for n in ("clip_value", "clip_norm", "clip_global_norm") if getattr(self, n) is not None]
        if len(clips) > 1:
            raise InvalidInput(f"{kind}: {' and '.join(clips)} exclude each other; give one of them")
        if self.ema_overwrite is not None and self.ema_momentum is None:
            raise InvalidInput(f"{kind}: ema_overwrite needs ema_momentum")

    def _check(self, name: str) -> None:
        """Refuse an invalid number; NumPy numbers become Python numbers."""
        value, kind = getattr(self, name), type(self).__name__
        if name in self.switches:
            if not isinstance(value, bool | np.bool_):
                raise InvalidInput(f"{kind}: {name} is True or False, not {value!r}")
            object.__setattr__(self, name, bool(value))
            return
        allowed = {**_RANGES, **self.ranges}.get(name)
        if allowed is None or (value is None and name in _OPTIONAL) or (name == "learning_rate" and callable(value)):
            return
        # A NumPy array of one number is one, as people read rates from files.
        number = value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
        if number not in allowed:
            schedule = ", or a schedule" if name == "learning_rate" else ""
            none = ", or None" if name in _OPTIONAL else ""
            raise InvalidInput(f"{kind}: {name} must be {allowed}{schedule}{none}, not {value!r}")
        object.__setattr__(self, name, number)

    def __repr__(self) -> str:
        return display.changed(self)

    @classmethod
    def torch(cls: type[S], **options: Any) -> S:
        """What PyTorch's optimizer of this kind computes by default; ``options`` replace single fields.

        Args:
            **options: fields by name, in place of the defaults.

        Returns:
            A specification of this kind.

        Raises:
            InvalidInput: PyTorch has no such optimizer.

        Example:
            >>> ag.optimizers.Adam.torch(learning_rate=0.1).epsilon
            1e-08
        """
        return cls._preset("torch", options)

    @classmethod
    def keras(cls: type[S], **options: Any) -> S:
        """What Keras' optimizer of this kind computes by default; ``options`` replace single fields.

        Args:
            **options: fields by name, in place of the defaults.

        Returns:
            A specification of this kind.

        Raises:
            InvalidInput: Keras has no such optimizer.

        Example:
            >>> ag.optimizers.Adam.keras(learning_rate=0.1).epsilon
            1e-07
        """
        return cls._preset("keras", options)

    @classmethod
    def _preset(cls: type[S], framework: Framework, options: Mapping[str, Any]) -> S:
        if framework not in cls.natives:
            raise InvalidInput(
                f"{TITLES[framework]} has no {cls.__name__}; {cls.__name__}(...) builds our own class there"
            )
        native = cls.natives[framework]
        fixed = {name: values[0] for name, values in native.fixed.items()}
        return make(cls, {"clip_convention": framework, **fixed, **native.defaults, **options})


TITLES: Mapping[str, str] = {"torch": "PyTorch", "keras": "Keras"}
"""The frameworks that conventions are named after, in sentences."""


def make(cls: type[S], options: Mapping[str, Any]) -> S:
    """``cls(**options)``, with an error that names the nearest field.

    Raises:
        UnknownName: there is no such field.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    for name in options:
        if name not in known:
            raise UnknownName(f"{cls.__name__} has no {name!r}{nearest(name, known) or '; it has ' + ', '.join(known)}")
    return cls(**options)


def replace(spec: S, options: Mapping[str, Any]) -> S:
    """``dataclasses.replace``, with an error that names the nearest field.

    Raises:
        UnknownName: there is no such field.
    """
    return make(type(spec), {**as_dict(spec), **options})


def as_dict(spec: Spec) -> dict[str, Any]:
    """The fields by name, not copied."""
    return {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}


_MOMENTA = ("torch", "keras", "classical")
_DECOUPLED = {"decay": ("decoupled",)}
_COUPLED = {"decay": ("coupled",)}
_BOTH = {"decay": ("coupled", "decoupled")}


@dataclass(frozen=True, repr=False)
class SGD(Spec):
    """Gradient descent, with momentum or without.

    Attributes:
        momentum: in [0, 1].
        nesterov: look ahead by one step of the momentum.
        dampening: the buffer takes ``(1 - dampening) * g``, except at the first step.
        convention: "torch": ``v = m v + g; p -= lr v``. "keras": ``v = m v - lr g; p += v``. "classical":
            ``v = m v + lr g; p -= v``. Equal while the learning rate is constant; when it changes, torch applies the
            new rate to all past gradients, the others leave each gradient its own.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    Example:
        >>> spec = ag.optimizers.SGD(0.1, momentum=0.9)
        >>> spec
        SGD(learning_rate=0.1, momentum=0.9)
        >>> _ = ag.optimizers.build(spec, model)
    """

    momentum: float = 0.0
    nesterov: bool = False
    convention: Literal["torch", "keras", "classical"] = "torch"
    _: KW_ONLY
    dampening: float = 0.0

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"convention": _MOMENTA}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("SGD", {"learning_rate": 1e-3}, {"convention": ("torch",), **_COUPLED}),
        "keras": Native("SGD", {"learning_rate": 0.01}, {"convention": ("keras",), "dampening": (0.0,), **_DECOUPLED}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise InvalidInput("SGD: nesterov needs a momentum greater than 0, and a dampening of 0")


@dataclass(frozen=True, repr=False)
class RMSprop(Spec):
    """Gradients divided by the root of their mean square.

    Attributes:
        rho: decay of the mean square; PyTorch calls it alpha.
        epsilon_place: "outside" the root, ``sqrt(v) + epsilon``, or "inside", ``sqrt(v + epsilon)``.
        centered: subtract the square of the mean gradient.
        convention: of the momentum buffer, as in :class:`SGD`.
        momentum: in [0, 1], of the divided gradients.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.

    Source: Tieleman, Hinton, "Lecture 6.5: rmsprop", 2012.

    Example:
        >>> spec = ag.optimizers.RMSprop(0.01, rho=0.95)
        >>> spec
        RMSprop(learning_rate=0.01, rho=0.95)
        >>> _ = ag.optimizers.build(spec, model)
    """

    rho: float = 0.99
    momentum: float = 0.0
    epsilon: float = 1e-8
    centered: bool = False
    convention: Literal["torch", "keras", "classical"] = "torch"
    _: KW_ONLY
    epsilon_place: Literal["outside", "inside"] = "outside"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "convention": _MOMENTA,
        "epsilon_place": ("outside", "inside"),
    }
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native(
            "RMSprop", {"learning_rate": 0.01}, {"convention": ("torch",), "epsilon_place": ("outside",), **_COUPLED}
        ),
        "keras": Native(
            "RMSprop",
            {"learning_rate": 1e-3, "rho": 0.9, "epsilon": 1e-7},
            {"convention": ("classical",), "epsilon_place": ("inside",), **_DECOUPLED},
        ),
    }


@dataclass(frozen=True, repr=False)
class Adagrad(Spec):
    """Gradients divided by the root of the sum of their squares.

    Attributes:
        initial_accumulator: what the sum starts with.
        epsilon_place: "outside" the root, ``sqrt(v) + epsilon``, or "inside", ``sqrt(v + epsilon)``.
        lr_decay: the learning rate is divided by ``1 + (t - 1) * lr_decay``.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", 2011.

    Example:
        >>> spec = ag.optimizers.Adagrad(0.01)
        >>> spec
        Adagrad(learning_rate=0.01)
        >>> _ = ag.optimizers.build(spec, model)
    """

    initial_accumulator: float = 0.0
    epsilon: float = 1e-10
    _: KW_ONLY
    lr_decay: float = 0.0
    epsilon_place: Literal["outside", "inside"] = "outside"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"epsilon_place": ("outside", "inside")}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("Adagrad", {"learning_rate": 0.01}, {"epsilon_place": ("outside",), **_COUPLED}),
        "keras": Native(
            "Adagrad",
            {"learning_rate": 1e-3, "initial_accumulator": 0.1, "epsilon": 1e-7},
            {"epsilon_place": ("inside",), "lr_decay": (0.0,), **_DECOUPLED},
        ),
    }


@dataclass(frozen=True, repr=False)
class Adadelta(Spec):
    """Steps in the parameters' own unit; both frameworks compute the same, with other defaults.

    Attributes:
        rho: in [0, 1), how much of the two averages of squares a step keeps.
        epsilon: greater than 0: without it the first step, and so every other, is 0.

    Source: Zeiler, "ADADELTA", 2012, algorithm 1.

    Example:
        >>> spec = ag.optimizers.Adadelta(1.0)
        >>> spec
        Adadelta(learning_rate=1.0)
        >>> _ = ag.optimizers.build(spec, model)
    """

    rho: float = 0.9
    epsilon: float = 1e-6

    ranges: ClassVar[Mapping[str, Range]] = {"epsilon": POSITIVE}

    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("Adadelta", {"learning_rate": 1.0}, _COUPLED),
        "keras": Native("Adadelta", {"learning_rate": 1e-3, "rho": 0.95, "epsilon": 1e-7}, _DECOUPLED),
    }


_AFTER, _BEFORE = "after correction", "before correction"


@dataclass(frozen=True, repr=False)
class Adam(Spec):
    """Mean gradient over the root of the mean square, both corrected for their start at zero.

    Attributes:
        beta_1, beta_2: in [0, 1), how much of the average gradient, and of its average square, a step keeps.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.
        epsilon_place: "after correction": ``m_hat / (sqrt(v / (1 - beta_2^t)) + epsilon)``. "before correction":
            ``m_hat * sqrt(1 - beta_2^t) / (sqrt(v) + epsilon)``, which is the former with
            ``epsilon / sqrt(1 - beta_2^t)``.
        amsgrad: the mean square never shrinks.

    Source: Kingma, Ba, "Adam", 2015, algorithm 1, and the end of section 2 for "before correction".

    Example:
        >>> spec = ag.optimizers.Adam(1e-3, beta_1=0.8)
        >>> spec
        Adam(learning_rate=0.001, beta_1=0.8)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False
    _: KW_ONLY
    epsilon_place: Literal["after correction", "before correction"] = "after correction"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"epsilon_place": (_AFTER, _BEFORE)}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("Adam", {"learning_rate": 1e-3}, {"epsilon_place": (_AFTER,), **_BOTH}),
        "keras": Native("Adam", {"learning_rate": 1e-3, "epsilon": 1e-7}, {"epsilon_place": (_BEFORE,), **_DECOUPLED}),
    }


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019.

    Example:
        >>> spec = ag.optimizers.AdamW(1e-3, weight_decay=0.1)
        >>> spec
        AdamW(learning_rate=0.001, weight_decay=0.1)
        >>> _ = ag.optimizers.build(spec, model)
    """

    _: KW_ONLY
    weight_decay: float = 0.01
    decay: str = "decoupled"

    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("AdamW", {"learning_rate": 1e-3}, {"epsilon_place": (_AFTER,), **_DECOUPLED}),
        "keras": Native(
            "AdamW",
            {"learning_rate": 1e-3, "epsilon": 1e-7, "weight_decay": 0.004},
            {"epsilon_place": (_BEFORE,), **_DECOUPLED},
        ),
    }


@dataclass(frozen=True, repr=False)
class Adamax(Spec):
    """Adam with the largest gradient, slowly forgotten, in place of the mean square.

    Attributes:
        beta_1, beta_2: in [0, 1), how much of the average gradient, and of its greatest magnitude, a step keeps.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.
        epsilon_place: "inside" the maximum, ``u = max(beta_2 u, |g| + epsilon)``, or "outside", ``u + epsilon``.

    Source: Kingma, Ba, "Adam", 2015, algorithm 2.

    Example:
        >>> spec = ag.optimizers.Adamax(1e-3)
        >>> spec
        Adamax(learning_rate=0.001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    _: KW_ONLY
    epsilon_place: Literal["inside", "outside"] = "inside"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"epsilon_place": ("inside", "outside")}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("Adamax", {"learning_rate": 2e-3}, {"epsilon_place": ("inside",), **_COUPLED}),
        "keras": Native(
            "Adamax", {"learning_rate": 1e-3, "epsilon": 1e-7}, {"epsilon_place": ("outside",), **_DECOUPLED}
        ),
    }


@dataclass(frozen=True, repr=False)
class NAdam(Spec):
    """Adam with Nesterov momentum, whose momentum grows: ``beta_1 * (1 - 0.96 ** (t * momentum_decay) / 2)``.

    Attributes:
        beta_1, beta_2: in [0, 1), how much of the average gradient, and of its average square, a step keeps.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.
        momentum_decay: 0.004 in PyTorch and in the paper, 1 in Keras.
        product_dtype: the product of all momenta so far is kept in "float32" (PyTorch, whatever the parameters) or in
            the "parameter"'s type.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", 2016.

    Example:
        >>> spec = ag.optimizers.NAdam(1e-3)
        >>> spec
        NAdam(learning_rate=0.001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 0.004
    _: KW_ONLY
    product_dtype: Literal["float32", "parameter"] = "parameter"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"product_dtype": ("float32", "parameter")}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("NAdam", {"learning_rate": 2e-3}, {"product_dtype": ("float32",), **_BOTH}),
        "keras": Native(
            "Nadam",
            {"learning_rate": 1e-3, "epsilon": 1e-7},
            {"product_dtype": ("parameter",), "momentum_decay": (1.0,), **_DECOUPLED},
        ),
    }


@dataclass(frozen=True, repr=False)
class RAdam(Spec):
    """Adam whose first steps, while the mean square is too uncertain, go without it.

    Epsilon is added before the bias correction, as in PyTorch.

    Attributes:
        beta_1, beta_2: in [0, 1), how much of the average gradient, and of its average square, a step keeps.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, algorithm 2, with the
    threshold of 5 of its authors' code in place of 4.

    Example:
        >>> spec = ag.optimizers.RAdam(1e-3)
        >>> spec
        RAdam(learning_rate=0.001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    natives: ClassVar[Mapping[str, Native]] = {"torch": Native("RAdam", {"learning_rate": 1e-3}, _BOTH)}


@dataclass(frozen=True, repr=False)
class Lion(Spec):
    """The sign of a mix of gradient and momentum.

    Attributes:
        beta_1, beta_2: in [0, 1): the step mixes the average gradient by beta_1, the average is updated by beta_2.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, program 1.

    Example:
        >>> spec = ag.optimizers.Lion(1e-4)
        >>> spec
        Lion(learning_rate=0.0001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.99
    _: KW_ONLY
    decay: str = "decoupled"

    natives: ClassVar[Mapping[str, Native]] = {"keras": Native("Lion", {"learning_rate": 1e-3}, _DECOUPLED)}


@dataclass(frozen=True, repr=False)
class Adafactor(Spec):
    """Adam's mean square, kept as one number per row and one per column of the last two axes.

    The learning rate is at most ``1 / sqrt(t)``, in Keras whatever its ``relative_step`` says.

    The factors depend on the layout of the weights: a convolution's are over (H, W) in PyTorch's OIHW and over (I, O)
    in Keras' HWIO. For matrices the two layouts give the same.

    Attributes:
        beta_2_decay: the mean square forgets by ``t ** beta_2_decay``; 0 or less.
        epsilon_1: of the gradients' squares (see ``epsilon_place``); None: the machine epsilon of the parameter's type.
        epsilon_2: the least root mean square that is assumed of a parameter.
        clip_threshold: the most root mean square that a step has, greater than 0; PyTorch's class takes 1 or more.
        epsilon_place: "floor": the squared root mean is at least ``epsilon_1 ** 2`` and the row mean at least
            ``epsilon_1``, and the size of the parameters is taken before the weights decay (PyTorch). "added":
            ``g ** 2 + epsilon_1``, and after (Keras).

    Source: Shazeer, Stern, "Adafactor", 2018, algorithm 4.

    Example:
        >>> spec = ag.optimizers.Adafactor(1e-3)
        >>> spec
        Adafactor(learning_rate=0.001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_2_decay: float = -0.8
    epsilon_1: float | None = None
    epsilon_2: float = 1e-3
    clip_threshold: float = 1.0
    _: KW_ONLY
    decay: str = "decoupled"
    epsilon_place: Literal["floor", "added"] = "floor"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"epsilon_place": ("floor", "added")}
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native("Adafactor", {"learning_rate": 0.01}, {"epsilon_place": ("floor",), **_DECOUPLED}),
        "keras": Native(
            "Adafactor", {"learning_rate": 1e-3, "epsilon_1": 1e-30}, {"epsilon_place": ("added",), **_DECOUPLED}
        ),
    }


@dataclass(frozen=True, repr=False)
class LAMB(Spec):
    """Adam's step, scaled for each parameter to the size of that parameter.

    Attributes:
        beta_1, beta_2: in [0, 1), how much of the average gradient, and of its average square, a step keeps.
        epsilon: 0 or more, added to what the step is divided by. At 0, a weight whose gradients have all been 0 becomes
            NaN (0 / 0), as in PyTorch and Keras.
        decay: as in :class:`Spec`, or "ratio" as in the paper: the weights are added to the step before it is scaled.

    Source: You et al., "Large Batch Optimization for Deep Learning", 2020, algorithm 2. Keras decays outside the ratio.

    Example:
        >>> spec = ag.optimizers.LAMB(1e-3)
        >>> spec
        LAMB(learning_rate=0.001)
        >>> _ = ag.optimizers.build(spec, model)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    _: KW_ONLY
    decay: str = "ratio"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"decay": ("coupled", "decoupled", "ratio")}
    natives: ClassVar[Mapping[str, Native]] = {
        "keras": Native("Lamb", {"learning_rate": 1e-3, "epsilon": 1e-7}, _DECOUPLED)
    }


@dataclass(frozen=True, repr=False)
class Muon(Spec):
    """Momentum made orthogonal, for matrices; other parameters need a group with another rule.

    Attributes:
        momentum: in [0, 1], of the gradients.
        nesterov: look ahead by one step of the momentum.
        epsilon_place: see :class:`Adam`, of the parameters that Adam moves.
        coefficients: of the quintic Newton-Schulz iteration.
        steps: of that iteration.
        epsilon: the norm that the momentum is divided by is at least this ("floor"), or has this added ("added").
        momentum_form: "mean": ``v = m v + (1 - m) g``. "sum": ``v = m v + g``. Only epsilon sees the difference.
        scale: "original": ``sqrt(max(1, outputs / inputs))``. "match_rms_adamw": ``0.2 sqrt(max(outputs, inputs))``.
            "none": 1.
        iteration_dtype: "bfloat16" (PyTorch) or the "parameter"'s type (Keras).

    Source: Jordan et al., "Muon", 2024; Liu et al., "Muon is Scalable for LLM Training", 2025, for "match_rms_adamw".

    Example:
        >>> spec = ag.optimizers.Muon(0.02)
        >>> spec
        Muon(learning_rate=0.02)
        >>> _ = ag.optimizers.build(spec, model)
    """

    momentum: float = 0.95
    nesterov: bool = True
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    steps: int = 5
    epsilon: float = 1e-7
    _: KW_ONLY
    weight_decay: float = 0.1
    decay: str = "decoupled"
    epsilon_place: Literal["floor", "added"] = "floor"
    momentum_form: Literal["mean", "sum"] = "mean"
    scale: Literal["original", "match_rms_adamw", "none"] = "original"
    iteration_dtype: Literal["bfloat16", "parameter"] = "parameter"

    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "epsilon_place": ("floor", "added"),
        "momentum_form": ("mean", "sum"),
        "scale": ("original", "match_rms_adamw", "none"),
        "iteration_dtype": ("bfloat16", "parameter"),
    }
    natives: ClassVar[Mapping[str, Native]] = {
        "torch": Native(
            "Muon",
            {"learning_rate": 1e-3},
            {
                "epsilon_place": ("floor",),
                "momentum_form": ("mean",),
                "iteration_dtype": ("bfloat16",),
                "scale": ("original", "match_rms_adamw"),
                **_DECOUPLED,
            },
        ),
        "keras": Native(
            "Muon",
            {"learning_rate": 1e-3, "weight_decay": 0.004},
            {
                "epsilon_place": ("added",),
                "momentum_form": ("sum",),
                "iteration_dtype": ("parameter",),
                "scale": ("match_rms_adamw", "none"),
                "epsilon": (1e-7,),
                **_DECOUPLED,
            },
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.coefficients
        if not (isinstance(given, tuple | list) and len(given) == 3 and all(x in Range() for x in given)):
            raise InvalidInput(f"Muon: coefficients are three finite numbers, not {given!r}")
        object.__setattr__(self, "coefficients", tuple(given))
        if self.momentum == 1 and self.momentum_form == "mean":
            raise InvalidInput("Muon: with momentum_form='mean', momentum must be a number in [0, 1), not 1")


KINDS: Mapping[str, type[Spec]] = {
    cls.__name__: cls
    for cls in (SGD, RMSprop, Adagrad, Adadelta, Adam, AdamW, Adamax, NAdam, RAdam, Lion, Adafactor, LAMB, Muon)
}
"""Every specification by name."""


def without_effect(spec: Spec) -> frozenset[str]:
    """The conventions that change nothing with these hyperparameters: the form of a momentum of 0, and the like."""
    idle = set()
    if getattr(spec, "momentum", 1) == 0:
        idle |= {"convention", "dampening"}
    if getattr(spec, "epsilon", 1) == 0:
        idle |= {"epsilon_place"}
    if spec.weight_decay == 0:
        idle |= {"decay"}
    return frozenset(idle)


def obstacles(spec: Spec, framework: str) -> tuple[str, ...]:
    """What keeps a framework's own optimizer from computing this exactly: names of fields, or ``"class"``.

    Empty: the native optimizer is exact.
    """
    native = spec.natives.get(framework)
    if native is None:
        return ("class",)
    idle = without_effect(spec)
    found = [name for name, allowed in native.fixed.items() if name not in idle and getattr(spec, name) not in allowed]
    clips = (spec.clip_value, spec.clip_norm, spec.clip_global_norm)
    if framework == "torch":
        # torch.optim has none of the three: clipping is a function there, the others are the loop's business.
        found += ["clip"] * any(c is not None for c in clips)
        found += ["ema_momentum"] * (spec.ema_momentum is not None)
        found += ["accumulate"] * (spec.accumulate > 1)
        found += ["clip_threshold"] * (getattr(spec, "clip_threshold", 1.0) < 1)
    else:
        found += ["clip"] * (any(c is not None for c in clips[1:]) and spec.clip_convention != framework)
        found += ["epsilon_1"] * (getattr(spec, "epsilon_1", 0.0) is None)
    return tuple(found)
