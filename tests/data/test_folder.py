"""Image folders: listing, reading, batches, resuming, memory; through the public interface."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agnostic.data import ImageFolder, SkippedFiles, UnreadableFile, class_weights
from agnostic.errors import InvalidInput
from tests.data.pictures import folder as make_folder
from tests.data.pictures import picture
from tests.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images") / "set", {"cats": 11, "dogs": 8, "birds": 4})


def noise(image, seed, epoch, index):
    """An augmentation that shows its arguments."""
    rng = np.random.default_rng([seed, epoch, index])
    return image + rng.normal(size=image.shape).astype(np.float32)


def collected(batches):
    return [(x.copy(), y.copy()) for x, y in batches]


def assert_equal(a, b):
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b, strict=False):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


# Listing and reading ----------------------------------------------------------------------------------------------
def test_classes_and_files_are_sorted(root):
    images = ImageFolder(root)
    assert images.class_names == ("birds", "cats", "dogs")
    assert list(images.files) == sorted(images.files)
    assert images.labels.tolist() == [0] * 4 + [1] * 11 + [2] * 8
    assert ImageFolder(root, classes=["dogs", "birds"]).labels.tolist() == [0] * 8 + [1] * 4
    flat = ImageFolder(root, class_mode=None)
    assert len(flat) == 23
    assert flat.class_names == ()
    assert set(flat.labels) == {-1}


def test_pixels_are_pillows(root):
    images = ImageFolder(root, (20, 25), dtype="uint8")
    expected = np.asarray(Image.open(images.path(5)).resize((25, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images[5], expected)
    as_float = ImageFolder(root, (20, 25))[5]
    assert as_float.dtype == np.float32
    # One multiplication by 1/255 rounded: within an ulp or two of the quotient.
    np.testing.assert_allclose(as_float, expected / 255, rtol=3e-7)
    assert ImageFolder(root, None)[0].shape == (30, 40, 3)
    assert ImageFolder(root, color="grayscale")[0].shape == (256, 256, 1)
    assert ImageFolder(root, color="rgba")[0].shape == (256, 256, 4)


def test_decoders_give_the_same_bits(tmp_path):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    big = Image.fromarray(rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)).resize(
        (1003, 701), Image.Resampling.BICUBIC
    )
    for mode in ("RGB", "L"):
        for quality, subsampling in ((95, 0), (80, 2), (30, 1)):
            big.convert(mode).save(tmp_path / "a" / f"{mode}{quality}.jpg", quality=quality, subsampling=subsampling)
            big.convert(mode).save(tmp_path / "a" / f"{mode}{quality}p.jpg", quality=quality, progressive=True)
    for size in (None, (500, 300), (60, 61), (40, 40), (20, 20)):
        one, other = (ImageFolder(tmp_path, size, dtype="uint8", decoder=d) for d in ("opencv", "pillow"))
        for i in range(len(one)):
            np.testing.assert_array_equal(one[i], other[i])


def test_scaled_decoding_cannot_be_told_apart(tmp_path):
    """On photographs: within what is stated at agnostic.data.images.SCALED."""
    data = pytest.importorskip("skimage.data")
    (tmp_path / "a").mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        photo = Image.fromarray(getattr(data, name)())
        photo = photo.resize((2001, 2001 * photo.height // photo.width), Image.Resampling.LANCZOS)
        photo.save(tmp_path / "a" / f"{name}.jpg", quality=90)
    quick, full = (ImageFolder(tmp_path, (150, 150), dtype="uint8", scaled=s) for s in (True, False))
    for i in range(3):
        error = np.abs(quick[i].astype(int) - full[i])
        assert 0 < error.mean() < 0.25
        assert error.max() <= 8
        assert (error > 2).mean() < 1e-3


def test_labels(root):
    order = {"shuffle": False, "batch_size": 23}
    sparse = ImageFolder(root, (8, 8))
    ((_, y),) = sparse.batches(**order)
    assert y.dtype == np.int64
    assert y.tolist() == sparse.labels.tolist()
    ((_, y),) = ImageFolder(root, (8, 8), class_mode="categorical").batches(**order)
    assert y.dtype == np.float32
    assert y.argmax(1).tolist() == sparse.labels.tolist()
    assert y.sum(1).tolist() == [1] * 23
    ((_, y),) = ImageFolder(root, (8, 8), class_mode="binary", classes=["cats", "dogs"]).batches(**order)
    assert y.dtype == np.float32
    assert y.tolist() == [0] * 11 + [1] * 8
    (x,) = ImageFolder(root, (8, 8), class_mode=None).batches(**order)
    assert x.shape == (23, 8, 8, 3)


# Batches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_gives_the_same(root, workers):
    images = ImageFolder(root, (16, 16), augmentation=noise)
    one, many = images.batches(4, seed=3, workers=0), images.batches(4, seed=3, workers=workers)
    for _ in range(2):
        assert_equal(collected(one), collected(many))


RACE = """
import importlib.util, sys, threading
sys.setswitchinterval(1e-5)
from agnostic.data import ImageFolder
from agnostic.opencv import opencv
folder = ImageFolder(sys.argv[1], (8, 8))
assert "cv2" in sys.modules or importlib.util.find_spec("cv2") is None, "left to the threads"
failures = []

