"""Measures of how alike two representations of the same samples are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]


def linear_gram(x: Array) -> Matrix:
    """(n, n) products of samples (n, d)."""
    wide = np.asarray(x, np.float64)
    found: Matrix = wide @ wide.T
    return found


def squared_distances(x: Array) -> Matrix:
    """(n, n) squared Euclidean distances of samples (n, d)."""
    products = linear_gram(x)
    norms = np.diag(products)
    found: Matrix = np.maximum(norms[:, None] + norms[None] - 2 * products, 0)
    return found


def rbf_gram(x: Array, width: float) -> Matrix:
    """(n, n) values of exp(-distance^2 / (2 width^2)) of samples (n, d)."""
    found: Matrix = np.exp(-squared_distances(x) / (2 * width**2))
    return found


def median_distance(x: Array) -> float:
    """The median of the distances between different samples (n, d): the usual unit of the width of a kernel."""
    distances = squared_distances(x)[np.triu_indices(len(x), 1)]
    return float(np.sqrt(np.median(distances)))


def unbiased_hsic(k: Matrix, other: Matrix) -> float:
    """The Hilbert-Schmidt independence criterion of two Gram matrices (n, n), estimated without bias; n is at least 4.

    Source: Song, Smola, Gretton, Bedo and Borgwardt, "Feature Selection via Dependence Maximization", JMLR 13, 2012,
    equation 5.
    """
    n = len(k)
    k, other = (m - np.diag(np.diag(m)) for m in (k, other))
    rows, others = k.sum(0), other.sum(0)
    middle = rows.sum() * others.sum() / ((n - 1) * (n - 2))
    return float(((k * other).sum() + middle - 2 * (rows @ others) / (n - 2)) / (n * (n - 3)))


def biased_hsic(k: Matrix, other: Matrix) -> float:
    """The criterion as the mean over centred Gram matrices, which is too high for few samples.

    Source: Gretton, Bousquet, Smola and Schoelkopf, "Measuring Statistical Dependence with Hilbert-Schmidt Norms",
    ALT 2005, equation 9.
    """
    n = len(k)
    centred = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    return float((centred * other).sum() / (n - 1) ** 2)


def cka(x: Array, y: Array, *, width: float | None = None, unbiased: bool = True) -> float:
    """Centred kernel alignment of two representations (n, d) and (n, e) of the same samples: 1 for the same up to
    rotation and scale, about 0 for unrelated ones.

    Args:
        x, y: the representations.
        width: of a Gaussian kernel, in median distances; None: the linear kernel.
        unbiased: whether the estimate is without the bias that many channels and few samples give it.

    Source: Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
    section 3; with the unbiased criterion, Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same
    Things?", ICLR 2021.
    """
    hsic = unbiased_hsic if unbiased else biased_hsic
    k, other = (linear_gram(m) if width is None else rbf_gram(m, width * median_distance(m)) for m in (x, y))
    return hsic(k, other) / float(np.sqrt(hsic(k, k) * hsic(other, other)))


def procrustes(x: Array, y: Array) -> float:
    """How much of one representation the best rotation of the other explains, from 0 to 1: 1 minus half the squared
    Procrustes distance, both centred and of norm 1.

    Args:
        x, y: (n, d) and (n, e) representations of the same samples.

    Source: Ding, Denain and Steinhardt, "Grounding Representation Similarity Through Statistical Testing", NeurIPS
    2021, section 2; the rotation is Schoenemann's, "A generalized solution of the orthogonal Procrustes problem", 1966.
    """
    a, b = (_centred(m) for m in (x, y))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.linalg.svd(_inner(a, b), compute_uv=False).sum() / norms)


def svcca(x: Array, y: Array, kept: float = 0.99) -> float:
    """The mean canonical correlation of the directions that explain most of the variance of each.

    Args:
        x, y: (n, d) and (n, e) representations of the same samples; n must exceed d and e by far.
        kept: the share of the variance that the directions explain.

    Source: Raghu, Gilmer, Yosinski and Sohl-Dickstein, "SVCCA: Singular Vector Canonical Correlation Analysis for Deep
    Learning Dynamics and Interpretability", NeurIPS 2017, section 2.
    """
    a, b = (_directions(_centred(m), kept) for m in (x, y))
    return float(np.linalg.svd(a.T @ b, compute_uv=False)[: min(a.shape[1], b.shape[1])].mean())


def _centred(x: Array) -> Matrix:
    wide = np.asarray(x, np.float64)
    found: Matrix = wide - wide.mean(0)
    return found


def _inner(a: Matrix, b: Matrix) -> Matrix:
    """A matrix with the singular values of a.T @ b, no larger than it must be."""
    if min(a.shape[1], b.shape[1]) <= len(a):
        return a.T @ b
    # a.T @ b = Q R S P with orthonormal columns in Q and rows in P.
    left, right = np.linalg.qr(a.T)[1], np.linalg.qr(b.T)[1]
    found: Matrix = left @ right.T
    return found


def _directions(centred: Matrix, kept: float) -> Matrix:
    """Orthonormal columns that span the directions of most variance."""
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(values**2) / max(float((values**2).sum()), np.finfo(float).tiny)
    found: Matrix = left[:, : int(np.searchsorted(share, kept)) + 1]
    return found
