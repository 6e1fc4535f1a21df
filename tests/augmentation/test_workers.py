"""Workers of data loaders hold copies: no two of them draw the same, and no epoch repeats another."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from agnostic.augmentation import Augmentation, ImageDataGenerator
from tests.waiting import HANG

torch = pytest.importorskip("torch")
COUNT = 14
TURN = Augmentation(rotation=(-90, 90))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 1, (COUNT, 8, 8, 1)).astype(np.float32)


def epochs_of(loader, epochs=3):
    """The labels of each epoch in their order, and each image's bytes in each epoch."""
    orders, drawn = [], {k: [] for k in range(COUNT)}
    for _ in range(epochs):
        batches = list(loader)
        orders.append(torch.cat([y for _, y in batches]).tolist())
        for x, y in batches:
            for image, label in zip(x, y.tolist(), strict=True):
                drawn[label].append(image.numpy().tobytes())
    return orders, drawn


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({"num_workers": 0}, 0),
        ({"num_workers": 0, "shuffle": True}, None),
        ({"num_workers": 2, "timeout": HANG}, 0),
        ({"num_workers": 2, "timeout": HANG, "persistent_workers": True}, None),
        ({"num_workers": 2, "timeout": HANG, "persistent_workers": True, "shuffle": True}, 0),
    ],
)
def test_data_loader_over_an_image_data_generator(images, options, seed):
    runs = []
    # One of the two is enough to see that nothing is left to chance, where nothing should be.
    for _ in range(2 if seed == 0 and "shuffle" not in options else 1):
        torch.manual_seed(3)
        flow = ImageDataGenerator(rotation_range=90).flow(images, np.arange(COUNT), batch_size=3, seed=seed)
        orders, drawn = epochs_of(torch.utils.data.DataLoader(flow, batch_size=None, **options))
        assert all(sorted(order) == list(range(COUNT)) for order in orders)
        assert len({tuple(order) for order in orders}) == 3
        assert all(len(set(draws)) == 3 for draws in drawn.values())
        runs.append((orders, drawn))
    assert all(run == runs[0] for run in runs)


def test_an_epoch_that_is_broken_off_does_not_mix_with_the_next(images):
    flow = ImageDataGenerator().flow(images, np.arange(COUNT), batch_size=2, seed=0)
    loader = torch.utils.data.DataLoader(flow, batch_size=None, num_workers=2, timeout=HANG, persistent_workers=True)
    next(iter(loader))
    orders, _ = epochs_of(loader, 2)
    assert all(sorted(order) == list(range(COUNT)) for order in orders)


def test_workers_share_no_draw(images):
    # All images are one: what differs is drawn. Nine batches of one image each, over two workers and two epochs.
    flow = ImageDataGenerator(rotation_range=90).flow(np.repeat(images[:1], 9, axis=0), batch_size=1, seed=5)
    loader = torch.utils.data.DataLoader(flow, batch_size=None, num_workers=2, timeout=HANG)
    drawn = [batch.numpy().tobytes() for _ in range(2) for batch in loader]
    assert len(set(drawn)) == 18


def test_without_shuffling_the_order_stays(images):
    flow = ImageDataGenerator(rotation_range=90).flow(images, np.arange(COUNT), batch_size=3, seed=0, shuffle=False)
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(flow, batch_size=None, num_workers=workers, timeout=HANG if workers else 0)
        orders, drawn = epochs_of(loader, 2)
        assert orders == [list(range(COUNT))] * 2
        assert all(len(set(draws)) == 2 for draws in drawn.values())


def test_indexing_by_hand_stays_that_of_the_legacy_class(images):
    # Also beside a loader, and after a file: only a loader's own questions end an epoch.
    flow = ImageDataGenerator().flow(images, np.arange(COUNT), batch_size=3, seed=0)
    first = [flow[k][1].tolist() for k in range(len(flow))]
    assert [flow[k][1].tolist() for k in range(len(flow))] == first
    again = pickle.loads(pickle.dumps(flow))
    assert [again[k][1].tolist() for k in range(len(flow))] == first
    list(torch.utils.data.DataLoader(flow, batch_size=None))
    assert [flow[k][1].tolist() for k in range(len(flow))] == first


class Samples(torch.utils.data.Dataset):
    """Images that a module augments, one after the other."""

    def __init__(self, images, module):
        self.images = torch.from_numpy(images).movedim(3, 1)
        self.module = module

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.module(self.images[index][None])[0], index


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
def test_a_module_inside_a_dataset(images, options):
    one = np.repeat(images[:1], COUNT, axis=0)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        dataset = Samples(one, TURN.torch_module(seed=0))
        loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, timeout=HANG, **options)
        drawn.append([image.numpy().tobytes() for _ in range(2) for x, _ in loader for image in x])
    assert len(set(drawn[0])) == 2 * COUNT
    assert drawn[0] == drawn[1]


def test_workers_that_live_on_hear_of_the_epoch(images):
    dataset = TURN.dataset(list(images), seed=4)
    loader = torch.utils.data.DataLoader(dataset, batch_size=7, num_workers=2, timeout=HANG, persistent_workers=True)
    for epoch in (0, 1, 5):
        dataset.set_epoch(epoch)
        np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), TURN(images, seed=4, epoch=epoch))


KERAS = """
import os
# Importing is what takes the time here. Workers only make batches, for which no engine is needed.
os.environ["KERAS_BACKEND"] = "jax" if __name__ == "__main__" else "numpy"
import numpy as np, keras
from agnostic.augmentation import ImageDataGenerator

seen = []
class Model(keras.Model):
    def call(self, x):
        return x

    def train_step(self, state, data):
        seen.append(np.asarray(data[0]))
        return {}, state

if __name__ == "__main__":
    image = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 1)).astype("float32")
    for processes in (False, True):
        runs = []
        for _ in range(2):
            flow = ImageDataGenerator(rotation_range=90).flow(
                np.repeat(image, 8, axis=0), np.arange(8.0), batch_size=2, seed=0
            )
            flow.workers, flow.use_multiprocessing = 2, processes
            model = Model()
            model.compile(run_eagerly=True)
            seen.clear()
            model.fit(flow, epochs=3, shuffle=False, verbose=0)
            drawn = [x.tobytes() for batch in seen for x in batch]
            assert len(drawn) == len(set(drawn)) == 24, (processes, len(drawn), len(set(drawn)))
            runs.append(drawn)
        assert not processes or runs[0] == runs[1]
    print("done")
"""


def test_keras_workers_share_no_draw(tmp_path):
    pytest.importorskip("keras")
    pytest.importorskip("jax")
    script = tmp_path / "fit.py"
    script.write_text(KERAS)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "done" in run.stdout