def read(load):
    try:
        load()
    except BaseException as error:
        failures.append(repr(error))

loads = [lambda: folder[0]] * 4 + [opencv]
threads = [threading.Thread(target=read, args=[load]) for load in loads]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
"""


def test_threads_may_be_the_first_to_read(root):
    # OpenCV cannot be imported by two threads at once.
    subprocess.run(
        [sys.executable, "-c", RACE, root], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=HANG
    )


def test_every_image_once_and_a_new_order_every_epoch(root):
    batches = ImageFolder(root, (8, 8), dtype="uint8").batches(5, seed=1)
    assert len(batches) == 5
    orders = [batches.order(epoch).tolist() for epoch in range(2)]
    assert orders[0] != orders[1]
    assert all(sorted(order) == list(range(23)) for order in orders)
    images = batches.folder
    for epoch in range(2):
        found = np.concatenate([x for x, _ in batches])
        np.testing.assert_array_equal(found, np.stack([images[i] for i in orders[epoch]]))
    assert batches.epoch == 2
    assert [len(x) for x, _ in images.batches(5, drop_last=True)] == [5] * 4


def test_augmentation_gets_seed_epoch_and_index(root):
    images = ImageFolder(root, (8, 8), augmentation=noise)
    batches = images.batches(4, seed=9)
    list(batches)
    second = np.concatenate([x for x, _ in batches])
    expected = np.stack([noise(images[i], 9, 1, i) for i in batches.order(1).tolist()])
    np.testing.assert_array_equal(second, expected)
    for bad in (lambda image, **_: image[1:], lambda image, **_: image.astype(np.float64), lambda image, **_: None):
        with pytest.raises(InvalidInput, match="the augmentation turned"):
            next(iter(ImageFolder(root, (8, 8), augmentation=bad, on_error="skip").batches()))


def test_augmentation_of_the_house(root):
    augmentation = pytest.importorskip("agnostic.augmentation").Augmentation(rotation=(-40, 40), brightness=(0.5, 1.5))
    images = ImageFolder(root, (16, 16))
    augmented = ImageFolder(root, (16, 16), augmentation=augmentation)
    batches = augmented.batches(23, seed=4)
    for epoch in range(2):
        ((found, _),) = batches
        indices = batches.order(epoch).tolist()
        whole = augmentation(np.stack([images[i] for i in indices]), seed=4, epoch=epoch, index=indices)
        np.testing.assert_array_equal(found, whole)


def test_global_random_state_is_left_alone(root):
    before = np.random.get_state()[1].tolist()
    list(ImageFolder(root, (8, 8)).batches())
    assert np.random.get_state()[1].tolist() == before


def test_images_of_their_own_size_must_agree(root, tmp_path):
    ((x, _),) = ImageFolder(root, None, classes=["birds"]).batches()
    assert x.shape == (4, 30, 40, 3)
    make_folder(tmp_path / "s", {"a": 1})
    picture(0, 7, 7).save(tmp_path / "s" / "a" / "odd.jpg")
    with pytest.raises(InvalidInput, match=r"'a/0000.jpg' is .30, 40., 'a/odd.jpg' is .7, 7.; give size"):
        list(ImageFolder(tmp_path / "s", None).batches(shuffle=False))


# Resuming ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_size", [4, 3])
@pytest.mark.parametrize("taken", [0, 1, 3, 6, 7, 8])
def test_resumes_at_the_very_next_sample(root, taken, batch_size):
    images = ImageFolder(root, (8, 8), augmentation=noise)
    whole = images.batches(4, seed=5)
    samples = [pair for _ in range(3) for x, y in whole for pair in zip(x, y, strict=False)]

    def endless(batches):
        while True:
            yield from batches

    first = images.batches(4, seed=5)
    source, seen = endless(first), []
    for _ in range(taken):
        x, y = next(source)
        seen += zip(x, y, strict=False)
    state = json.loads(json.dumps(first.state_dict()))
    second = images.batches(batch_size, seed=99, workers=0)
    second.load_state_dict(state)
    while second.epoch < 3:
        for x, y in second:
            seen += zip(x, y, strict=False)
    assert_equal(seen, samples)


def test_a_loop_left_early_is_taken_up(root):
    batches = ImageFolder(root, (8, 8)).batches(4, seed=5)
    expected = collected(ImageFolder(root, (8, 8)).batches(4, seed=5))
    x, y = next(iter(batches))
    assert_equal([(x, y), *collected(batches)], expected)


KILLED = """
import json, os, sys
import numpy as np
from agnostic.data import ImageFolder

