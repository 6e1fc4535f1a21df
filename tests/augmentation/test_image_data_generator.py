"""Every number of ``ImageDataGenerator`` against the legacy class of the installed Keras."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agnostic.augmentation import ImageDataGenerator
from agnostic.augmentation.warp import AGREEMENT
from agnostic.errors import AgnosticError, InvalidInput

pytest.importorskip("scipy")
legacy = pytest.importorskip("keras.src.legacy.preprocessing.image")
pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*scipy.ndimage:")

SEED_SCRIPT = {
    "rescale": 1.0 / 255,
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "fill_mode": "nearest",
}
GEOMETRY = {k: v for k, v in SEED_SCRIPT.items() if k != "rescale"} | {"vertical_flip": True}


@contextlib.contextmanager
def global_stream_kept():
    """The legacy class may have the global stream; what runs after it finds the stream as it was."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@pytest.fixture(autouse=True)
def global_stream_is_left_alone():
    """Whatever a test does with our class leaves NumPy's global stream as it was."""
    np.random.seed(123)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    yield
    after = np.random.get_state()[1], np.random.get_state()[2]
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]


def both(options, use):
    """``use`` of the legacy generator and of ours."""
    with global_stream_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = use(legacy.ImageDataGenerator(**options))
    return expected, use(ImageDataGenerator(**options))


def assert_same(expected, got, atol):
    if isinstance(expected, tuple | list):
        assert type(got) is type(expected)
        assert len(got) == len(expected)
        for one, other in zip(expected, got, strict=True):
            assert_same(one, other, atol)
    else:
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(got, expected)


def draw(iterator, plan):
    """Batches by a plan: "n" is next(), a digit is [i], "e" is on_epoch_end(), "r" is reset()."""
    batches = []
    for step in plan:
        if step == "n":
            batches.append(next(iterator))
        elif step == "e":
            iterator.on_epoch_end()
        elif step == "r":
            iterator.reset()
        else:
            batches.append(iterator[int(step)])
    return batches


# Parameters ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {},
        GEOMETRY,
        {"width_shift_range": 3, "height_shift_range": 2.5},
        {"width_shift_range": [-4, 0, 7], "height_shift_range": [0.1, 0.2]},
        {"zoom_range": (0.5, 1.5), "channel_shift_range": 30.0, "brightness_range": (0.2, 1.8)},
        {"zoom_range": [1, 1], "vertical_flip": True, "brightness_range": [1, 1]},
        dict(GEOMETRY, data_format="channels_first", channel_shift_range=1),
    ],
)
def test_parameters_are_equal(options):
    shape = (31, 17, 3)

    def use(generator):
        first = [generator.get_random_transform(shape, seed=s) for s in (0, 7, 2**32 - 1)]
        return first + [generator.get_random_transform(shape) for _ in range(20)]  # the stream goes on

    expected, got = both(options, use)
    assert got == expected


# Pixels -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("extra", ["", "channel_shift", "brightness"])
def test_pixels_in_every_fill_mode(photos, fill_mode, order, extra):
    options = dict(GEOMETRY, fill_mode=fill_mode, interpolation_order=order, cval=50.0)
    if extra == "channel_shift":
        options["channel_shift_range"] = 60.0
    if extra == "brightness":
        options |= {"brightness_range": (0.4, 1.7), "channel_shift_range": 10.0}
    expected, got = both(options, lambda g: [g.random_transform(photos[k % 7], seed=k) for k in range(14)])
    # Nothing is interpolated with order 0, and nothing after truncation to 8 bits may differ at all.
    assert_same(expected, got, 0 if order == 0 or extra == "brightness" else AGREEMENT)


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_splines(photos, fill_mode, order):
    options = dict(GEOMETRY, fill_mode=fill_mode, interpolation_order=order, cval=50.0, channel_shift_range=9.0)
    for extra in ({}, {"brightness_range": (0.4, 1.7)}, {"data_format": "channels_first"}):
        images = photos.transpose(0, 3, 1, 2) if extra.get("data_format") else photos
        expected, got = both(
            options | extra,
            lambda g, images=images: [
                *(g.random_transform(images[k], seed=k) for k in range(3)),
                next(g.flow(images, batch_size=3, seed=1)),
            ],
        )
        # The same function of SciPy reads the same positions.
        assert_same(expected, got, 0)
    with pytest.raises(InvalidInput, match="float16"):
        ImageDataGenerator(**options).random_transform(photos[0].astype(np.float16))


