"""Writes attribution.json: maps of zennit and captum, which are no dependencies, for tests/attribution/test_peers.py.

pip install zennit captum && PYTHONPATH=. python tests/golden/attribution.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import captum.attr
import numpy as np
import torch
from torch import nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon, Gamma, Norm, Pass
from zennit.types import Activation, AvgPool, Convolution, Linear

from tests.attribution.small_network import IMAGES, RANGE, network

TARGET = 1


def main() -> None:
    """In float64; channels are summed, or their largest absolute value is taken."""
    model = network().double()
    low, high = RANGE
    x = torch.from_numpy(low + (high - low) * IMAGES.astype(np.float64)).permute(0, 3, 1, 2).contiguous()
    score = model(x).detach() * torch.eye(4, dtype=x.dtype)[[TARGET] * len(x)]
    sides = {"lrp": (Gamma(0.25), Epsilon(1e-6)), "lrp_epsilon": (Epsilon(1e-6), Epsilon(1e-6)),
             "lrp_gamma": (Gamma(0.25), Gamma(0.25))}  # fmt: skip
    maps = {}
    for name, (convolution, dense) in sides.items():
        rules = [(Activation, Pass()), (AvgPool, Norm()), (Convolution, convolution), (Linear, dense)]
        composite = LayerMapComposite(rules, canonizers=[SequentialMergeBatchNorm()])
        with Gradient(model=model, composite=composite) as attributor:
            maps[name] = attributor(x.clone(), score)[1].sum(1)
    gradients = captum.attr.IntegratedGradients(model)
    maps |= {
        "gradient": captum.attr.Saliency(model).attribute(x, TARGET).amax(1),
        "gradient_x_input": captum.attr.InputXGradient(model).attribute(x.requires_grad_(), TARGET).sum(1),
        "integrated_gradients": gradients.attribute(x, target=TARGET, n_steps=16, method="gausslegendre").sum(1),
        "guided_backpropagation": captum.attr.GuidedBackprop(model).attribute(x, TARGET).abs().amax(1),
        "grad_cam": captum.attr.LayerGradCam(model, model[8]).attribute(x, TARGET, relu_attributions=True)[:, 0],
        "occlusion": captum.attr.Occlusion(model).attribute(
            x, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2), target=TARGET
        )[:, 0],
    }
    assert isinstance(model[8], nn.ReLU)
    made_by = {name: version(name) for name in ("zennit", "captum", "torch")}
    found = {
        name: [[[float(f"{v:.10g}") for v in row] for row in one] for one in x.tolist()] for name, x in maps.items()
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps({"made by": made_by, "maps": found}) + "\n")


if __name__ == "__main__":
    main()