def noise(image, seed, epoch, index):
    return image + np.random.default_rng([seed, epoch, index]).normal(size=image.shape).astype(np.float32)

folder, state, log = sys.argv[1:]
batches = ImageFolder(folder, (8, 8), augmentation=noise).batches(4, seed=5, workers=2)
if os.path.exists(state):
    with open(state) as file:
        batches.load_state_dict(json.load(file))
while batches.epoch < 2:
    for images, labels in batches:
        # One line a batch, and only then the position: what is lost in between is done again.
        total = float(images.sum(dtype=float))
        record = dict(epoch=batches.epoch, at=batches.position, sum=total, labels=labels.tolist())
        with open(log, "a") as file:
            file.write(json.dumps(record) + "\\n")
        with open(state + ".new", "w") as file:
            json.dump(batches.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(state + ".new", state)
        print(batches.position, flush=True)
        if len(sys.argv) and os.environ.get("SLOW"):
            sys.stdin.readline()
print("end", flush=True)
"""


def test_resumes_after_kill_9(root, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}

    def lines(name, kills):
        log, state = tmp_path / f"{name}.log", tmp_path / f"{name}.json"
        for kill_after in [*kills, None]:
            process = subprocess.Popen(
                [sys.executable, script, root, state, log],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**environment, "SLOW": "1"},
            )
            for count, line in enumerate(process.stdout, 1):
                if count == kill_after:
                    process.send_signal(signal.SIGKILL)
                    break
                if line != "end\n":
                    process.stdin.write("\n")
                    process.stdin.flush()
            process.communicate()
            assert process.returncode == (-signal.SIGKILL if kill_after else 0)
        return [json.loads(line) for line in log.read_text().splitlines()]

    assert lines("killed", kills=[2, 6]) == lines("whole", kills=[])


def test_states_that_do_not_fit(root, tmp_path):
    batches = ImageFolder(root, (8, 8)).batches()
    state = batches.state_dict()
    for bad, message in (
        ({}, "not a state"),
        ([], "not a state"),
        ({**state, "version": 2}, "version 2"),
        ({**state, "files": "x"}, "other files"),
        ({**state, "position": 24}, "position 24"),
        ({**state, "epoch": -1}, "epoch -1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            batches.load_state_dict(bad)
    assert batches.state_dict() == state


# Memory -----------------------------------------------------------------------------------------------------------
MEMORY = """
import sys
import time
from agnostic.data import ImageFolder

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

batches = ImageFolder(sys.argv[1], (16, 16)).batches(256, workers=2)
count, marks = 0, []
batches.folder[0]
marks.append(resident())
for images, labels in batches:
    count += 1
    if count < 10:
        # Slower than the reading: whoever reads ahead without bound gets far ahead.
        time.sleep(0.3)
    if count % 50 == 10:
        marks.append(resident())
print(len(batches.folder), *marks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_is_flat(tmp_path):
    """100,000 files of 16 x 16 x 3 float32 are 307 MB: kept, they would show."""
    for name in ("a", "b"):
        # A file has at most 65,000 names on ext4.
        (tmp_path / "s" / name).mkdir(parents=True)
        one = tmp_path / "s" / name / "00000.jpg"
        picture(3).resize((16, 16)).save(one)
        for index in range(1, 50_000):
            os.link(one, one.with_name(f"{index:05}.jpg"))
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "s"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, *marks = map(int, result.stdout.split())
    assert count == 100_000
    assert len(marks) == 9
    # In use at a time: this batch and three more of 0.8 MB, and the stacks and decoders of two threads. The last four
    # fifths of the epoch would add 240 MB if images were kept, and 8 MB if a hundred bytes an image were.
    assert max(marks) - marks[0] < 25e6, marks
    assert max(marks[2:]) - min(marks[2:]) < 5e6, marks


# Bad input --------------------------------------------------------------------------------------------------------
def bad_file(path, kind):
    """A file of that kind; True where it can be made here."""
    good = picture(0)
    if kind == "truncated":
        good.resize((400, 300)).save(path, "JPEG", quality=95)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "truncated, zeros follow":
        good.resize((400, 300)).save(path, "JPEG", quality=95)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(64))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no image")
    elif kind == "broken link":
        path.symlink_to(path.parent / "nowhere.jpg")
    elif kind == "animation":
        good.save(path, "GIF", save_all=True, append_images=[picture(20)])
    elif kind == "float":
        Image.fromarray(np.ones((5, 5), np.float32)).save(path, "TIFF")
    elif kind == "beyond 16 bits":
        Image.fromarray(np.full((5, 5), 70000, np.int32)).save(path, "TIFF")
    elif kind == "truncated png":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(path, "PNG")
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "directory":
        path.mkdir()
        pytest.skip("a directory is no file and is not listed")


BAD = {
    "truncated": "truncated",
    "truncated, zeros follow": "truncated",
    "truncated png": "truncated",
    "empty": "empty .0 bytes.",
    "text": "no image of a format that is read here .AVIF, .*; it begins with b'this is no i'",
    "broken link": "broken symbolic link to '.*nowhere.jpg'",
    "animation": "2 frames",
    "float": "floating-point",
    "beyond 16 bits": "70000",
}


@pytest.mark.parametrize("decoder", ["opencv", "pillow"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_files(tmp_path, kind, decoder):
    if decoder == "opencv":
        pytest.importorskip("cv2")
    make_folder(tmp_path / "s", {"a": 3})
    bad_file(tmp_path / "s" / "a" / "0001 bad.jpg", kind)
    images = ImageFolder(tmp_path / "s", (8, 8), decoder=decoder)
    with pytest.raises(UnreadableFile, match=f"^cannot read '.*0001 bad.jpg': it .*{BAD[kind]}") as caught:
        list(images.batches(2, shuffle=False))
    assert isinstance(caught.value, InvalidInput)
    assert "\n" not in str(caught.value)

    batches = ImageFolder(tmp_path / "s", (8, 8), decoder=decoder, on_error="skip").batches(2, shuffle=False)
    with pytest.warns(SkippedFiles, match=f"skipped 1 of 4 files: .*{BAD[kind]}") as warned:
        sizes = [(len(x), len(y)) for x, y in batches]
    assert sizes == [(1, 1), (2, 2)]
    assert len(warned) == 1


def test_an_error_comes_at_its_batch_and_the_rest_can_go_on(tmp_path):
    make_folder(tmp_path / "s", {"a": 9})
    (tmp_path / "s" / "a" / "0004.jpg").write_bytes(b"")
    batches = ImageFolder(tmp_path / "s", (8, 8)).batches(2, shuffle=False, workers=3)
    got = []
    with pytest.raises(UnreadableFile, match=r"0004\.jpg"):
        got.extend(len(x) for x, _ in batches)
    assert got == [2, 2]
    assert batches.position == 4


def test_skipped_files_survive_a_restart_and_empty_batches_are_left_out(tmp_path):
    make_folder(tmp_path / "s", {"a": 6})
    for name in ("0000", "0001"):
        (tmp_path / "s" / "a" / f"{name}.jpg").write_bytes(b"")
    images = ImageFolder(tmp_path / "s", (8, 8), on_error="skip")
    first = images.batches(2, shuffle=False)
    assert len(next(iter(first))[0]) == 2
    assert first.position == 4
    second = images.batches(2, shuffle=False)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with pytest.warns(SkippedFiles, match="skipped 2 of 6"):
        assert [len(x) for x, _ in second] == [2]


def test_nothing_is_reported_where_nothing_was_skipped(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(ImageFolder(root, (8, 8), on_error="skip").batches())


def one(tmp_path, name="x.png", **options):
    """The only image of a folder, as uint8."""
    return ImageFolder(tmp_path, None, class_mode=None, dtype="uint8", **options)[0]


def test_exif_orientation_is_applied(tmp_path):
    from PIL import ImageOps

    corner = Image.fromarray(np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8)))
    for decoder in ("pillow", "auto"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            corner.convert("RGB").save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
            with Image.open(tmp_path / "x.jpg") as image:
                upright = ImageOps.exif_transpose(image)
                np.testing.assert_array_equal(one(tmp_path, decoder=decoder), np.asarray(upright))
                expected = upright.resize((9, 15), Image.Resampling.BILINEAR)
            got = ImageFolder(tmp_path, (15, 9), class_mode=None, dtype="uint8", decoder=decoder)[0]
            # Pillow rounds to 8 bits between its two passes, and the order of the passes is that of the file's axes.
            assert np.abs(got.astype(int) - np.asarray(expected)).max() <= 1
    (tmp_path / "x.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    corner.save(tmp_path / "x.png", exif=exif)
    assert one(tmp_path).shape == (32, 24, 3)


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    # Full magenta and yellow ink is red; JPEG's rounding moves it by a few.
    assert np.abs(one(tmp_path)[4, 4].astype(int) - (255, 0, 0)).max() <= 4


def test_16_bits_become_8_by_their_range(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(3, 0)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    got = one(tmp_path, color="grayscale")[0, :, 0]
    assert np.abs(got - ramp[0] / 257).max() <= 0.5 + 1e-9
    assert (one(tmp_path) == got[None, :, None]).all()


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), values[..., ::-1])
    np.testing.assert_array_equal(one(tmp_path), values >> 8)


def test_palette_with_alpha_is_seen_over_the_background(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 10, 20, 1, 2, 3])
    image.save(tmp_path / "x.png", transparency=1)
    assert one(tmp_path).tolist() == [[[200, 10, 20], [255, 255, 255]]]
    assert one(tmp_path, background=(0, 9, 0))[0, 1].tolist() == [0, 9, 0]
    assert one(tmp_path, color="rgba")[0, :, 3].tolist() == [255, 0]


def test_half_transparent_pixels_are_mixed(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 51)).save(tmp_path / "x.png")
    assert one(tmp_path)[0, 0].tolist() == [204] * 3
    assert one(tmp_path, color="grayscale")[0, 0].tolist() == [204]


def test_first_frame(tmp_path):
    bad_file(tmp_path / "x.gif", "animation")
    with Image.open(tmp_path / "x.gif") as image:
        np.testing.assert_array_equal(one(tmp_path, first_frame=True), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "name", ["名前 ü.jpg", "  two  blanks .jpg", 'quote\'s "x".JPG', "new\nline.jpg", "a%20b.jpeg"]
)
def test_names(tmp_path, name):
    make_folder(tmp_path / "s", {"klasse ß": 1})
    picture(7).save(tmp_path / "s" / "klasse ß" / name, "JPEG")
    images = ImageFolder(tmp_path / "s", (8, 8))
    assert f"klasse ß/{name}" in images.files
    assert images.class_names == ("klasse ß",)
    assert len(next(iter(images.batches()))[0]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_a_name_that_is_no_text(tmp_path):
    make_folder(tmp_path / "s", {"a": 1})
    os.rename(tmp_path / "s" / "a" / "0000.jpg", os.fsencode(tmp_path / "s" / "a") + b"/\xff.jpg")
    batches = ImageFolder(tmp_path / "s", (8, 8)).batches()
    assert len(next(iter(batches))[0]) == 1
    json.dumps(batches.state_dict())


def test_what_is_no_image_by_name_is_passed_over(tmp_path):
    make_folder(tmp_path / "s", {"a": 1, ".ipynb_checkpoints": 1})
    (tmp_path / "s" / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "s" / "a" / "._0000.jpg").write_bytes(b"x")
    (tmp_path / "s" / "notes.txt").write_text("x")
    assert ImageFolder(tmp_path / "s").files == ("a/0000.jpg",)


def test_links_to_files_are_read(tmp_path):
    make_folder(tmp_path / "s", {"a": 1})
    (tmp_path / "s" / "a" / "link.jpg").symlink_to(tmp_path / "s" / "a" / "0000.jpg")
    images = ImageFolder(tmp_path / "s", (8, 8))
    np.testing.assert_array_equal(images[0], images[1])


def test_an_empty_class(tmp_path):
    make_folder(tmp_path / "s", {"a": 2, "empty": 0, "z": 1})
    with pytest.raises(InvalidInput, match=r"empty' has no images.*on_error='skip'"):
        ImageFolder(tmp_path / "s")
    images = ImageFolder(tmp_path / "s", (8, 8), on_error="skip")
    assert images.labels.tolist() == [0, 0, 2]
    assert images.empty_classes == ("empty",)
    with pytest.warns(SkippedFiles, match="no images in the class folders 'empty'"):
        list(images.batches())
    with pytest.raises(InvalidInput, match="has no images"):
        ImageFolder(tmp_path / "s", classes=["empty"], on_error="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_mode": "binary"}, "binary' needs two classes and .* has 3"),
        ({"class_mode": "binary", "classes": ["cats"]}, "has 1 .cats."),
        ({"classes": ["cat"]}, "no class folder 'cat' .*did you mean 'cats'"),
        ({"classes": ["cats", "cats"]}, "differ"),
        ({"class_mode": "catgorical"}, "did you mean 'categorical'"),
        ({"color": "rbg"}, "did you mean 'rgb'"),
        ({"interpolation": "linear"}, "did you mean 'bilinear'"),
        ({"size": 256}, "size must be"),
        ({"size": (0, 5)}, "size must be"),
        ({"size": (5.0, 5)}, "size must be"),
        ({"dtype": "float64"}, "dtype"),
        ({"on_error": "ignore"}, "on_error"),
        ({"augmentation": 3}, "an Augmentation or a function"),
        ({"background": (0, 0, 256)}, "background"),
        ({"decoder": "jpeg"}, "decoder"),
    ],
    ids=str,
)
def test_wrong_arguments(root, options, message):
    with pytest.raises(InvalidInput, match=message):
        ImageFolder(root, **options)