@pytest.mark.parametrize("shape", [(24, 31, 3), (31, 24, 1), (20, 20, 4), (12, 30, 2), (1, 9, 3)])
@pytest.mark.parametrize("order", [0, 1])
def test_shapes_that_are_not_square(shape, order):
    images = np.random.default_rng(0).uniform(0, 255, (5, *shape)).astype(np.float32)
    options = dict(GEOMETRY, interpolation_order=order, channel_shift_range=5.0)
    if shape[2] != 2:
        options["brightness_range"] = (0.5, 1.5)  # the legacy class has no pictures of two channels
    expected, got = both(options, lambda g: [g.random_transform(x, seed=k) for k, x in enumerate(images)])
    assert_same(expected, got, 0 if order == 0 or shape[2] != 2 else AGREEMENT)


@pytest.mark.parametrize(
    "parameters", [{}, {"theta": 30}, {"tx": 0.5, "ty": -2}, {"flip_horizontal": True}, {"zx": 0.5}]
)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill_mode", ["reflect", "wrap", "constant", "nearest"])
def test_single_parameters_and_half_steps(photos, parameters, order, fill_mode):
    options = {"interpolation_order": order, "fill_mode": fill_mode}
    expected, got = both(options, lambda g: [g.apply_transform(x, dict(parameters)) for x in photos])
    assert_same(expected, got, AGREEMENT if order else 0)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill_mode", ["reflect", "wrap", "constant", "nearest"])
@pytest.mark.parametrize("brightness", [None, 0.7])
def test_flips_where_a_position_is_the_border_itself(photos, order, fill_mode, brightness):
    # Without rotation whole rows and columns are read at the border but for rounding, and rounding decides.
    options = {"fill_mode": fill_mode, "interpolation_order": order, "cval": 9}
    atol = 0 if order == 0 or brightness else AGREEMENT
    cases = ((0.1, 1.0, 0.0, (24, 31)), (-0.2, 1.0, 0.5, (30, 30)), (0.0, 0.5, 0.0, (29, 30)), (30.0, 2.0, 2, (30, 24)))
    for shear, zoom, shift, size in cases:
        image = np.resize(photos, (*size, 3))
        for horizontal, vertical in ((True, False), (False, True), (True, True)):
            parameters = {"shear": shear, "zx": zoom, "zy": 1.0, "theta": 0, "tx": shift, "ty": -shift}
            parameters |= {"flip_horizontal": horizontal, "flip_vertical": vertical, "brightness": brightness}
            expected, got = both(options, lambda g, p=parameters, x=image: g.apply_transform(x.copy(), p))
            assert_same(expected, got, atol)


def test_whitening_multiplies_no_error_of_the_warp(photos):
    small = photos[:, :8, :8]

    def use(generator):
        generator.fit(small)
        return [generator.standardize(generator.random_transform(x, seed=k)) for k, x in enumerate(small)]

    expected, got = both(dict(SEED_SCRIPT, zca_whitening=True), use)
    # Fewer images than pixels leave directions without variance, which are multiplied by up to sqrt(7) / 1e-6. With
    # both warps in float64 the pixels are the same float32; a warp that is off by 0.004 of 255 shows as 2e-7 here.
    assert_same(expected, got, 1e-8)


@pytest.mark.parametrize(("low", "high"), [(-100, 400), (0, 1), (-1, 1), (0, 255)])
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 2.5])
def test_brightness_of_any_range(low, high, factor):
    image = np.random.default_rng(0).uniform(low, high, (9, 8, 3)).astype(np.float32)
    expected, got = both({}, lambda g: g.apply_transform(image, {"brightness": factor}))
    assert_same(expected, got, 0)


def test_brightness_of_images_of_0_to_1_warns(photos):
    generator = ImageDataGenerator(brightness_range=(0.9, 1.1))
    for images in (photos / 255, photos / 300, (photos > 100).astype(np.float32)):
        with pytest.warns(UserWarning, match="0 to 1: it becomes black"):
            batch = next(generator.flow(images, seed=0))
        assert batch.max() <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(generator.flow(photos, seed=0))
        next(generator.flow(photos * 0, seed=0))  # black already


