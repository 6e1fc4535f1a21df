"""The float64 reference against SciPy, and the algebra of matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agnostic.augmentation import geometry
from agnostic.augmentation.warp import AGREEMENT, opencv_agrees, warp
from agnostic.errors import InvalidInput
from agnostic.reference import warp as reference

ndimage = pytest.importorskip("scipy.ndimage")

# Four products and three additions of values up to 255, in another order for folded positions: a few hundred
# roundings of 2^-53 relative, and positions up to 1000 whose rounding of 1000 * 2^-53 moves the value 255 times as far.
FLOAT64 = 255 * 1000 * 2.0**-53 * 8


def scipy_warp(image, matrix, **options):
    channels = [
        ndimage.affine_transform(image[..., k], matrix[:, :2], matrix[:, 2], **options) for k in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def flipped(matrix, shape, horizontal, vertical):
    """The matrix whose output is the flipped output of the given one."""
    result = matrix.copy()
    for axis, flip in ((0, vertical), (1, horizontal)):
        if flip:
            result[:, 2] += result[:, axis] * (shape[axis] - 1)
            result[:, axis] *= -1
    return result


def compose(first, second):
    """The matrix of warping by ``first`` and the result by ``second``: one map for two."""
    linear = first[:, :2] @ second[:, :2]
    return np.concatenate([linear, first[:, :2] @ second[:, 2:] + first[:, 2:]], axis=1)


def matrices(half_steps: bool):
    """Matrices with half-way positions on purpose, or of any reals."""
    if half_steps:
        part, shift = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), st.integers(-40, 40).map(lambda k: k / 2)
    else:
        part, shift = st.floats(-2, 2), st.floats(-30, 30)
    return st.tuples(*[part] * 4, shift, shift).map(lambda v: np.array([[v[0], v[1], v[4]], [v[2], v[3], v[5]]]))


@pytest.mark.parametrize("fill_mode", reference.FILL_MODES)
@pytest.mark.parametrize("order", [0, 1])
@settings(max_examples=60, deadline=None)
@given(
    matrix=st.booleans().flatmap(matrices),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_reference_is_scipy(fill_mode, order, matrix, height, width, seed):
    image = np.random.default_rng(seed).uniform(0, 255, (height, width, 2))
    expected = scipy_warp(image, matrix, order=order, mode=fill_mode, cval=7.0)
    got = reference.warp(image, matrix, order=order, fill_mode=fill_mode, cval=7.0)
    # At a jump (nearest pixel, the border of constant) equality of positions matters, and must hold to the last bit.
    np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT64)


@pytest.mark.skipif(not opencv_agrees(), reason="no OpenCV that interpolates exactly")
@pytest.mark.parametrize("fill_mode", reference.FILL_MODES)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(30, 41), (190, 150), (520, 33)])
def test_fast_path_agrees_with_the_reference(fill_mode, order, channels, size):
    rng = np.random.default_rng(3)
    # The hardest image there is: full contrast from pixel to pixel. The largest one is warped by tiles.
    board = np.indices(size).sum(axis=0)[..., None] % 2 * 255.0
    image = np.repeat(board, channels, axis=2).astype(np.float32) * rng.uniform(0.5, 1, channels).astype(np.float32)
    for _ in range(4):
        turn = np.eye(2) + rng.normal(size=(2, 2)) * 0.3
        matrix = np.concatenate([turn, rng.normal(size=(2, 1)) * 0.5 * np.array(size)[:, None]], axis=1)
        exact = reference.warp(image, matrix, order=order, fill_mode=fill_mode, cval=9)
        fast = warp(image, matrix, order=order, fill_mode=fill_mode, cval=9, path="fast")
        assert fast.dtype == np.float32
        # A jump is decided in float64 on both paths, so order 0 and the border of "constant" are equal everywhere.
        np.testing.assert_allclose(fast, exact, rtol=0, atol=AGREEMENT if order else 0)
        eight = warp(image.astype(np.uint8), matrix, order=order, fill_mode=fill_mode, cval=9)
        exact = reference.warp(image.astype(np.uint8), matrix, order=order, fill_mode=fill_mode, cval=9)
        assert np.abs(eight - exact).max() <= 0.5 + AGREEMENT


def test_without_opencv_the_reference_is_used(monkeypatch):
    import agnostic.augmentation.warp as module

    monkeypatch.setattr(module, "opencv_agrees", lambda: False)
    image = np.random.default_rng(0).uniform(0, 255, (9, 8, 3)).astype(np.float32)
    matrix = np.array([[0.9, 0.2, 1.0], [-0.1, 1.1, 0.3]])
    np.testing.assert_array_equal(warp(image, matrix), reference.warp(image, matrix).astype(np.float32))


@given(matrix=matrices(False), size=st.tuples(st.integers(2, 9), st.integers(2, 9)))
def test_inverse_and_composition(matrix, size):
    matrix = matrix + np.array([[3.0, 0, 0], [0, 5.0, 0]])  # keeps away from singular maps: both diagonals dominate
    if abs(np.linalg.det(matrix[:, :2])) < 0.5:
        return
    identity = np.eye(2, 3)
    # Condition number below 100 / 0.5 here, entries below 40: 1e-10 leaves a factor of 100.
    np.testing.assert_allclose(compose(matrix, geometry.inverse(matrix)), identity, atol=1e-10)
    np.testing.assert_allclose(compose(geometry.inverse(matrix), matrix), identity, atol=1e-10)
    np.testing.assert_array_equal(compose(matrix, identity), matrix)
    twice = flipped(flipped(matrix, size, True, True), size, True, True)
    np.testing.assert_allclose(twice, matrix, atol=1e-12)


def test_composition_is_warping_twice():
    image = np.random.default_rng(1).uniform(0, 255, (7, 6, 1))
    shift = np.array([[1.0, 0, 2], [0, 1, -1]])
    turn = np.array([[0.0, 1, 0], [-1, 0, 5]])
    once = reference.warp(image, compose(turn, shift), fill_mode="constant", order=0)
    twice = reference.warp(
        reference.warp(image, turn, fill_mode="constant", order=0), shift, fill_mode="constant", order=0
    )
    inner = np.zeros((7, 6), bool)
    inner[:5, 1:] = True  # what the second warp reads inside the first one's output
    np.testing.assert_array_equal(once[inner], twice[inner])


@given(size=st.tuples(st.integers(1, 8), st.integers(1, 8)), horizontal=st.booleans(), vertical=st.booleans())
def test_flip_is_a_matrix(size, horizontal, vertical):
    image = np.arange(size[0] * size[1], dtype=np.float64).reshape(*size, 1)
    matrix = flipped(np.eye(2, 3), size, horizontal, vertical)
    expected = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    np.testing.assert_array_equal(reference.warp(image, matrix), expected)


@given(
    values=st.tuples(*[st.sampled_from([0.0, 0.2, -40.0, 7.5])] * 4, *[st.sampled_from([1.0, 0.5, 1.3])] * 2),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    horizontal=st.booleans(),
    vertical=st.booleans(),
)
def test_both_ways_to_the_keras_matrix_agree(values, size, horizontal, vertical):
    parameters = dict(zip(("theta", "tx", "ty", "shear", "zx", "zy"), values, strict=True))
    product = geometry.classic_product(parameters, size)
    flips = {"flip_horizontal": horizontal, "flip_vertical": vertical}
    matrix = geometry.classic_matrix(parameters | flips, size)
    assert (product is None) == (matrix is None)
    if matrix is not None:
        # Some ten roundings of numbers below 1000.
        expected = flipped(product, size, horizontal, vertical)
        np.testing.assert_allclose(matrix, expected, rtol=0, atol=10 * 1000 * 2.0**-53)


def test_points_and_boxes_follow_the_pixels():
    image = np.zeros((20, 30, 1))
    image[4:9, 6:16] = 1
    matrix = flipped(np.array([[1.0, 0, -3], [0, 1, 2]]), (20, 30), True, False)
    moved = reference.warp(image, matrix)[..., 0]
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    box = geometry.move_boxes([[6, 4, 16, 9]], matrix, (20, 30))
    np.testing.assert_array_equal(box, [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
    np.testing.assert_array_equal(
        np.sort(geometry.move_points([[6, 4], [15, 8]], matrix), axis=0),
        [[columns[0], rows[0]], [columns[-1], rows[-1]]],
    )
    gone = geometry.move_boxes([[28, 0, 30, 5]], np.array([[1.0, 0, 0], [0, 1, -100]]), (20, 30))[0]
    assert (gone[2] - gone[0]) * (gone[3] - gone[1]) == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [({"fill_mode": "refelct"}, "reflect"), ({"order": 3}, "bilinear"), ({"path": "quick"}, "fast")],
)
def test_unknown_options_say_what_is_known(options, word):
    with pytest.raises(InvalidInput, match=word):
        warp(np.zeros((3, 3, 1), np.float32), np.eye(2, 3), **options)


LAYOUTS = {
    "contiguous": lambda x: x,
    "planes": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "mirrored": lambda x: x[:, ::-1].copy()[:, ::-1],
}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64, ">f4"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill_mode", ["nearest", "constant"])
@pytest.mark.parametrize("size", [(30, 41), (170, 20)])
def test_layouts_in_and_out_do_not_matter(dtype, channels, order, fill_mode, size):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (*size, channels)).astype(dtype)
    matrix = np.array([[0.9, 0.3, -4.2], [-0.25, 1.1, 6.7]])
    options = {"order": order, "fill_mode": fill_mode, "cval": 9}
    expected = warp(image, matrix, **options)
    assert expected.shape == image.shape
    assert expected.dtype == image.dtype
    for laid_in in LAYOUTS.values():
        before = laid_in(image)
        np.testing.assert_array_equal(warp(before, matrix, **options), expected)
        np.testing.assert_array_equal(before, image)
        for laid_out in LAYOUTS.values():
            out = laid_out(np.full_like(image, 77))
            assert warp(laid_in(image), matrix, out=out, **options) is out
            np.testing.assert_array_equal(out, expected)


@pytest.mark.skipif(not opencv_agrees(), reason="no OpenCV that interpolates exactly")
@pytest.mark.parametrize("side", [150, 160, 161, 256, 512])
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
def test_the_largest_images_of_each_routine_agree(side, fill_mode):
    # Full contrast from pixel to pixel, turned, sheared and enlarged as the classic settings do at most.
    image = np.repeat(np.indices((side, side)).sum(axis=0)[..., None] % 2 * np.float32(255), 3, axis=2)
    for theta, zoom, shift in ((40, 1.2, 0.2), (-37, 0.83, -0.2), (3, 1.01, 0.013)):
        parameters = {"theta": theta, "zx": zoom, "zy": 1 / zoom, "tx": shift * side, "ty": -shift * side, "shear": 0.2}
        matrix = geometry.classic_matrix(parameters | {"flip_horizontal": theta > 0}, (side, side))
        exact = reference.warp(image, matrix, fill_mode=fill_mode)
        assert np.abs(warp(image, matrix, fill_mode=fill_mode) - exact).max() < AGREEMENT