def test_folders_that_are_none(root, tmp_path):
    with pytest.raises(InvalidInput, match="does not exist; did you mean 'set'"):
        ImageFolder(root.parent / "sett")
    with pytest.raises(InvalidInput, match="is no folder"):
        ImageFolder(root / "cats" / "0000.jpg")
    with pytest.raises(InvalidInput, match="class_mode=None"):
        ImageFolder(root / "cats")
    with pytest.raises(InvalidInput, match="no images"):
        ImageFolder(tmp_path, class_mode=None)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"seed": -1}, {"workers": -1}, {"seed": None}, {"batch_size": 2.0}]
)
def test_wrong_arguments_of_batches(root, options):
    with pytest.raises(InvalidInput, match=next(iter(options))):
        ImageFolder(root).batches(**options)


@pytest.mark.parametrize(
    "augmentation", [lambda image: image, lambda image, seed: image, np.fliplr], ids=["one", "seed", "numpy"]
)
def test_functions_that_take_other_arguments_are_refused(root, augmentation):
    with pytest.raises(InvalidInput, match=r"called as augmentation\(image, seed=, epoch=, index=\), and .* wrap it"):
        ImageFolder(root, augmentation=augmentation)


def test_numbers_of_numpy_are_numbers(root):
    images = ImageFolder(root, (np.int64(6), np.uint8(9)))
    assert images.size == (6, 9)
    assert images[np.int64(1)].shape == (6, 9, 3)
    batches = images.batches(np.int32(2), seed=np.uint64(3), workers=np.int8(0))
    assert json.dumps(batches.state_dict())
    for wrong in (1.5, True, "1", -1, np.float32(2)):
        with pytest.raises(InvalidInput, match=r"seed must be an integer of 0 or more, not "):
            images.batches(2, seed=wrong)


