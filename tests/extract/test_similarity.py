"""Similarity of representations, against the published formulas, written here as their authors have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.reference import similarity

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 7)), RNG.normal(size=(60, 5))
Z = X @ RNG.normal(size=(7, 9)) + 0.3 * RNG.normal(size=(60, 9)) + 2


def centered_gram(k: Any) -> Any:
    """As Kornblith et al.: H K H with H = I - 1/n."""
    h = np.eye(len(k)) - 1 / len(k)
    return h @ k @ h


def debiased_linear_cka(x: Any, y: Any) -> float:
    """The form in features of the authors' own code: of centred x (n, d) and y (n, e), no Gram matrix."""
    x, y = x - x.mean(0), y - y.mean(0)
    n = len(x)

    def helper(product: float, rows_x: Any, rows_y: Any, norm_x: float, norm_y: float) -> float:
        return product - n / (n - 2.0) * rows_x.dot(rows_y) + norm_x * norm_y / ((n - 1) * (n - 2))

    rows_x, rows_y = (x**2).sum(1), (y**2).sum(1)
    norm_x, norm_y = rows_x.sum(), rows_y.sum()
    top = helper(np.linalg.norm(x.T @ y) ** 2, rows_x, rows_y, norm_x, norm_y)
    left = helper(np.linalg.norm(x.T @ x) ** 2, rows_x, rows_x, norm_x, norm_x)
    right = helper(np.linalg.norm(y.T @ y) ** 2, rows_y, rows_y, norm_y, norm_y)
    return top / np.sqrt(left * right)


@pytest.mark.parametrize(("x", "y"), [(X, Y), (X, Z)])
def test_linear_cka(x: Any, y: Any) -> None:
    k, other = centered_gram(x @ x.T), centered_gram(y @ y.T)
    biased = (k * other).sum() / np.linalg.norm(k) / np.linalg.norm(other)
    assert similarity.cka(x, y, unbiased=False) == pytest.approx(biased, rel=1e-10)
    a, b = x - x.mean(0), y - y.mean(0)
    features = np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert similarity.cka(x, y, unbiased=False) == pytest.approx(features, rel=1e-10)
    assert similarity.cka(x, y) == pytest.approx(debiased_linear_cka(x, y), rel=1e-9)


def test_kernel_cka() -> None:
    def gram(x: Any) -> Any:
        distances = ((x[:, None] - x[None]) ** 2).sum(-1)
        median = np.sqrt(np.median(distances[np.triu_indices(len(x), 1)]))
        return np.exp(-distances / (2 * (0.8 * median) ** 2))

    k, other = centered_gram(gram(X)), centered_gram(gram(Z))
    expected = (k * other).sum() / np.linalg.norm(k) / np.linalg.norm(other)
    assert similarity.cka(X, Z, width=0.8, unbiased=False) == pytest.approx(expected, rel=1e-10)


def test_the_unbiased_criterion_is_the_mean_over_quadruples() -> None:
    # Song et al., equation 4: a U-statistic over four different samples; here all of 6.
    from itertools import permutations

    k, other = X[:6] @ X[:6].T, Y[:6] @ Y[:6].T
    terms = [k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in permutations(range(6), 4)]
    assert similarity.unbiased_hsic(k, other) == pytest.approx(np.mean(terms), rel=1e-10)


def test_the_numbers_of_published_implementations() -> None:
    # What their code gave in float64 for these arrays: representation_similarity of google-research ("cka", of Gram
    # matrices by gram_linear, and by gram_rbf of half the median distance, which counts samples with themselves);
    # torch_cka 0.21 (its _HSIC, summed over batches of 10 in order); cca_core of google/svcca after a singular value
    # decomposition, as its tutorial has it; orthogonal_procrustes_distance of moskomule/anatome.
    draw = np.random.RandomState(0)  # whose numbers NumPy does not change
    x = draw.normal(size=(50, 6))
    y = np.hstack([x @ draw.normal(size=(6, 5)), draw.normal(size=(50, 4))]) + 0.5 * draw.normal(size=(50, 9)) + 3
    close = {"rel": 1e-9, "abs": 0}
    assert similarity.cka(x, y, unbiased=False) == pytest.approx(0.6937938554318871, **close)
    assert similarity.cka(x, y) == pytest.approx(0.6661607703944273, **close)
    widths = [0.5 * np.sqrt(np.median(similarity.squared_distances(m))) for m in (x, y)]
    grams = [similarity.rbf_gram(m, width) for m, width in zip((x, y), widths, strict=True)]
    for hsic, expected in ((similarity.biased_hsic, 0.7680550034454974), (similarity.unbiased_hsic, 0.597433614979329)):
        norms = np.sqrt(hsic(grams[0], grams[0]) * hsic(grams[1], grams[1]))
        assert hsic(*grams) / norms == pytest.approx(expected, **close)
    batches = [[similarity.linear_gram(m[i : i + 10]) for m in (x, y)] for i in range(0, 50, 10)]
    xx, xy, yy = (sum(similarity.unbiased_hsic(k[i], k[j]) for k in batches) for i, j in ((0, 0), (0, 1), (1, 1)))
    assert xy / np.sqrt(xx * yy) == pytest.approx(0.7311307299504642, **close)
    assert similarity.svcca(x, y) == pytest.approx(0.7478653915775665, **close)
    assert similarity.svcca(x, y, kept=1.0) == pytest.approx(0.8205388923363377, **close)
    assert 1 - similarity.procrustes(x, y) == pytest.approx(0.24381907781484868, **close)


