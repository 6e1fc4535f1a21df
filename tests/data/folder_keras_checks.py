"""Image folders as PyDataset, with the engine that KERAS_BACKEND names."""

import numpy as np
import pytest

from agnostic.data import ImageFolder, SkippedFiles
from agnostic.errors import InvalidInput
from tests.data.pictures import folder as make_folder

keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return ImageFolder(make_folder(tmp_path_factory.mktemp("images") / "set", {"a": 12, "b": 11}), (6, 9))


class Seen(keras.Model):
    """A model that keeps what it is trained on."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def call(self, x):
        return x

    def train_step(self, data):
        self.batches.append(np.array(keras.ops.convert_to_numpy(data[0])))
        return {"loss": 0.0}


def model():
    made = Seen()
    made.compile("sgd", run_eagerly=True)
    # Built, so that fit does not try it on inputs of its own.
    made.built = True
    return made


def plain(images, count):
    batches = images.batches(4, seed=2)
    return [x for _ in range(count) for x, _ in batches]


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=False):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_sees_every_epoch_as_it_is(images, workers):
    sequence = images.batches(4, seed=2).keras(workers=workers)
    assert isinstance(sequence, keras.utils.PyDataset)
    assert len(sequence) == 6
    made = model()
    made.fit(sequence, epochs=3, shuffle=False, verbose=0)
    assert_equal(made.batches, plain(images, 3))


def test_batches_by_index(images):
    sequence = images.batches(4, seed=2).keras()
    x, y = sequence[5]
    assert x.shape == (3, 6, 9, 3)
    assert y.shape == (3,)
    np.testing.assert_array_equal(x, plain(images, 1)[5])


@pytest.mark.parametrize("workers", [1, 3])
def test_stream_resumes_at_the_very_next_sample(images, workers):
    batches = images.batches(4, seed=2)
    made = model()
    stream = batches.keras_stream(workers=workers)
    made.fit(stream, steps_per_epoch=4, epochs=2, callbacks=[stream.callback()], verbose=0)
    # 8 batches are an epoch of 6 and 2 more.
    assert (batches.epoch, batches.position) == (1, 8)
    again = images.batches(4)
    again.load_state_dict(batches.state_dict())
    stream = again.keras_stream(workers=workers)
    made.fit(stream, steps_per_epoch=6, epochs=1, callbacks=[stream.callback()], verbose=0)
    assert_equal(made.batches, plain(images, 3)[:14])
    assert (again.epoch, again.position) == (2, 8)


def test_an_epoch_that_has_begun_is_a_stream(images):
    batches = images.batches(4)
    next(iter(batches))
    with pytest.raises(InvalidInput, match="keras_stream"):
        batches.keras()


def test_skipped_files_are_reported(tmp_path):
    root = make_folder(tmp_path / "s", {"a": 6})
    (root / "a" / "0001.jpg").write_bytes(b"")
    made = model()
    batches = ImageFolder(root, (6, 9), on_error="skip").batches(2, shuffle=False)
    with pytest.warns(SkippedFiles, match="skipped 1 of 6") as warned:
        made.fit(batches.keras(), shuffle=False, verbose=0)
    assert [len(x) for x in made.batches] == [1, 2, 2]
    assert len([w for w in warned if w.category is SkippedFiles]) == 1
    (root / "a" / "0000.jpg").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"0000\.jpg"):
        batches.keras()[0]


def test_class_weights_make_classes_count_alike_in_fit(tmp_path):
    images = ImageFolder(make_folder(tmp_path / "set", {"a": 9, "b": 3}), (6, 9))
    biased = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(2, "softmax", kernel_initializer="zeros", trainable=False)]
    )
    biased.build((None, 6, 9, 3))
    biased.layers[-1].set_weights([np.zeros((162, 2)), np.array([1.0, 0.0])])
    biased.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    history = biased.fit(images.batches(12).keras(), class_weight=images.class_weights(), verbose=0)
    of_a, of_b = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    # A mean over 12 in float32 errs by at most 12 u = 7e-7 of the sum of its terms.
    assert history.history["loss"][0] == pytest.approx((of_a + of_b) / 2, rel=2e-6)


def test_a_layer_as_augmentation_is_one_sentence(images):
    with pytest.raises(InvalidInput, match=r"^augmentation is a RandomFlip, .* wrap it in a function"):
        ImageFolder(images.directory, (6, 9), augmentation=keras.layers.RandomFlip())