def test_split_divides_every_class_and_augments_training_alone(tmp_path):
    make_folder(tmp_path / "s", {"a": 20, "b": 5, "c": 2})
    whole = ImageFolder(tmp_path / "s", (8, 8), augmentation=lambda image, seed, epoch, index: image * 0)
    train, validation = whole.split(0.2, seed=1)
    assert sorted(train.files + validation.files) == sorted(whole.files)
    assert not set(train.files) & set(validation.files)
    assert np.bincount(validation.labels).tolist() == [4, 1, 1]  # at least one
    for part in (train, validation):
        assert part.class_names == whole.class_names
        assert [f"{whole.class_names[k]}/" for k in part.labels] == [f[:2] for f in part.files]
        assert len(part) == len(part.labels) == sum(len(x) for x, _ in part.batches(4))
        assert pickle.loads(pickle.dumps(replace_augmentation(part))).files == part.files
    assert not np.concatenate([x for x, _ in train.batches(4)]).any()
    x, y = next(iter(validation.batches(9, shuffle=False)))
    np.testing.assert_array_equal(x[0], whole[whole.files.index(validation.files[0])])
    np.testing.assert_array_equal(y, validation.labels)

    assert whole.split(0.2, seed=1)[1].files == validation.files
    assert whole.split(0.2, seed=2)[1].files != validation.files
    assert whole.augmentation is not None
    assert len(whole) == 27
    # A state of the one is none of the other.
    with pytest.raises(InvalidInput, match="other files"):
        validation.batches(4).load_state_dict(train.batches(4).state_dict())
    unlabelled = ImageFolder(tmp_path / "s", (8, 8), class_mode=None)
    assert [len(part) for part in unlabelled.split(0.5)] == [13, 14]


