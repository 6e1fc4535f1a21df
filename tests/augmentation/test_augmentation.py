"""``Augmentation``: purity, geometry that can be seen, targets that follow, every framework against the reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.augmentation import Augmentation, Parameters
from agnostic.errors import InvalidInput
from agnostic.reference import warp as reference
from tests.engines import ENGINES, run_on_engine
from tests.waiting import HANG

EVERYTHING = Augmentation(
    rotation=(-40, 40),
    height_shift=(-0.2, 0.2),
    width_shift=(-0.2, 0.2),
    shear=(-10, 10),
    zoom=(0.8, 1.25),
    aspect=(0.9, 1.1),
    horizontal_flip=0.5,
    vertical_flip=0.5,
    brightness=(0.7, 1.3),
    contrast=(0.8, 1.2),
    channel_shift=(-0.1, 0.1),
)
GEOMETRY = dataclasses.replace(EVERYTHING, brightness=(1, 1), contrast=(1, 1), channel_shift=(0, 0))


@pytest.fixture(scope="module")
def batch(photos):
    return photos[:, :, :24] / np.float32(255)


def same(a: Parameters, b: Parameters) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Parameters))


# Purity -------------------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 2**128 - 1), index=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1))
def test_parameters_are_a_pure_function(seed, index, epoch):
    state = np.random.get_state()[1].copy()
    one = EVERYTHING.parameters(seed, index, (20, 30, 3), epoch)
    assert same(one, EVERYTHING.parameters(seed, index, (20, 30, 3), epoch))
    for other in ((seed ^ 1, index, epoch), (seed, index ^ 1, epoch), (seed, index, epoch ^ 1)):
        assert not same(one, EVERYTHING.parameters(other[0], other[1], (20, 30, 3), other[2]))
    assert np.array_equal(state, np.random.get_state()[1])


def test_parameters_are_these():
    # Golden: Philox 4x64 is a fixed algorithm, so seeds of today give the images of today for ever.
    p = EVERYTHING.parameters(seed=7, index=3, shape=(20, 30, 3), epoch=2)
    u = np.random.Generator(np.random.Philox(key=7, counter=[0, 0, 3, 2])).random(13)
    assert p.brightness == 0.7 + (1.3 - 0.7) * u[8]
    assert p.contrast == 0.8 + (1.2 - 0.8) * u[9]
    np.testing.assert_array_equal(p.channel_shift, -0.1 + 0.2 * u[10:])


def test_a_property_does_not_disturb_the_others():
    less = dataclasses.replace(EVERYTHING, rotation=(0, 0), zoom=(1, 1))
    one, other = (a.parameters(1, 5, (20, 20)) for a in (EVERYTHING, less))
    assert (one.brightness, one.contrast) == (other.brightness, other.contrast)
    assert not np.array_equal(one.matrix, other.matrix)


def test_batches_do_not_depend_on_order_or_grouping(batch):
    whole = EVERYTHING(batch, seed=3, epoch=1)
    np.testing.assert_array_equal(whole[4:6], EVERYTHING(batch[4:6], seed=3, index=4, epoch=1))
    order = [5, 0, 3]
    np.testing.assert_array_equal(whole[order], EVERYTHING(batch[order], seed=3, index=order, epoch=1))
    assert not np.array_equal(whole, EVERYTHING(batch, seed=3, epoch=0))


# Ranges -------------------------------------------------------------------------------------------------------------
@given(index=st.integers(0, 10**6))
def test_everything_stays_in_its_range(index):
    p = EVERYTHING.parameters(0, index, (21, 21, 3))
    assert 0.7 <= p.brightness <= 1.3
    assert 0.8 <= p.contrast <= 1.2
    assert np.abs(p.channel_shift).max() <= 0.1
    only = dataclasses.replace(GEOMETRY, shear=(0, 0), aspect=(1, 1))
    m = only.parameters(0, index, (21, 21)).matrix
    zoom = 1 / np.sqrt(abs(np.linalg.det(m[:, :2])))
    assert 0.8 * (1 - 1e-12) <= zoom <= 1.25 * (1 + 1e-12)
    centre = np.array([10.0, 10.0, 1])
    # The centre is shown at the shift from the centre, at most 0.2 of 21 pixels along each axis.
    shown = np.linalg.solve(m[:, :2], centre[:2] - m[:, 2]) - 10
    assert np.abs(shown).max() <= 0.2 * 21 + 1e-9


def test_ranges_are_filled():
    drawn = np.array([EVERYTHING.parameters(0, k, (9, 9)).brightness for k in range(400)])
    # Uniform on [0.7, 1.3]: the mean of 400 lies within 5 deviations 0.6 / sqrt(12 * 400), and the ends are neared.
    assert abs(drawn.mean() - 1) < 5 * 0.6 / np.sqrt(12 * 400)
    assert drawn.min() < 0.72
    assert drawn.max() > 1.28
    flips = [
        np.linalg.det(Augmentation(horizontal_flip=0.3).parameters(0, k, (9, 9)).matrix[:, :2]) < 0 for k in range(400)
    ]
    assert abs(np.mean(flips) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 400)


def test_identity_changes_nothing(batch):
    result = Augmentation()(batch, seed=0)
    np.testing.assert_array_equal(result, batch)
    assert result is not batch
    assert not np.shares_memory(result, batch)


# Directions ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def arrow():
    """A bright pixel a little above the centre of 9 x 9, on black."""
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 2, 4] = 1
    return image


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"rotation": (90, 90)}, (4, 2)),  # counter-clockwise: from above the centre to its left
        ({"height_shift": (2 / 9, 2 / 9)}, (4, 4)),
        ({"width_shift": (-1 / 9, -1 / 9)}, (2, 3)),
        ({"vertical_flip": 1.0}, (6, 4)),
        ({"horizontal_flip": 1.0}, (2, 4)),
        ({"zoom": (2.0, 2.0)}, (0, 4)),
        ({"zoom": (0.5, 0.5)}, (3, 4)),
        ({"shear": (45, 45)}, (2, 2)),
        ({"aspect": (4.0, 4.0)}, (3, 4)),  # half as high
    ],
)
def test_directions(arrow, options, place):
    shown = Augmentation(fill_mode="constant", **options)(arrow, seed=0)[0, ..., 0]
    assert np.unravel_index(shown.argmax(), shown.shape) == place


def test_colors(batch):
    for white, image in ((1, batch), (255, (batch * 255).astype(np.uint8))):
        bright = Augmentation(brightness=(0.5, 0.5))(image, seed=0)
        np.testing.assert_allclose(bright, image * 0.5, atol=0.5 + 1e-5 if white == 255 else 1e-6)
        spread = Augmentation(contrast=(0.5, 0.5))(image, seed=0).astype(np.float64)
        np.testing.assert_allclose(spread.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=0.5 if white == 255 else 1e-6)
        moved = Augmentation(channel_shift=(0.25, 0.25))(image, seed=0)
        expected = np.minimum(image.astype(np.float64) + 0.25 * white, white)
        np.testing.assert_allclose(moved, expected, atol=0.5 + 1e-5 if white == 255 else 1e-6)
        assert moved.dtype == image.dtype
    assert Augmentation(brightness=(2, 2), white=255)(batch * 255, seed=0).max() == 255


# Targets ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", range(8))
def test_targets_move_with_the_image(index):
    image = np.zeros((1, 60, 80, 1), np.float32)
    image[0, 25:35, 30:50] = 1
    result = dataclasses.replace(GEOMETRY, fill_mode="constant").with_targets(
        image,
        seed=1,
        index=index,
        masks=(image[..., 0] > 0).astype(np.uint8) * 7,
        boxes=[[[30, 25, 50, 35]]],
        points=[[[39.5, 29.5]]],
    )
    assert set(np.unique(result.masks)) <= {0, 7}
    shown = result.images[0, ..., 0]
    # The nearest pixel is in the mask exactly where interpolation leaves more than half, but for corners.
    assert np.mean((shown > 0.5) != (result.masks[0] == 7)) < 0.01
    rows, columns = np.nonzero(shown > 0.5)
    left, top, right, bottom = result.boxes[0][0]
    assert left - 0.5 <= columns.min()
    assert columns.max() + 1 <= right + 0.5
    assert top - 0.5 <= rows.min()
    assert rows.max() + 1 <= bottom + 0.5
    if left > 0 and right < 80 and top > 0 and bottom < 60:  # all of it is seen, so its centre of mass is its centre
        x, y = result.points[0][0]
        np.testing.assert_allclose(
            [(shown * np.arange(80)).sum() / shown.sum(), (shown.T * np.arange(60)).sum() / shown.sum()],
            [x, y],
            atol=0.1,
        )


# Frameworks ---------------------------------------------------------------------------------------------------------
def torch_batch(batch):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(batch).movedim(3, 1)


@pytest.mark.parametrize("fill_mode", reference.FILL_MODES)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_warp_is_the_reference(fill_mode, order, dtype):
    torch = pytest.importorskip("torch")
    from agnostic_torch.augmentation import warp

    rng = np.random.default_rng(0)
    board = np.indices((31, 44)).sum(axis=0)[None, ..., None] % 2 * rng.uniform(100, 255, (12, 1, 1, 2))
    board = board.astype(dtype)
    turns = np.eye(2) + rng.normal(size=(12, 2, 2)) * 0.4
    matrices = np.concatenate([turns, rng.normal(size=(12, 2, 1)) * 20], axis=2)
    matrices[:3] = np.round(matrices[:3] * 2) / 2  # half-way positions
    got = warp(
        torch.from_numpy(board).movedim(3, 1), torch.from_numpy(matrices), order=order, fill_mode=fill_mode, cval=9
    )
    got = got.movedim(1, 3).numpy()
    expected = np.stack(
        [reference.warp(x, m, order=order, fill_mode=fill_mode, cval=9) for x, m in zip(board, matrices, strict=True)]
    )
    # The grid in [-1, 1] and back costs three roundings of numbers below 1, times half the side of 44 pixels, times 2
    # axes and 255 levels a pixel; jumps are decided in float64.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, expected, rtol=0, atol=3 * eps * 22 * 2 * 255 if order else 0)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_torch_batches_equal_numpy_batches(batch, dtype):
    torch = pytest.importorskip("torch")
    x = batch if dtype == "float32" else (batch * 255).astype(np.uint8)
    expected = EVERYTHING(x, seed=5)
    got = EVERYTHING(torch_batch(x), seed=5)
    assert got.dtype == getattr(torch, dtype)
    assert got.shape == (7, 3, 30, 24)
    # Both warps are within 0.01 of 255 of the reference, amplified by at most 1.3 * 1.2; integers round either way.
    limit = 2 * 0.01 / 255 * 1.56 if dtype == "float32" else 1
    assert np.abs(got.movedim(1, 3).numpy().astype(np.float64) - expected).max() <= limit
    again = EVERYTHING(torch_batch(x), seed=5)
    assert torch.equal(got, again)
    np.testing.assert_array_equal(
        EVERYTHING(torch_batch(x).movedim(1, 3), seed=5, layout="NHWC").numpy(), got.movedim(1, 3).numpy()
    )


def test_torch_masks_labels_and_gradients(batch):
    torch = pytest.importorskip("torch")
    labels = np.random.default_rng(0).integers(0, 2**31 - 1, (7, 30, 24))
    numpy_masks = GEOMETRY.with_targets(batch, seed=2, masks=labels).masks
    torch_masks = GEOMETRY.with_targets(torch_batch(batch), seed=2, masks=torch.from_numpy(labels)).masks
    np.testing.assert_array_equal(torch_masks.numpy(), numpy_masks)
    x = torch_batch(batch).requires_grad_()
    GEOMETRY(x, seed=0).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_torch_module_and_data_loader(batch):
    torch = pytest.importorskip("torch")
    x = torch_batch(batch)
    module = EVERYTHING.torch_module(seed=4)
    first, second = module(x), module(x)
    assert torch.equal(first, EVERYTHING(x, seed=4))
    assert torch.equal(second, EVERYTHING(x, seed=4, index=7))
    assert module.eval()(x) is x
    other = EVERYTHING.torch_module(seed=4)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.train()(x), EVERYTHING(x, seed=4, index=14))

    dataset = GEOMETRY.dataset([(image, k) for k, image in enumerate(batch)], seed=9)
    dataset.set_epoch(2)
    expected = GEOMETRY(batch, seed=9, epoch=2)
    for workers in (0, 2):
        # OpenCV's threads have run in this process: workers forked from it must not wait for them.
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=3, num_workers=workers, shuffle=True, timeout=HANG if workers else 0
        )
        seen = 0
        for images, index in loader:
            np.testing.assert_array_equal(images.numpy(), expected[index.numpy()])
            seen += len(images)
        assert seen == 7


def test_jax_batches(batch):
    jax = pytest.importorskip("jax")
    got = EVERYTHING(jax.numpy.asarray(batch), seed=5)
    assert isinstance(got, jax.Array)
    np.testing.assert_array_equal(np.asarray(got), EVERYTHING(batch, seed=5))
    with pytest.raises(InvalidInput, match="traced"):
        jax.jit(lambda x: EVERYTHING(x, seed=5))(batch)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_keras_layer_model_fit_and_tf_data(engine):
    run_on_engine(engine, Path(__file__).with_name("keras_checks.py"))


# Errors -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": 40}, r"such as \(-40, 40\)"),
        ({"rotation": (10, -10)}, "not below"),
        ({"zoom": (0, 1)}, "above 0"),
        ({"zoom": 0.2}, r"\(0.8, 1.25\)"),
        ({"horizontal_flip": 2}, "probability"),
        ({"shear": (-90, 0)}, "-89 to 89"),
        ({"fill_mode": "edge"}, "nearest"),
        ({"contrast": (0, float("inf"))}, "finite"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(InvalidInput, match=message):
        Augmentation(**options)


def test_wrong_calls(batch):
    for call, message in [
        (lambda: EVERYTHING(batch[0], seed=0), r"image\[None\]"),
        (lambda: EVERYTHING(batch, seed=-1), "seed"),
        (lambda: EVERYTHING(batch, seed=0, index=[1]), "one for each of"),
        (lambda: EVERYTHING(batch, seed=0, layout="HWCN"), "layout"),
        (lambda: EVERYTHING(batch.tolist(), seed=0), "builtins.list"),
        (lambda: EVERYTHING.with_targets(batch, seed=0, boxes=[]), "boxes"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            call()


def test_counters_are_integers_of_any_kind():
    images = np.random.default_rng(0).random((2, 6, 8, 3), np.float32)
    turning = Augmentation(rotation=(-40, 40))
    expected = turning(images, seed=3, index=5)
    for index in (np.int64(5), np.array(5), [5, 6], np.array([5, 6]), range(5, 7), (np.uint8(5), np.int16(6))):
        np.testing.assert_array_equal(turning(images, seed=np.int64(3), index=index), expected)
    for wrong in ({"seed": 1.5}, {"index": 5.0}, {"index": [5, 6.5]}, {"epoch": 0.5}, {"seed": "1"}, {"index": True}):
        with pytest.raises(InvalidInput, match=f"{next(iter(wrong))} (must be an integer of 0 to|is a whole number)"):
            turning(images, **{"seed": 3, **wrong})
        if not isinstance(wrong.get("index"), list):
            with pytest.raises(InvalidInput, match="must be an integer"):
                turning.parameters(**{"seed": 3, "index": 0, "shape": (6, 8), **wrong})