def test_unrelated_representations_are_not_alike() -> None:
    wide = [RNG.normal(size=(50, 200)) for _ in range(2)]
    assert similarity.cka(*wide, unbiased=False) > 0.7
    # The estimate's error is about 1 / sqrt(2 n (n - 3)) of each criterion over its own: far below 0.1.
    assert abs(similarity.cka(*wide)) < 0.1


def test_procrustes_and_svcca() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (m - m.mean(0) for m in (X, Z))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    padded = np.pad(a, ((0, 0), (0, 2)))
    rotation, _ = linalg.orthogonal_procrustes(padded, b)
    distance = np.linalg.norm(padded @ rotation - b) ** 2
    assert similarity.procrustes(X, Z) == pytest.approx(1 - distance / 2, rel=1e-10)
    few = slice(0, 4)
    whole = np.linalg.svd(_centred(X[few]).T @ _centred(Z[few]), compute_uv=False).sum()
    norms = np.linalg.norm(_centred(X[few])) * np.linalg.norm(_centred(Z[few]))
    assert similarity.procrustes(X[few], Z[few]) == pytest.approx(whole / norms, rel=1e-9)
    # Canonical correlations are the cosines of the angles between the subspaces.
    angles = linalg.subspace_angles(_centred(X), _centred(Y))
    assert similarity.svcca(X, Y, kept=1.0) == pytest.approx(np.cos(angles).mean(), rel=1e-9)
    noisy = np.hstack([X, 1e-3 * RNG.normal(size=(60, 20))])
    assert similarity.svcca(noisy, X) == pytest.approx(1, abs=1e-4)


def _centred(x: Any) -> Any:
    return x - x.mean(0)


def test_every_measure_knows_rotations() -> None:
    rotation = np.linalg.qr(RNG.normal(size=(7, 7)))[0]
    for measure in ("cka", "kernel_cka", "procrustes", "svcca"):
        found = ag.similar({"x": X}, {"turned": 3 * X @ rotation + 1, "other": Y}, measure=measure, batch=20)
        # Read as float32, so about 1e-7 of each number.
        assert found.values[0, 0] == pytest.approx(1, abs=1e-5)
        assert found.values[0, 1] < 0.6


def test_minibatches_are_averaged_by_the_criterion() -> None:
    order = np.random.default_rng(3).permutation(60)
    parts = [np.sort(part) for part in np.array_split(order, 3)]
    x, z = X.astype(np.float32).astype(float), Z.astype(np.float32).astype(float)

    def summed(a: Any, b: Any) -> float:
        return sum(similarity.unbiased_hsic(a[p] @ a[p].T, b[p] @ b[p].T) for p in parts)

    expected = summed(x, z) / np.sqrt(summed(x, x) * summed(z, z))
    assert ag.similar({"x": X}, {"z": Z}, batch=20, seed=3).values[0, 0] == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_compared_is_a_sentence() -> None:
    broken = np.where(np.arange(60)[:, None] == 7, np.nan, X)
    for measure in ("cka", "svcca"):
        with pytest.raises(ag.InvalidInput, match="layer 'x' has numbers that are not finite, first for sample 7"):
            ag.similar({"x": broken}, measure=measure)
    with pytest.raises(ag.InvalidInput, match="there is no array to compare"):
        ag.similar({})
    with pytest.raises(ag.InvalidInput, match="arrays to compare have real numbers, not 'x': <U1"):
        ag.similar({"x": np.full((9, 3), "x")})


def test_a_constant_layer_is_like_nothing() -> None:
    found = ag.similar({"x": X, "constant": np.ones((60, 3))}, batch=30)
    assert found.values[1].tolist() == [0, 0]


@pytest.mark.parametrize("measure", ["cka", "kernel_cka", "procrustes", "svcca"])
def test_too_few_samples_are_told(measure: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 20)), rng.normal(size=(4000, 20))
    few = ag.similar({"x": x[:6], "y": y[:6]}, measure=measure)
    assert few.chance > 0.1
    assert f"6 samples are few for {measure}: unrelated ones give about {few.chance:.2f} as well" in repr(few)
    assert few.picture().shape[0] > ag.similar({"x": x, "y": y}, measure="cka").picture().shape[0]
    many = ag.similar({"x": x, "y": y}, measure=measure, batch=1000)
    # The measure of unrelated samples, which y is to x: both are draws of one distribution over thousands of products.
    assert abs(many.chance - abs(many.values[0, 1])) < 0.05
    if measure != "procrustes":
        assert many.chance < 0.1
        assert many.remark == ""
        assert "few" not in repr(many)