def test_augmented_validation_images_warn(photos, folder):
    labels = np.arange(7) % 2
    table = {"filename": ["cats/a0.jpg"] * 4, "class": ["a", "b"] * 2}
    for options in (
        {"rotation_range": 5},
        {"horizontal_flip": True},
        {"zoom_range": 0.1},
        {"width_shift_range": [1, 2]},
    ):
        generator = ImageDataGenerator(validation_split=0.5, **options)
        for flow in (
            lambda subset, g=generator: g.flow(photos, labels, subset=subset),
            lambda subset, g=generator: g.flow_from_directory(folder, subset=subset),
            lambda subset, g=generator: g.flow_from_dataframe(table, folder, subset=subset),
        ):
            with pytest.warns(UserWarning, match="same validation_split") as caught:
                flow("validation")
            assert caught[0].filename == __file__
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                flow("training")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = ImageDataGenerator(validation_split=0.5, rescale=1 / 255, samplewise_center=True)
        plain.flow(photos, labels, subset="validation")


def test_what_is_no_images_is_refused_in_one_sentence(photos):
    generator = ImageDataGenerator(rotation_range=5)
    wrong = [None, "abc", 3, [], [photos[0]], list(photos), photos.tolist(), photos[0], photos[:, :0], photos[..., :0]]
    wrong += [photos.astype(kind) for kind in (complex, "U5", "M8[s]")] + [np.array([None, "a"], object)]
    wrong += [np.ma.masked_less(photos, 50), np.empty((2, 3), object)]
    for x in wrong:
        for use in (generator.flow, generator.fit, generator.random_transform):
            if (use == generator.random_transform and x is wrong[7]) or (use == generator.fit and type(x) is list):
                continue  # an image; nested lists of numbers
            with pytest.raises(InvalidInput) as caught:
                use(x)
            assert "\n" not in str(caught.value)
    for options, message in [
        ({"y": 3}, "y is a sequence"),
        ({"sample_weight": 1.0}, "sample_weight is a sequence"),
        ({"batch_size": "4"}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            generator.flow(photos, **options)
    with pytest.raises(InvalidInput, match="three axes"):
        generator.get_random_transform((28, 28))
    objects = photos.astype(object)
    np.testing.assert_array_equal(next(generator.flow(objects, seed=0)), next(generator.flow(photos, seed=0)))
    swapped = photos.astype(">f4")
    np.testing.assert_array_equal(next(generator.flow(swapped, seed=0)), next(generator.flow(photos, seed=0)))


def test_dtypes_and_channels_first(photos):
    first = dict(GEOMETRY, data_format="channels_first", channel_shift_range=9.0)
    expected, got = both(first, lambda g: g.random_transform(photos[0].transpose(2, 0, 1), seed=5))
    assert_same(expected, got, AGREEMENT)
    for dtype in ("uint8", "float64", "int16"):
        x = photos[0].astype(dtype)
        expected, got = both(GEOMETRY, lambda g, x=x: g.random_transform(x, seed=5))
        assert_same(expected, got, 1e-9)


def test_inputs_are_not_changed_by_transforming(photos):
    x = photos[0].copy()
    generator = ImageDataGenerator(**GEOMETRY, channel_shift_range=20.0, brightness_range=(0.5, 1))
    generator.random_transform(x, seed=1)
    np.testing.assert_array_equal(x, photos[0])


# Statistics ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {"featurewise_center": True},
        {"featurewise_std_normalization": True},
        {"samplewise_center": True},
        {"samplewise_std_normalization": True, "rescale": 1 / 255},
        {"zca_whitening": True, "zca_epsilon": 1e-3},
        {"featurewise_std_normalization": True, "data_format": "channels_first", "rescale": 0.5},
        {"preprocessing_function": lambda x: x[:, ::-1] - 3, "rescale": 2.0},
        {"featurewise_std_normalization": True, "dtype": "float64"},
    ],
)
@pytest.mark.parametrize("augment", [False, True])
def test_fit_and_standardize(photos, options, augment):
    images = photos[:, :8, :8]
    if options.get("data_format") == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    options = dict(options, rotation_range=20, horizontal_flip=True, interpolation_order=0)

    def use(generator):
        generator.fit(images, augment=augment, rounds=2, seed=3)
        statistics = [s for s in (generator.mean, generator.std, generator.zca_whitening_matrix) if s is not None]
        return [
            *statistics,
            generator.standardize(images.astype(generator.dtype)),
            next(generator.flow(images, seed=2)),
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, got = both(options, use)
    # Order 0 makes the images equal, and the same NumPy functions follow: whitening included, nothing may differ, but
    # for sums over one image, whose float32 additions follow the order of its axes in memory: 192 values of magnitude
    # below 3 after division by the deviation.
    samplewise = any(name.startswith("samplewise") for name in options)
    assert_same(expected, got, 3 * np.log2(192) * 2.0**-24 if samplewise else 0)


def test_fit_seeds_the_stream_of_an_unseeded_flow(photos):
    def use(generator):
        generator.fit(photos, augment=True, seed=11)
        return next(generator.flow(photos, batch_size=3))

    expected, got = both(dict(GEOMETRY, interpolation_order=0), use)
    assert_same(expected, got, 0)


def test_unfitted_generators_warn(photos):
    for option in ("featurewise_center", "zca_whitening"):
        with pytest.warns(UserWarning, match="fit"):
            ImageDataGenerator(**{option: True}).standardize(photos[0].copy())


# Flow ---------------------------------------------------------------------------------------------------------------
PLANS = ["nnnnnnnn", "0120", "012e012e210", "n0n1n2en", "nrnnrnn", "e012", "en1e1", "2n"]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_flow_in_both_ways_in(photos, plan, shuffle):
    labels, weights = np.arange(7) % 2, np.linspace(0, 1, 7)

    # on_epoch_end before any batch leaves the legacy permutation to the global stream, whatever it is: seed it alike.
    def use(generator):
        np_random = np.random if isinstance(generator, legacy.ImageDataGenerator) else None
        if np_random:
            np_random.seed(5)
        iterator = generator.flow(photos, labels, sample_weight=weights, batch_size=3, shuffle=shuffle, seed=5)
        assert len(iterator) == 3
        assert iterator.n == 7
        return draw(iterator, plan)

    expected, got = both(SEED_SCRIPT, use)
    assert_same(expected, got, AGREEMENT / 255)


def test_flow_of_several_arrays_subsets_and_errors(photos):
    labels, misc = np.array([0, 1, 0, 1, 0, 1, 0]), [np.arange(7), np.arange(14).reshape(7, 2)]
    for subset in ("training", "validation"):
        expected, got = both(
            dict(SEED_SCRIPT, validation_split=0.3),
            lambda g, subset=subset: draw(g.flow((photos, misc), labels, batch_size=2, seed=1, subset=subset), "nnn"),
        )
        assert_same(expected, got, AGREEMENT / 255)
    generator = ImageDataGenerator(validation_split=0.3)
    weights = np.arange(7.0)
    _, y, weight = next(
        generator.flow(photos, weights, sample_weight=weights, subset="training", ignore_class_split=True)
    )
    np.testing.assert_array_equal(y, weight)  # weights stay with their images
    with pytest.raises(InvalidInput, match="different classes"):
        generator.flow(photos, np.arange(7), subset="training")
    with pytest.raises(InvalidInput, match="'training' or 'validation'"):
        generator.flow(photos, subset="test")
    with pytest.raises(InvalidInput, match="length 3"):
        generator.flow(photos, np.arange(3))
    with pytest.raises(InvalidInput, match="four axes"):
        generator.flow(photos[0])
    with pytest.raises(InvalidInput, match="no batch 1"):
        generator.flow(photos)[1]
    with pytest.raises(InvalidInput, match="no images"):
        next(generator.flow(photos[:0]))


def test_save_to_dir_names_and_pixels(photos, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folders = {}
    for name in ("legacy", "ours"):
        folders[name] = tmp_path / name
        folders[name].mkdir()

    def use(generator):
        target = folders["legacy" if isinstance(generator, legacy.ImageDataGenerator) else "ours"]
        options = {"batch_size": 4, "seed": 2, "save_to_dir": str(target), "save_prefix": "p"}
        return draw(generator.flow(photos, **options), "nn0")

    expected, got = both(dict(GEOMETRY, interpolation_order=0), use)
    assert_same(expected, got, 0)
    names = sorted(p.name for p in folders["legacy"].iterdir())
    assert len(names) == 11
    assert names == sorted(p.name for p in folders["ours"].iterdir())
    for name in names:
        pair = [np.asarray(image.open(folders[k] / name)) for k in folders]
        np.testing.assert_array_equal(*pair)


# Directory ----------------------------------------------------------------------------------------------------------
def attributes(iterator):
    names = ["class_indices", "filenames", "filepaths", "samples", "n", "image_shape", "batch_size"]
    return {name: getattr(iterator, name) for name in names}, [np.asarray(iterator.classes)]


@pytest.mark.parametrize(
    "options",
    [
        {"target_size": (150, 150), "class_mode": "sparse"},
        {"target_size": (20, 31), "class_mode": "categorical", "color_mode": "grayscale", "interpolation": "bilinear"},
        {"target_size": (20, 31), "class_mode": "input", "color_mode": "rgba", "interpolation": "lanczos"},
        {"target_size": (33, 20), "class_mode": None, "interpolation": "bicubic", "keep_aspect_ratio": True},
        {
            "target_size": (33, 20),
            "class_mode": "binary",
            "classes": ["dogs", "cats"],
            "shuffle": False,
            "interpolation": "box",
        },
        {"target_size": (24, 24), "class_mode": "sparse", "subset": "training"},
        {"target_size": (24, 24), "class_mode": "sparse", "subset": "validation", "interpolation": "hamming"},
    ],
)
@pytest.mark.parametrize("plan", ["nnnnn", "102e01"])
def test_flow_from_directory(folder, options, plan):
    def use(generator):
        iterator = generator.flow_from_directory(folder, batch_size=2, seed=9, **options)
        return *attributes(iterator), draw(iterator, plan)

    expected, got = both(dict(SEED_SCRIPT, validation_split=0.4), use)
    assert got[0] == expected[0]
    assert_same(expected[1], got[1], 0)
    assert_same(expected[2], got[2], AGREEMENT / 255)


def test_directory_with_brightness_and_saving(folder, tmp_path):
    def use(generator):
        target = tempfile.mkdtemp(dir=tmp_path)
        iterator = generator.flow_from_directory(
            folder, target_size=(16, 18), batch_size=4, seed=0, save_to_dir=target, save_prefix="x"
        )
        return draw(iterator, "nn"), sorted(os.listdir(target))

    for options in (dict(GEOMETRY, brightness_range=(0.5, 1.5)), dict(GEOMETRY, interpolation_order=0)):
        expected, got = both(options, use)
        assert_same(expected[0], got[0], 0)
        assert got[1] == expected[1]
        assert len(got[1]) == 8


# Data frame ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def table(folder):
    pandas = pytest.importorskip("pandas")
    names = sorted(
        os.path.relpath(os.path.join(root, file), folder) for root, _, files in os.walk(folder) for file in files
    )
    rng = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "filename": [*names, "missing.png"],
            "class": [name.split(os.sep)[0] for name in names] + ["cats"],
            "tags": [list(rng.choice(["a", "b", "c"], 2, replace=False)) for _ in range(len(names) + 1)],
            "x": np.arange(len(names) + 1) * 0.5,
            "y": np.arange(len(names) + 1) * 2.0,
            "weight": rng.uniform(size=len(names) + 1),
        }
    )


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_mode": "sparse", "weight_col": "weight"},
        {"class_mode": "binary", "classes": ["other animals", "cats"]},
        {"class_mode": "categorical", "y_col": "tags", "shuffle": False},
        {"class_mode": "categorical", "y_col": "tags", "classes": ["b", "c"]},
        {"class_mode": "raw", "y_col": "x"},
        {"class_mode": "raw", "y_col": ["x", "y"], "weight_col": "weight"},
        {"class_mode": "multi_output", "y_col": ["x", "class"]},
        {"class_mode": "input", "subset": "training"},
        {"class_mode": None, "subset": "validation"},
    ],
)
def test_flow_from_dataframe(table, folder, options):
    def use(generator):
        iterator = generator.flow_from_dataframe(table, folder, target_size=(20, 20), batch_size=4, seed=3, **options)
        labels = getattr(iterator, "class_indices", None), iterator.filenames, iterator.classes if labelled else None
        return labels, draw(iterator, "nnn0e0")

    labelled = options.get("class_mode", "categorical") in ("categorical", "sparse", "binary")
    expected, got = both(dict(GEOMETRY, interpolation_order=0, validation_split=0.3), use)
    assert got[0] == expected[0]
    assert_same(expected[1], got[1], 0)