def replace_augmentation(images):
    """The same without its function, which has no name to be pickled by."""
    part = copy.copy(images)
    object.__setattr__(part, "augmentation", None)
    return part


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.2, "half", None])
def test_a_split_is_a_fraction(root, fraction):
    with pytest.raises(InvalidInput, match=r"a fraction between 0 and 1, such as 0\.2"):
        ImageFolder(root).split(fraction)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    make_folder(tmp_path / "s", {"a": 4, "lonely": 1})
    with pytest.raises(InvalidInput, match="'lonely' has one image only"):
        ImageFolder(tmp_path / "s").split(0.25)


def test_class_weights_are_the_balanced_ones(tmp_path):
    weights = ImageFolder(make_folder(tmp_path / "s", {"a": 6, "b": 1, "c": 5}), (8, 8)).class_weights()
    # n / (classes * count), as scikit-learn's class_weight="balanced".
    assert weights == {0: 12 / 18, 1: 12 / 3, 2: 12 / 15}
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.random.default_rng(0).integers(0, 7, 200)
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(list(class_weights(labels).values()), expected, rtol=1e-15)
    assert class_weights([0, 0, 2], classes=4) == {0: 0.75, 1: 0.0, 2: 1.5, 3: 0.0}
    assert list(class_weights(torch_labels())) == [0, 1]
    for wrong in ([], [0.5], [[0, 1]], [-1, 0], ["a"]):
        with pytest.raises(InvalidInput, match="labels must be class indices"):
            class_weights(wrong)
    with pytest.raises(InvalidInput, match="classes must be an integer of 3 or more, not 2"):
        class_weights([0, 2], classes=2)
    with pytest.raises(InvalidInput, match="no class weights"):
        ImageFolder(tmp_path / "s", class_mode=None).class_weights()


def torch_labels():
    return pytest.importorskip("torch").tensor([0, 1, 1])
