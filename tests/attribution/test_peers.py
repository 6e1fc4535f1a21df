"""Maps against zennit's and captum's of the same network, as tests/golden/attribution.py wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import agnostic as ag
from agnostic.attribution.maps import enlarged
from tests.attribution.small_network import IMAGES, RANGE, network

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "attribution.json").read_text())["maps"]


@pytest.fixture(scope="module")
def model() -> Any:
    """The network, as it is given images in [0, 1]."""
    found = network()
    ag.set_card(found, {"range": list(RANGE)})
    return found


@pytest.mark.parametrize("method", sorted(GOLDEN))
def test_the_numbers_of_zennit_and_captum(model: Any, method: str) -> None:
    options: dict[str, Any] = {"integrated_gradients": {"steps": 16}, "occlusion": {"window": 4},
                               "grad_cam": {"layer": "8"}}.get(method, {})  # fmt: skip
    found = ag.explain(model, IMAGES, target=1, method=method, **options).maps
    right = np.asarray(GOLDEN[method])
    if method == "grad_cam":
        right = enlarged(right, (10, 10))
    # Theirs is float64, ours float32: four layers of at most 72 products, each error stretched by less than 10. The
    # stabilizer of 1e-6, which zennit adds to each mean of a pooling of about 0.1 as well, moves relevance by 1e-5.
    allowed = 4 * 72 * 2**-24 * 10 + (2e-5 if method.startswith("lrp") else 0)
    np.testing.assert_allclose(found, right, rtol=0, atol=allowed * np.abs(right).max())