# Stores --------------------------------------------------------------------------------------------------------------
IMAGES = np.random.default_rng(1).integers(0, 256, (40, 10, 10, 3), np.uint8)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    torch = pytest.importorskip("torch")
    pytest.importorskip("zarr")
    from torch import nn

    folder = tmp_path_factory.mktemp("stores")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)).eval()
    one = ag.extract(net, IMAGES, ["0", "1", "3"], folder / "one.zarr", reduce=["mean", "max"], batch_size=8, shard=16)
    net[3].weight.data *= -2
    other = ag.extract(net, IMAGES, ["0", "3"], folder / "other.zarr", reduce="mean", batch_size=8, shard=24)
    fewer = ag.extract(net, IMAGES[:20], ["0"], folder / "fewer.zarr", reduce="mean")
    return one, other, fewer


def test_layers_of_stores(stores: tuple[Any, Any, Any], tmp_path: Path) -> None:
    one, other, fewer = stores
    found = ag.similar(one, other.path, batch=20)
    assert (found.rows, found.columns, found.samples) == (("0", "1", "3"), ("0", "3"), 40)
    # The second layer was scaled, and its bias with it is the same: so only its mean differs in direction.
    assert found.values[0, 0] == pytest.approx(1, abs=1e-5)
    assert found.values[2, 1] == pytest.approx(1, abs=1e-5)
    direct = ag.similar({"0": np.asarray(one["0"]["mean"])}, {"3": np.asarray(other["3"]["mean"])}, batch=20)
    assert found.values[0, 1] == pytest.approx(direct.values[0, 0], abs=1e-6)
    assert ag.similar(one, other, samples=20).samples == 20
    with pytest.raises(ag.InvalidInput, match=r"are of other samples \(40 and 20\)"):
        ag.similar(one, fewer)
    with pytest.raises(ag.UnknownName, match="did you mean 'cka'"):
        ag.similar(one, measure="ckaa")
    found.save(tmp_path / "similar.png")
    from PIL import Image

    with Image.open(tmp_path / "similar.png") as picture:
        assert '"measure": "cka"' in picture.text["agnostic"]


@pytest.mark.parametrize("count", [3, 30])
def test_top_samples(stores: tuple[Any, Any, Any], count: int, tmp_path: Path) -> None:
    one = stores[0]
    found = ag.top(one, "0", channel=2, count=count)
    maxima = np.asarray(one["0"]["max"][:, 2])
    order = np.argsort(-maxima, kind="stable")[:count]
    assert found.positions.tolist() == order.tolist()
    assert found.names == tuple(map(str, order))
    np.testing.assert_array_equal(found.values, maxima[order])
    np.testing.assert_array_equal(found.places, one["0"]["max_place"][order][:, 2])
    assert found.shape == (8, 8)
    with pytest.raises(ag.InvalidInput, match="does not say where its data set is"):
        found.photos()
    photos = found.photos(IMAGES)
    assert len(photos) == count
    changed = (photos[0] != IMAGES[order[0]]).any(-1)
    row, column = ((found.places[0] + 0.5) * 10 / 8).astype(int)
    assert changed[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].any()
    assert changed.sum() <= 9
    found.save(tmp_path / "top.png", IMAGES)
    with pytest.raises(ag.InvalidInput, match="has 6 channels, counted from 0, and no 6"):
        ag.top(one, "0", channel=6)


def test_the_commands(stores: tuple[Any, Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agnostic.cli import main

    one, other, _ = stores
    assert main(["similar", one.path, other.path, "--out", str(tmp_path), "--batch", "20"]) == 0
    assert "one-other-cka.png" in capsys.readouterr().out
    assert (tmp_path / "one-other-cka.png").exists()
    assert main(["similar", one.path, "--out", str(tmp_path), "--batch", "20"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all(words[0] != words[1] for words in table[1:4])  # with another one, not with itself
    np.save(tmp_path / "images.npy", IMAGES)
    command = ["top", one.path, "--layer", "0", "--channel", "2", "--count", "3", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "does not say where its data set is" in capsys.readouterr().err
    assert main([*command, "--photos", str(tmp_path / "images.npy")]) == 0
    assert "the store keeps" not in capsys.readouterr().out
    assert main([*command, "--count", "50", "--photos", str(tmp_path / "images.npy")]) == 0
    assert "40 of 50 samples: the store keeps no more for this channel" in capsys.readouterr().out
    assert (tmp_path / "one-0-channel-2-top.png").exists()
    assert main(["top", str(tmp_path / "absent.zarr"), "--layer", "0", "--channel", "2"]) == 2
    assert "absent.zarr" in capsys.readouterr().err