def test_a_dict_of_lists_is_a_table(table, folder):
    generator = ImageDataGenerator()
    options = {"directory": folder, "target_size": (8, 8), "class_mode": "sparse", "seed": 1}
    with pytest.warns(UserWarning, match=r"missing\.png|notes\.txt"):
        one = next(generator.flow_from_dataframe(table, **options))
    with pytest.warns(UserWarning, match="left out"):
        other = next(generator.flow_from_dataframe({k: list(table[k]) for k in table}, **options))
    assert_same(list(one), list(other), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_col": "file_name"}, "did you mean 'filename'"),
        ({"class_mode": "binary"}, "two classes, and 3"),
        ({"class_mode": "sparse", "y_col": "x"}, "labels that are strings"),
        ({"class_mode": "multi_output", "y_col": "x"}, "list of columns"),
        ({"weight_col": "class"}, "numbers"),
        ({"class_mode": "sprase"}, "did you mean 'sparse'"),
        ({"color_mode": "bgr"}, "one of rgb, rgba, grayscale, not 'bgr'"),
        ({"interpolation": "linear"}, "bilinear"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_dataframe_errors(table, folder, options, message):
    with pytest.raises(InvalidInput, match=message):
        next(ImageDataGenerator().flow_from_dataframe(table, folder, **options))


# What the legacy class does not have --------------------------------------------------------------------------------
def test_threads_and_pickles_give_the_same_batches(photos):
    generator = ImageDataGenerator(**SEED_SCRIPT)
    expected = draw(generator.flow(photos, batch_size=2, seed=4), "n" * 12)
    iterator = generator.flow(photos, batch_size=2, seed=4)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: next(iterator), range(12)))
    # Threads finish in any order.
    assert sorted(batch.tobytes() for batch in expected) == sorted(batch.tobytes() for batch in got)
    iterator = generator.flow(photos, batch_size=2, seed=4)
    draw(iterator, "nnn")
    again = pickle.loads(pickle.dumps(iterator))
    assert_same(expected[3:], draw(again, "n" * 9), 0)


