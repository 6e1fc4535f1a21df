"""agnostic.sklearn.Taps is an estimator of scikit-learn: by its own checks, and in a pipeline."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

nn = torch.nn
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)


class Rows(nn.Module):
    """Takes rows of any length, as the checks of scikit-learn give them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.twice = nn.AdaptiveAvgPool1d(3), nn.Identity()

    def forward(self, x: Any) -> Any:
        return self.twice(self.twice(self.pool(x)))


def network() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()


def test_the_checks_of_scikit_learn_pass() -> None:
    results = check_estimator(ag.sklearn.Taps(Rows(), "pool", reduce=None), on_skip=None)
    assert [x["check_name"] for x in results if x["status"] == "failed"] == []
    assert sum(x["status"] == "passed" for x in results) > 30


def test_features_are_what_the_layer_returns() -> None:
    model = network()
    outputs = ag.capture(model, ag.prepare(model, IMAGES), "0").numpy()["0"]
    # Another batch size may round otherwise: sums of 27 products, and of 36 positions.
    for reduce, expected in (
        ("mean", outputs.mean((2, 3))),
        ("max", outputs.max((2, 3))),
        (None, outputs.reshape(9, -1)),
    ):
        taps = ag.sklearn.Taps(model, "0", reduce=reduce, batch_size=4)
        np.testing.assert_allclose(taps.fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)
    for given in (list(IMAGES), torch.from_numpy(IMAGES)):
        np.testing.assert_array_equal(taps.transform(given), taps.transform(IMAGES))
    rows = IMAGES.reshape(9, -1)
    taps = ag.sklearn.Taps(model, "0", shape=(8, 8, 3)).fit(rows)
    np.testing.assert_allclose(taps.transform(rows), outputs.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert taps.get_feature_names_out().tolist() == ["taps0", "taps1", "taps2", "taps3"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(taps)).transform(rows), taps.transform(rows))


def test_what_costs_is_done_once_by_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import agnostic.sklearn as module

    made: list[int] = []
    real = module.preparation, module.forward_of
    monkeypatch.setattr(module, "preparation", lambda *args, **options: made.append(0) or real[0](*args, **options))
    monkeypatch.setattr(module, "forward_of", lambda *args: made.append(1) or real[1](*args))
    taps = ag.sklearn.Taps(network(), "0", batch_size=2).fit(IMAGES)
    first = taps.transform(IMAGES)
    np.testing.assert_array_equal(taps.transform(IMAGES), first)
    assert made == [0, 1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(taps)).transform(IMAGES), first)
    assert made == [0, 1, 1]


def test_a_pipeline_with_a_search() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(ag.sklearn.Taps(network(), "0"), LogisticRegression())
    search = GridSearchCV(pipeline, {"taps__layer": ["0", "1"]}, cv=2).fit(IMAGES, np.arange(9) % 2)
    assert search.best_params_["taps__layer"] in ("0", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "9"}, "no layer '9'"),
        ({"layer": "0", "reduce": "maen"}, "did you mean 'mean'"),
        ({"layer": "0", "batch_size": 0}, "batch_size must be an integer of 1 or more"),
        ({"layer": "0", "shape": (4, 4)}, r"rows of 192 numbers are no images of the shape \(4, 4\)"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ag.AgnosticError, match=message):
        ag.sklearn.Taps(network(), **arguments).fit(IMAGES.reshape(9, -1) if "shape" in arguments else IMAGES)


def test_a_layer_that_gives_no_features_is_a_sentence() -> None:
    with pytest.raises(ag.InvalidInput, match="layer 'twice' gives no features: it runs 2 times"):
        ag.sklearn.Taps(Rows(), "twice", reduce=None).fit(np.ones((2, 6)))
    taps = ag.sklearn.Taps(network(), "0").fit(IMAGES)
    with pytest.raises(ag.InvalidInput, match=r"the shape \(7, 8, 3\), and \(8, 8, 3\) those that fit saw"):
        taps.transform(IMAGES[:, :7])
