"""What ``Augmentation`` takes: units, layouts, kinds of arrays, masks; the rest is refused in one sentence."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agnostic.augmentation import Augmentation
from agnostic.errors import InvalidInput

COLORS = {"brightness": {"brightness": (0.8, 1.2)}, "contrast": {"contrast": (0.8, 1.2)}}
COLORS["channel_shift"] = {"channel_shift": (-0.1, 0.1)}
TURN = Augmentation(rotation=(-30, 30))


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).uniform(0, 1, (3, 12, 10, 3)).astype(np.float32)


def native(batch, framework):
    """A batch as a framework has it."""
    if framework == "torch":
        return pytest.importorskip("torch").from_numpy(batch).movedim(3, 1)
    if framework == "torch float64":
        return pytest.importorskip("torch").from_numpy(batch).movedim(3, 1).double()
    if framework == "jax":
        return pytest.importorskip("jax").numpy.asarray(batch)
    return batch


def numpy_of(images, framework):
    return images.movedim(1, 3).numpy() if framework.startswith("torch") else np.asarray(images)


FRAMEWORKS = ["numpy", "torch", "torch float64", "jax"]


# Units --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("color", COLORS)
def test_values_in_other_units_are_refused(batch, framework, color):
    augmentation = Augmentation(**COLORS[color])
    for wrong in (batch * 255, batch * 2 - 1, (batch - 0.45) / 0.225, np.where(batch > 0.99, np.inf, batch)):
        with pytest.raises(InvalidInput, match=r"values from .* 0 to 1 here: give value_range"):
            augmentation(native(wrong.astype(np.float32), framework), seed=0)
    # Sharp resampling leaves the range a little; geometry takes any units.
    augmentation(native(batch * 1.1 - 0.05, framework), seed=0)
    moved = TURN(native(batch * 255, framework), seed=0)
    np.testing.assert_allclose(numpy_of(moved, framework), TURN(batch * 255, seed=0), atol=0.02)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_declared_range_is_worked_in(batch, framework):
    augmentation = Augmentation(brightness=(0.5, 1.5), contrast=(0.5, 1.5), channel_shift=(-0.2, 0.2))
    expected = augmentation(batch, seed=3).astype(np.float64)
    for low, high in ((0, 255), (-1, 1), (-3.5, -1.5)):
        scaled = (batch * (high - low) + low).astype(np.float32)
        got = dataclasses.replace(augmentation, value_range=(low, high))(native(scaled, framework), seed=3)
        # The same change of the same images in other units: five roundings of values up to 3.5 times the range.
        back = (numpy_of(got, framework).astype(np.float64) - low) / (high - low)
        np.testing.assert_allclose(back, expected, atol=5 * 3.5 * 2.0**-23)
    with pytest.raises(InvalidInput, match="0 to 255"):
        dataclasses.replace(augmentation, white=255)((batch * 2 - 1) * 255, seed=0)
    with pytest.raises(InvalidInput, match="without value_range"):
        Augmentation(white=255, value_range=(0, 255))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "uint64"])
def test_integers_whose_range_images_rarely_fill_need_a_range(batch, dtype):
    # A channel shift of 0.05 of the dtype's range would add 4.6e17 to the levels of an int64 photo.
    torch = pytest.importorskip("torch")
    levels = (batch * 100).astype(dtype)
    shift = Augmentation(channel_shift=(0.05, 0.05))
    for images in (levels, torch.from_numpy(levels).movedim(3, 1)):
        with pytest.raises(InvalidInput, match="value_range"):
            shift(images, seed=0)
    declared = dataclasses.replace(shift, value_range=(0, 120))
    np.testing.assert_array_equal(declared(levels, seed=0), levels + 6)
    np.testing.assert_array_equal(declared(images, seed=0).movedim(1, 3).numpy(), levels + 6)
    np.testing.assert_array_equal(Augmentation(horizontal_flip=1.0)(levels, seed=0), levels[:, :, ::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizontal_flip": True}, "0.5 for half"),
        ({"vertical_flip": np.True_}, "0.5 for half"),
        ({"horizontal_flip": "yes"}, "probability"),
        ({"horizontal_flip": None}, "probability"),
        ({"brightness": (-0.2, 0.2)}, r"such as \(0.8, 1.2\)"),
        ({"contrast": (-0.2, 0.2)}, "factor of 0 or more"),
        ({"brightness": 0.2}, r"such as \(0.8, 1.2\)"),
        ({"width_shift": (-10, 10)}, "not pixels"),
        ({"height_shift": (0, 4)}, "not pixels"),
        ({"channel_shift": (-20, 20)}, "from -1 to 1"),
        ({"rotation": (True, 3)}, "range"),
        ({"rotation": ("1", "2")}, "range"),
        ({"rotation": None}, "range"),
        ({"fill_value": None}, "number"),
        ({"fill_mode": "grid-wrap"}, "wrap"),
        ({"value_range": (1, 1)}, "black, white"),
        ({"value_range": 255}, r"\(0, 255\)"),
        ({"white": -1}, "above 0"),
    ],
)
def test_ranges_in_the_units_of_others_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        Augmentation(**options)


def test_a_fill_value_that_images_cannot_have_is_refused(batch):
    eight = (batch * 255).astype(np.uint8)
    for value in (-1, 0.5, 256):
        augmentation = Augmentation(rotation=(20, 20), fill_mode="constant", fill_value=value)
        for framework in ("numpy", "torch", "jax"):
            with pytest.raises(InvalidInput, match="fill_value"):
                augmentation(native(eight, framework), seed=0)
    with pytest.raises(InvalidInput, match="127"):
        Augmentation(brightness=(0.9, 1.1), fill_mode="constant", fill_value=127)(batch, seed=0)


def test_one_nan_stays_one_nan(batch):
    holed = batch.copy()
    holed[1, 3, 4, 0] = np.nan
    for options in (*COLORS.values(), {name: value for color in COLORS.values() for name, value in color.items()}):
        for framework in FRAMEWORKS:
            got = numpy_of(Augmentation(**options)(native(holed, framework), seed=0), framework)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(holed), err_msg=f"{options} {framework}")


# Layouts ------------------------------------------------------------------------------------------------------------
def test_a_layout_in_doubt_is_asked_for(batch):
    torch = pytest.importorskip("torch")
    channels_last, channels_first = torch.rand(2, 28, 28, 3), np.zeros((2, 3, 32, 40), np.float32)
    for images, layout in ((channels_last, "NHWC"), (channels_first, "NCHW")):
        with pytest.raises(InvalidInput, match=f"layout='{layout}'"):
            TURN(images, seed=0)
        assert TURN(images, seed=0, layout=layout).shape == images.shape
        assert TURN.dataset(images, seed=0, layout=layout)[1].shape == images.shape[1:]
        with pytest.raises(InvalidInput, match="layout"):
            TURN.dataset(images, seed=0)[1]
    module = TURN.torch_module(seed=0, layout="NHWC")
    assert torch.equal(module(channels_last), TURN(channels_last, seed=0, layout="NHWC"))
    with pytest.raises(InvalidInput, match="layout"):
        TURN.torch_module(seed=0)(channels_last)
    # Lines of text and spectrograms are long; one image by itself is asked as well.
    for shape in ((2, 32, 200, 3), (2, 16, 128, 1)):
        with pytest.raises(InvalidInput, match="layout='NHWC'"):
            TURN(torch.rand(shape), seed=0)
    with pytest.raises(InvalidInput, match="layout"):
        TURN.apply(channels_first[0], TURN.parameters(0, 0, (32, 40, 3)))
    # Feature maps and small pictures are none of that.
    for shape in ((2, 64, 3, 3), (2, 512, 4, 1), (2, 3, 28, 3), (2, 64, 20, 20), (2, 1, 8, 1)):
        assert TURN(torch.rand(shape), seed=0).shape == shape


SHORT = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(
    # Few channels on any sides, or many on short ones: both together take long and meet no other limit.
    size=st.tuples(
        st.sampled_from([1, 2, 3, 4, 5, 7]), SHORT | st.sampled_from([(28, 28), (1, 170), (161, 2), (33, 520)])
    )
    | st.tuples(st.sampled_from([64, 512, 515]), SHORT),
    order=st.sampled_from([0, 1]),
    fill_mode=st.sampled_from(["nearest", "constant", "reflect", "wrap"]),
    eight=st.booleans(),
)
def test_any_shape_gives_the_numbers_of_the_reference(size, order, fill_mode, eight):
    torch = pytest.importorskip("torch")
    channels, sides = size
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 256, (2, channels, *sides)).astype(np.uint8 if eight else np.float32)
    options = {"rotation": (-90, 90), "zoom": (0.5, 2), "horizontal_flip": 0.5, "width_shift": (-0.4, 0.4)}
    augmentation = Augmentation(**options, order=order, fill_mode=fill_mode, fill_value=9)
    exact = dataclasses.replace(augmentation, path="exact")(images, seed=1, layout="NCHW")
    # Interpolation may differ by 0.01 of 255, wrapped beyond 512 pixels by 0.03, and rounded the other way by 1.
    atol = (1 if eight else 0.03) if order else 0
    for got in (
        augmentation(images, seed=1, layout="NCHW"),
        augmentation(torch.from_numpy(images), seed=1, layout="NCHW").numpy(),
        augmentation(images.transpose(0, 2, 3, 1), seed=1, layout="NHWC").transpose(0, 3, 1, 2),
    ):
        np.testing.assert_allclose(got.astype(np.float64), exact, rtol=0, atol=atol)


# Kinds of arrays ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"rotation": (5, 5)}, {"brightness": (0.9, 1.1)}])
def test_what_is_no_batch_of_images_is_refused_in_one_sentence(batch, options):
    augmentation = Augmentation(**options)
    wrong = [None, "photo.png", batch.tolist(), [batch[0]], [], 3.0, np.float32(3), batch[0], batch[..., None]]
    wrong += [batch.astype(kind) for kind in (object, complex, "U5", "M8[s]")]
    wrong += [batch[:, :0], batch[:, :, :0], batch[..., :0], np.ma.masked_less(batch, 0.5)]
    try:
        import torch

        x = torch.rand(2, 3, 8, 8)
        wrong += [x.to_sparse(), x.to("meta"), x.to(torch.complex64), x[0], x[:, :0]]
        wrong += [torch.quantize_per_tensor(x, 0.1, 0, torch.quint8), torch.nested.nested_tensor([x[0], x[1]])]
    except ImportError:
        pass
    for images in wrong:
        with pytest.raises(InvalidInput) as caught:
            augmentation(images, seed=0)
        assert "\n" not in str(caught.value)
    for image in (None, "photo.png", [1, 2]):
        with pytest.raises(InvalidInput, match="array"):
            augmentation.dataset([image], seed=0)[0]
        with pytest.raises(InvalidInput, match="array"):
            augmentation.apply(image, augmentation.parameters(0, 0, (8, 8)))


def test_every_dtype_of_numbers_is_taken(batch):
    whole = (batch * 100).astype(np.float64)
    for dtype in ("u1", ">i2", "u2", "i4", "u4", "i8", ">u8", "f2", ">f4", "f8", "longdouble", "?"):
        images = (whole > 50) if dtype == "?" else whole.astype(dtype)
        for options in ({"rotation": (20, 20)}, {"brightness": (0.9, 0.9), "value_range": (0, 200)}):
            if dtype == "?" and "brightness" in options:
                continue
            got = Augmentation(**options)(images, seed=0)
            assert got.dtype == images.dtype
            expected = Augmentation(**options)(images.astype(np.float64), seed=0)
            # Rounded to whole numbers, or to half precision: a spacing of 1/16 up to 100.
            limit = 0.01 if dtype[-2:] in ("f4", "f8") or dtype == "longdouble" else 0.1 if dtype == "f2" else 0.51
            np.testing.assert_allclose(got.astype(np.float64), expected, atol=limit)
    assert Augmentation(rotation=(5, 5), brightness=(0.5, 1))(batch[:0], seed=0).shape == (0, 12, 10, 3)
    plain = np.ma.masked_array(batch)
    np.testing.assert_array_equal(TURN(plain, seed=0), TURN(batch, seed=0))


def test_torch_dtypes_are_taken(batch):
    torch = pytest.importorskip("torch")
    x = (torch.from_numpy(batch).movedim(3, 1) * 100).round()
    names = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    names += ["float16", "bfloat16", "float32", "float64", "bool"]
    for dtype in [getattr(torch, name) for name in names]:
        turned = Augmentation(rotation=(20, 20), order=0)(x.to(dtype), seed=0)
        assert turned.dtype == dtype
        expected = Augmentation(rotation=(20, 20), order=0)(x, seed=0).to(dtype)
        assert torch.equal(turned.to(torch.float64), expected.to(torch.float64))
        assert Augmentation(rotation=(20, 20))(x.to(dtype), seed=0).dtype == dtype


def test_jax_bfloat16(batch):
    jax = pytest.importorskip("jax")
    images = jax.numpy.asarray(batch, jax.numpy.bfloat16)
    got = Augmentation(rotation=(20, 20), brightness=(0.9, 0.9))(images, seed=0)
    assert got.dtype == jax.numpy.bfloat16
    expected = Augmentation(rotation=(20, 20), brightness=(0.9, 0.9))(np.asarray(images, np.float32), seed=0)
    np.testing.assert_allclose(np.asarray(got, np.float32), expected, atol=2.0**-9)


def test_wrong_numbers_are_refused(batch):
    for call, message in [
        (lambda: TURN(batch, seed=1.5), "seed"),
        (lambda: TURN(batch, seed=None), "seed"),
        (lambda: TURN(batch, seed=0, epoch=-1), "epoch"),
        (lambda: TURN(batch, seed=0, index=0.5), "index"),
        (lambda: TURN(batch, seed=0, index=["a", 1, 2]), "index"),
        (lambda: TURN.parameters(0, 0, (8,)), "shape"),
        (lambda: TURN.parameters(0, None, (8, 8)), "index"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            call()
    np.testing.assert_array_equal(TURN(batch, seed=np.int64(3), index=np.int64(7)), TURN(batch, seed=3, index=7))
    np.testing.assert_array_equal(TURN(batch, seed=0, index=np.arange(3)), TURN(batch, seed=0))


# Masks, boxes, points -----------------------------------------------------------------------------------------------
def test_masks_that_do_not_fit_are_refused(batch):
    torch = pytest.importorskip("torch")
    first = torch.from_numpy(batch).movedim(3, 1)
    for images, masks in [
        (batch, np.zeros((3, 10, 12), np.uint8)),
        (batch, np.zeros((3, 24, 20), np.uint8)),
        (batch, np.zeros((3, 1, 12, 10), np.uint8)),
        (first, torch.zeros(3, 12, 10, 1)),
        (batch, np.zeros((3, 12), np.uint8)),
        (batch, np.zeros((3, 12, 10), object)),
        (batch, 7),
    ]:
        with pytest.raises(InvalidInput, match="masks"):
            TURN.with_targets(images, seed=0, masks=masks)
    for boxes in ([[[1, 2, 3]]] * 3, [[["a", 1, 2, 3]]] * 3, [[[5, 0, 2, 3]]] * 3, [[[0, 0, np.nan, 3]]] * 3):
        with pytest.raises(InvalidInput, match="box"):
            TURN.with_targets(batch, seed=0, boxes=boxes)
    with pytest.raises(InvalidInput, match="points"):
        TURN.with_targets(batch, seed=0, points=[[[1, 2, 3]]] * 3)
    assert [b.shape for b in TURN.with_targets(batch, seed=0, boxes=[[], [[0, 0, 1, 1]], []]).boxes] == [
        (0, 4),
        (1, 4),
        (0, 4),
    ]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint16", "float64", "bool"])
def test_mask_values_are_moved_to_the_last_bit(batch, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    if dtype in ("float64", "bool"):
        masks = rng.normal(size=(3, 12, 10)) if dtype == "float64" else rng.random((3, 12, 10)) > 0.5
    else:
        top = np.iinfo(dtype).max
        masks = rng.integers(top - 10, top, (3, 12, 10), dtype=dtype, endpoint=True)
    for fill_mode in ("nearest", "constant"):
        augmentation = dataclasses.replace(TURN, fill_mode=fill_mode, mask_fill_value=1)
        got = augmentation.with_targets(batch, seed=0, masks=masks).masks
        assert got.dtype == masks.dtype
        assert set(np.unique(got)) <= {*np.unique(masks), 1}
        assert len(np.unique(got)) > 1
        first = torch.from_numpy(batch).movedim(3, 1)
        np.testing.assert_array_equal(
            augmentation.with_targets(first, seed=0, masks=torch.from_numpy(masks)).masks.numpy(), got
        )


def test_a_mask_fill_value_that_the_dtype_lacks_is_refused(batch):
    torch = pytest.importorskip("torch")
    augmentation = dataclasses.replace(TURN, fill_mode="constant", mask_fill_value=-1)
    for masks in (np.ones((3, 12, 10), np.uint8), torch.ones(3, 12, 10, dtype=torch.uint8)):
        with pytest.raises(InvalidInput, match="mask_fill_value -1"):
            augmentation.with_targets(batch, seed=0, masks=masks)
    assert augmentation.with_targets(batch, seed=0, masks=np.ones((3, 12, 10), np.int8)).masks.min() == -1


# Quarter turns ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize("order", [0, 1])
def test_quarter_turns_lose_no_pixel(fill_mode, order):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for side in (1, 2, 5, 28, 63, 64, 161):
        images = rng.integers(1, 255, (1, side, side, 3)).astype(np.uint8)
        for turns in (-3, -1, 1, 2, 3, 4):
            augmentation = Augmentation(rotation=(90 * turns, 90 * turns), fill_mode=fill_mode, order=order)
            result = augmentation.with_targets(images, seed=0, masks=images)
            expected = np.rot90(images, turns, axes=(1, 2))
            np.testing.assert_array_equal(result.images, expected)
            np.testing.assert_array_equal(result.masks, expected)
            x = torch.from_numpy(images).movedim(3, 1).double()
            got = augmentation(x, seed=0).movedim(1, 3).numpy()
            np.testing.assert_allclose(got, expected, rtol=0, atol=255 * 161 * 2.0**-50)


def test_half_turns_and_turned_rectangles_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for height, width in ((5, 8), (64, 33), (2, 7), (1, 4), (9, 3)):
        images = rng.integers(1, 255, (1, height, width, 1)).astype(np.uint8)
        for fill_mode in ("nearest", "constant", "reflect", "wrap"):
            options = {"fill_mode": fill_mode, "order": 0}
            half = Augmentation(rotation=(180, 180), **options)(images, seed=0)
            np.testing.assert_array_equal(half, images[:, ::-1, ::-1])
        # A rectangle on its side is cut and filled. Rows and columns lie between pixels where one side is odd and the
        # other even: then each is read half a pixel down and right, all alike.
        for turns in (1, 3):
            augmentation = Augmentation(rotation=(90 * turns, 90 * turns), fill_mode="constant", order=0)
            turned = augmentation(images, seed=0)[0, ..., 0]
            whole = np.rot90(images[0, ..., 0], turns)
            rows, columns = np.indices((height, width))
            y, x = rows + (width - height) / 2, columns + (height - width) / 2
            # Half steps go up in the image that is read: down or left in the turned one, by the direction of the turn.
            y, x = (np.ceil(y - 0.5), np.floor(x + 0.5)) if turns == 1 else (np.floor(y + 0.5), np.ceil(x - 0.5))
            seen = (y >= 0) & (y < width) & (x >= 0) & (x < height)
            expected = np.zeros_like(turned)
            expected[seen] = whole[y[seen].astype(int), x[seen].astype(int)]
            np.testing.assert_array_equal(turned, expected, err_msg=f"{height} x {width}, {turns}")


@pytest.mark.parametrize("angle", [17.0, -41.3, 90.0, 133.0])
def test_constant_fill_keeps_what_torchvision_keeps(angle):
    functional = pytest.importorskip("torchvision.transforms.functional")
    torch = pytest.importorskip("torch")
    for height, width in ((31, 44), (40, 40), (9, 16), (25, 12)):
        images = torch.rand(1, 3, height, width, dtype=torch.float64)
        masks = (torch.rand(1, 1, height, width) * 250 + 5).to(torch.uint8)
        augmentation = Augmentation(rotation=(angle, angle), fill_mode="constant")
        if angle == 90.0 and (height + width) % 2:
            continue  # between two pixels either is the nearest
        result = augmentation.with_targets(images, seed=0, masks=masks)
        assert torch.equal(result.masks, functional.rotate(masks, angle))
        theirs = functional.rotate(images, angle, interpolation=functional.InterpolationMode.BILINEAR)
        # torchvision makes its grid in float32: positions up to 44 to a few times 44 * 2^-24, of full contrast. And it
        # blends twice at the border, by the weight of what it read and then by that of what lies outside.
        inner = np.s_[..., 1:-1, 1:-1]
        covered = functional.rotate(torch.ones_like(images), angle, interpolation=functional.InterpolationMode.BILINEAR)
        whole = (covered > 1 - 1e-4)[inner]
        assert (result.images - theirs)[inner][whole].abs().max() < 8 * 44 * 2.0**-24


# Epochs that workers hear of ----------------------------------------------------------------------------------------
def test_a_dataset_keeps_its_epoch_through_a_file(batch):
    dataset = TURN.dataset(list(batch), seed=0)
    dataset.set_epoch(5)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.epoch == 5
    again.set_epoch(6)
    assert dataset.epoch == 5
    np.testing.assert_array_equal(dataset[1], TURN(batch, seed=0, epoch=5)[1])
    with pytest.raises(InvalidInput, match="epoch"):
        dataset.set_epoch(-1)


def test_what_is_no_array_or_has_no_arithmetic_is_refused_in_one_sentence(batch):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(batch).movedim(3, 1)
    masks = torch.zeros(batch.shape[:3]).to(torch.float8_e4m3fn)
    wrong = (
        lambda: TURN(torch.nn.Identity(), seed=0),
        lambda: TURN(np.dtype("f4"), seed=0),
        lambda: TURN(tensor.to(torch.float8_e5m2), seed=0),
        lambda: TURN(tensor.to(torch.uint8).view(torch.bits8), seed=0),
        lambda: TURN.with_targets(tensor, seed=0, masks=masks),
        lambda: TURN.with_targets(batch, seed=0, boxes=torch.zeros(len(batch), 1, 4, requires_grad=True)),
        lambda: TURN(batch, seed=0, index=2**64 - 1),
        lambda: TURN.parameters(0, 0, 3),
        lambda: TURN.parameters(0, 0, (8, 8, "3")),
        lambda: Augmentation(path="quick"),
        lambda: Augmentation(fill_mode="constant", fill_value=70000)(batch.astype(np.float16), seed=0),
        lambda: Augmentation(fill_mode="constant", fill_value=70000)(tensor.half(), seed=0),
    )
    for call in wrong:
        with pytest.raises(InvalidInput):
            call()
