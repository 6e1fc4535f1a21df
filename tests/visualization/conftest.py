"""Tiny networks with every kind of layer that an ascent treats in a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


class Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.act(self.one(x)))
        y += x
        return y


class Tiny(nn.Sequential):
    """One input channel up to five classes; its children run one after the other."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(6, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.dilated = nn.Conv2d(8, 8, 3, padding="same", dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(8, 5)


SPATIAL = ("stem", "act", "down", "norm", "relu", "dilated", "grouped", "mirrored", "block.two", "block")


def build(inputs: int = 3) -> Tiny:
    """The same network every time; inputs around 128 give it activations of order one, of either sign."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tiny(inputs)
        network.norm.running_mean.uniform_(-0.5, 0.5)
        network.norm.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            # Zero-sum filters see differences of pixels instead of the offset of 128 that all pixels share.
            network.stem.weight -= network.stem.weight.mean((1, 2, 3), keepdim=True)
            network.stem.weight *= 0.1
    return network.eval()


@pytest.fixture
def network() -> Tiny:
    """A tiny network, fresh."""
    return build()


@pytest.fixture
def make_network() -> Callable[..., Tiny]:
    """Makes tiny networks."""
    return build


@pytest.fixture
def up_to() -> Callable[[Tiny, str, torch.Tensor], torch.Tensor]:
    """What a layer of a tiny network returns, computed by calling one child after the other."""

    def run(network: Tiny, layer: str, x: torch.Tensor) -> torch.Tensor:
        for name, child in network.named_children():
            if layer == f"{name}.two":
                return child.two(child.act(child.one(x)))
            x = child(x)
            if name == layer:
                return x
        raise AssertionError(layer)

    return run


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks as tiny as these only wait for a second thread, the longer the busier the machine is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