def test_overridden_methods_are_used_and_draw_from_the_batch_stream(photos):
    def subclass(base):
        class OnlySmallTurns(base):
            def get_random_transform(self, img_shape, seed=None):
                parameters = super().get_random_transform(img_shape, seed)
                return {**parameters, "theta": parameters["theta"] / 10}

            def apply_transform(self, x, transform_parameters):
                return super().apply_transform(x, transform_parameters) + 1

        return OnlySmallTurns(**GEOMETRY, interpolation_order=0)

    with global_stream_kept():
        expected = next(subclass(legacy.ImageDataGenerator).flow(photos, seed=8))
    assert_same(expected, next(subclass(ImageDataGenerator).flow(photos, seed=8)), 0)


def test_bad_files_are_named(folder, tmp_path):
    for name, content in [("cut.jpg", None), ("text.jpg", b"hello"), ("empty.png", b"")]:
        target = tmp_path / name.replace(".", "_") / "class"
        target.mkdir(parents=True)
        if content is None:
            content = Path(folder, "cats", "a0.jpg").read_bytes()[:600]
        (target / name).write_bytes(content)
        iterator = ImageDataGenerator().flow_from_directory(str(target.parent), class_mode="sparse")
        with pytest.raises(InvalidInput, match=name):
            next(iterator)
    with pytest.raises(InvalidInput, match="nothing' does not exist"):
        ImageDataGenerator().flow_from_directory(str(tmp_path / "nothing"))
    with pytest.raises(InvalidInput, match="birds' does not exist"):
        ImageDataGenerator().flow_from_directory(folder, classes=["cats", "birds"])
    with pytest.warns(UserWarning, match="two classes"):
        ImageDataGenerator().flow_from_directory(folder, class_mode="binary")


