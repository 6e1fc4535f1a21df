"""Work over threads: all of it is done, once each, and an error is the one that a plain loop would have met."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from agnostic.augmentation import Augmentation, ImageDataGenerator, parallel


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr(parallel, "available", lambda: request.param)
    return request.param


@pytest.mark.parametrize("count", [0, 1, 4, 100])
def test_every_piece_is_done_once(threads, count):
    done: list[int] = []
    parallel.each(done.append, count)
    assert sorted(done) == list(range(count))


def test_the_threads_end_with_the_call(threads):
    seen = set()
    parallel.each(lambda _: seen.add(threading.current_thread().name), 50)
    assert not [t for t in threading.enumerate() if t.name.startswith("agnostic-augmentation")]


def test_of_several_errors_the_first_is_raised(threads):
    def work(k):
        if k in (7, 8, 30):
            raise ValueError(str(k))

    for _ in range(20):
        with pytest.raises(ValueError, match=r"^7$"):
            parallel.each(work, 60)


def test_opencv_rules_the_number(monkeypatch):
    cv2 = pytest.importorskip("cv2")
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert parallel.available() == 1
    finally:
        cv2.setNumThreads(before)


def test_pixels_do_not_depend_on_the_number_of_threads(threads, photos, monkeypatch):
    got = {}
    for number in (1, threads):
        monkeypatch.setattr(parallel, "available", lambda number=number: number)
        generator = ImageDataGenerator(rotation_range=40, zoom_range=0.2, channel_shift_range=30, rescale=1 / 255)
        flow = generator.flow(photos, batch_size=7, seed=3)
        batch = Augmentation(rotation=(-40, 40), zoom=(0.8, 1.25))(photos / np.float32(255), seed=5)
        got[number] = (next(flow), next(flow), flow[0], batch)
    for one, other in zip(got[1], got[threads], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_preprocessing_function_is_called_in_order_and_in_this_thread(threads, photos):
    calls = []

    def preprocess(image):
        calls.append((threading.current_thread(), image.copy()))
        return image * 2

    plain = next(ImageDataGenerator(rotation_range=40).flow(photos, shuffle=False, seed=1))
    batch = next(
        ImageDataGenerator(rotation_range=40, preprocessing_function=preprocess).flow(
            photos, None, shuffle=False, seed=1
        )
    )
    assert {thread for thread, _ in calls} == {threading.current_thread()}
    np.testing.assert_array_equal(np.stack([image for _, image in calls]), plain)
    np.testing.assert_array_equal(batch, plain * 2)