def test_deep_pictures_warn_where_they_are_cut_off(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    image.fromarray(np.arange(0, 60000, 100, dtype=np.uint16).reshape(20, 30)).save(tmp_path / "a" / "deep.png")
    with pytest.warns(UserWarning, match=r"deep\.png.*255"):
        next(ImageDataGenerator().flow_from_directory(str(tmp_path), class_mode=None))
    gray = next(ImageDataGenerator().flow_from_directory(str(tmp_path), (20, 30), "grayscale", class_mode=None))
    assert gray.max() == 59900


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2", "<i4", "<f4", ">f4"])
def test_deep_grey_files_keep_their_values(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    values = (np.arange(600).reshape(20, 30) * (100 if "u" in dtype else 50) - (0 if "u" in dtype else 9000)) / 1.0
    values = (values / 7 if "f" in dtype else values).astype(dtype)
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a" / "deep.tif", values, byteorder=dtype[0])
    options = {"class_mode": None, "color_mode": "grayscale"}
    read = next(ImageDataGenerator().flow_from_directory(str(tmp_path), (20, 30), **options))
    np.testing.assert_array_equal(read[0, ..., 0], values)
    small = next(ImageDataGenerator().flow_from_directory(str(tmp_path), (10, 15), interpolation="box", **options))
    # Each pixel is the mean of four, rounded to whole numbers where the file has those.
    means = values.astype(np.float64).reshape(10, 2, 15, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(small[0, ..., 0], means, atol=0.5, rtol=2.0**-23)
    with pytest.warns(UserWarning, match="255"):
        next(ImageDataGenerator().flow_from_directory(str(tmp_path), (20, 30), class_mode=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom_range": (1, 2, 3)}, "zoom_range"),
        ({"brightness_range": 0.5}, "brightness_range"),
        ({"validation_split": 1.5}, "validation_split"),
        ({"data_format": "last"}, "channels_last"),
        ({"fill_mode": "mirror"}, "reflect"),
        ({"interpolation_order": 6}, "2 to 5"),
        ({"interpolation_order": 1.5}, "2 to 5"),
        ({"rotation_range": (-40, 40)}, "rotation_range is a number"),
        ({"shear_range": None}, "shear_range is a number"),
        ({"channel_shift_range": "20"}, "channel_shift_range is a number"),
        ({"width_shift_range": "0.1"}, "width_shift_range"),
        ({"height_shift_range": [0.1, None]}, "height_shift_range"),
        ({"brightness_range": ("a", "b")}, "brightness_range"),
        ({"rescale": "1/255"}, "rescale"),
        ({"dtype": "float33"}, "dtype"),
        ({"dtype": "complex64"}, "dtype"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        ImageDataGenerator(**options)


def test_signature_is_the_legacy_one():
    import inspect

    for name in ("__init__", "flow", "flow_from_directory", "flow_from_dataframe", "fit", "random_transform"):
        theirs = inspect.signature(getattr(legacy.ImageDataGenerator, name)).parameters
        ours = inspect.signature(getattr(ImageDataGenerator, name)).parameters
        assert [(p.name, p.kind, p.default) for p in theirs.values()] == [
            (p.name, p.kind, p.default) for p in ours.values()
        ]
    assert len(inspect.signature(ImageDataGenerator).parameters) == 23


def test_it_runs_where_no_framework_and_no_scipy_is(folder):
    blocked = ("keras", "tensorflow", "torch", "jax", "scipy", "pandas")
    program = f"""
import sys
sys.modules.update({{name: None for name in {blocked!r}}})
from agnostic.augmentation import ImageDataGenerator
it = ImageDataGenerator(**{SEED_SCRIPT!r}).flow_from_directory({folder!r}, target_size=(150, 150),
    classes=["cats", "dogs"], class_mode="binary", batch_size=3, seed=0)
x, y = next(it)
print(x.shape, y.tolist(), float(x.sum(dtype="f8")))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stderr
    with global_stream_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = next(
            legacy.ImageDataGenerator(**SEED_SCRIPT).flow_from_directory(
                folder, target_size=(150, 150), classes=["cats", "dogs"], class_mode="binary", batch_size=3, seed=0
            )
        )
    shape, labels, total = run.stdout.splitlines()[-1].replace(") [", ")|[").replace("] ", "]|").split("|")
    assert shape == str(x.shape)
    assert labels == str(y.tolist())
    assert float(total) == pytest.approx(x.sum(dtype=np.float64), abs=x.size * AGREEMENT / 255)


def test_endless_cycling(photos):
    iterator = ImageDataGenerator().flow(photos, np.arange(7), batch_size=3, seed=0)
    seen = [y for _, y in itertools.islice(iterator, 9)]
    assert [len(y) for y in seen] == [3, 3, 1] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(seen[3 * epoch : 3 * epoch + 3])) == list(range(7))


@pytest.mark.parametrize(
    "options",
    [
        {"x_col": "label"},
        {"class_mode": "sparse", "y_col": "x"},
        {"class_mode": "binary", "y_col": "x"},
        {"class_mode": "categorical", "y_col": "x"},
        {"class_mode": "binary"},
        {"class_mode": "binary", "classes": ["cats"]},
        {"class_mode": "multi_output", "y_col": "x"},
        {"class_mode": "sprase"},
        {"weight_col": "class"},
        {"x_col": "file_name"},
        {"y_col": "clas"},
        {"weight_col": "weights"},
        {"class_mode": "raw", "y_col": ["x", "z"]},
        {"color_mode": "bgr"},
        {"subset": "test"},
        {"target_size": 150},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_dataframe_errors_are_of_keras_classes(folder, options):
    table = pd.DataFrame(
        {"filename": ["cats/a0.jpg", "dogs/a0.jpg"], "class": ["cats", "cats"], "x": [1.0, 2.0], "label": [1, 2]}
    )
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is
        legacy.ImageDataGenerator().flow_from_dataframe(table, folder, **options)
    with pytest.raises(AgnosticError) as ours:
        ImageDataGenerator().flow_from_dataframe(table, folder, **options)
    assert isinstance(ours.value, type(theirs.value))
    assert "\n" not in str(ours.value)


def test_folders_without_images_say_so_at_once(folder, tmp_path):
    generator = ImageDataGenerator(validation_split=0.1)
    for class_mode in ("categorical", None):
        with pytest.raises(
            InvalidInput, match=r"no class folders in '.*cats/more', which has 1 image itself"
        ) as caught:
            generator.flow_from_directory(Path(folder, "cats", "more"), class_mode=class_mode)
    # What the sentence advises works.
    above, leaf = Path(folder, "cats"), "more"
    assert f"flow_from_directory({str(above)!r}, classes=[{leaf!r}], class_mode=None)" in str(caught.value)
    assert next(generator.flow_from_directory(str(above), classes=[leaf], class_mode=None)).shape == (1, 256, 256, 3)
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidInput, match="no images in the class folders of"):
        generator.flow_from_directory(tmp_path, class_mode=None)
    with pytest.raises(InvalidInput, match=r"the subset 'validation' of .* the classes are too small"):
        generator.flow_from_directory(folder, subset="validation")
    with (
        pytest.warns(UserWarning, match="none.png"),
        pytest.raises(InvalidInput, match="of 1 row none has a picture file"),
    ):
        generator.flow_from_dataframe({"filename": ["none.png"]}, folder, class_mode=None)


def test_hidden_folders_and_files_are_no_data(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in (".ipynb_checkpoints/a.png", "cats/.ipynb_checkpoints/b-checkpoint.png", "cats/._b.png", "cats/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / ".git").mkdir()
    found = ImageDataGenerator().flow_from_directory(tmp_path)
    assert found.class_indices == {"cats": 0}
    assert found.filenames == ["cats/b.png"]


@pytest.mark.parametrize("size", [150, (150,), (1, 2, 3), (0, 5), (5.5, 5), "ab", None])
def test_target_sizes_are_pairs_of_integers(folder, size):
    with pytest.raises(InvalidInput, match=r"target_size must be \(height, width\), two integers"):
        ImageDataGenerator().flow_from_directory(folder, target_size=size)


def test_seeds_and_sizes_are_integers(folder, photos):
    generator = ImageDataGenerator()
    flow = generator.flow_from_directory(folder, (np.int64(8), 8), batch_size=np.int64(2), seed=np.int64(3))
    assert next(flow)[0].shape == (2, 8, 8, 3)
    for wrong in (1.5, True, -1, 2**32, "1"):
        for use in (
            lambda seed: generator.flow(photos, seed=seed),
            lambda seed: generator.flow_from_directory(folder, seed=seed),
            lambda seed: generator.random_transform(photos[0], seed=seed),
            lambda seed: generator.fit(photos, seed=seed),
        ):
            with pytest.raises(InvalidInput, match="seed must be an integer of 0 to 4294967295, not "):
                use(wrong)
    with pytest.raises(InvalidInput, match=r"batch_size must be an integer of 1 or more, not 2\.5"):
        generator.flow(photos, batch_size=2.5)


def test_deep_gray_pictures_keep_their_values_whatever_their_bytes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    values = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)
    (tmp_path / "a").mkdir()
    image.frombytes("I;16B", (30, 20), values.astype(">u2").tobytes()).save(tmp_path / "a" / "b.tif")
    image.fromarray(values.astype(np.float32) / 4).save(tmp_path / "a" / "f.tif")
    flow = ImageDataGenerator().flow_from_directory(tmp_path, (20, 30), "grayscale", class_mode=None, shuffle=False)
    big_endian, floating = next(flow)[..., 0]
    np.testing.assert_array_equal(big_endian, values)
    np.testing.assert_array_equal(floating, values / 4)


def test_odd_tables_indices_and_ranges_are_told_in_one_sentence(folder, photos):
    generator = ImageDataGenerator(zoom_range=np.float32(0.25))
    assert generator.zoom_range == [0.75, 1.25]
    files = ["cats/a0.jpg", "dogs/a0.jpg"]
    wrong = (
        lambda: ImageDataGenerator(zoom_range=None),
        lambda: generator.flow_from_dataframe({"filename": files, "class": ["cats"]}, folder),
        lambda: generator.flow_from_dataframe({"filename": files, "class": [1]}, folder, class_mode="raw"),
        lambda: generator.flow_from_dataframe(None, folder),
        lambda: generator.flow(photos, seed=0)[0:1],
        lambda: generator.flow(photos, seed=0)["0"],
    )
    for call in wrong:
        with pytest.raises(AgnosticError):
            call()
