"""A folder as it comes from the internet: what is odd in it stops nothing and changes nothing."""

import functools
import json
import multiprocessing
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import CustomDataset
from PIL import Image

from dap.images import image_files
from dap.images.labelled_images import LabelledImages, read_image
from dap.images.reading import read_in_order
from dap.pseudo_boxes import (
    Execution,
    PseudoBoxSettings,
    generate_from_config,
    generate_pseudo_boxes,
)
from dap.testing import draw_image, make_class_folders, write_image
from tests.support.planted import planted_classifier
from tests.support.zoo import save_random_weights, zoo_config

SETTINGS = PseudoBoxSettings(short_sides=(128,), thresholds=(0.3, 0.5), rule="paper")
UPRIGHT = draw_image((128, 192), [(32, 32, 96, 96)], ["red"])  # 128 high, 192 wide
NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")

# Name → (width, height) as read, or what the reason says.
READABLE = {
    "plain.jpg": (192, 128),
    "grey.jpg": (192, 128),
    "cmyk.jpg": (192, 128),
    "sixteen.png": (192, 128),
    "palette.png": (192, 128),
    "alpha.png": (192, 128),
    "grey_alpha.png": (192, 128),
    "turned.jpg": (192, 128),
    "bad_exif.jpg": (192, 128),
    "one.png": (1, 1),
    "column.png": (1, 2000),
    "row.png": (2000, 1),
    "strip.png": (30_000, 40),
    "animated_gif.jpg": (192, 128),
    "animated_webp.jpg": (192, 128),
    "animated_png.png": (192, 128),
    "with space.jpg": (192, 128),
    "new\nline.jpg": (192, 128),
    "Übergrößenträger 猫.jpg": (192, 128),
    NOT_UTF8: (192, 128),
    "link.jpg": (192, 128),
}
UNREADABLE = {
    "truncated.jpg": "cut off after",
    "cut.png": "cut off after",
    "cut.webp": "it starts with 'RIFF",
    "empty.jpg": "the file is empty",
    "html.jpg": "it starts with '<!DOCTYPE html>",
    "noise.png": "not an image that cv2 can decode",
    "huge.png": "30000 x 30000 pixels, more than",
    "dangling.jpg": "FileNotFoundError",
    "removed.jpg": "FileNotFoundError",
    "folder.jpg": "IsADirectoryError",
    "pipe.jpg": "no regular file",
}


@functools.cache
def uniform_png(width: int, height: int) -> bytes:
    """A grey PNG of one colour, made row by row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    packer = zlib.compressobj(1)
    row = b"\0" + b"\x6e" * width
    rows = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def exif(orientation: int, kind: int = 3) -> bytes:
    """A JPEG segment with an orientation; ``kind`` is its TIFF type, 3 where it is sound."""
    entry = struct.pack(">HHIHH", 0x0112, kind, 1, orientation, 0)
    content = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def write_readable(folder: Path):
    rgb = Image.fromarray(UPRIGHT[..., ::-1].copy())
    other = Image.new("RGB", rgb.size, "blue")
    frames = {"save_all": True, "append_images": [other], "duration": 50}
    jpeg = cv2.imencode(".jpg", UPRIGHT)[1].tobytes()
    for name in ("plain.jpg", "with space.jpg", "new\nline.jpg", "Übergrößenträger 猫.jpg",
                 NOT_UTF8):  # fmt: skip
        (folder / name).write_bytes(jpeg)
    (folder / "link.jpg").symlink_to("plain.jpg")
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    write_image(folder / "sixteen.png", UPRIGHT.astype(np.uint16) * 257)
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("LA").save(folder / "grey_alpha.png")
    lying = cv2.rotate(UPRIGHT, cv2.ROTATE_90_COUNTERCLOCKWISE)
    lying = cv2.imencode(".jpg", lying)[1].tobytes()
    (folder / "turned.jpg").write_bytes(lying[:2] + exif(6) + lying[2:])
    (folder / "bad_exif.jpg").write_bytes(jpeg[:2] + exif(99, kind=7) + jpeg[2:])
    for name, size in (("one", (1, 1)), ("column", (2000, 1)), ("row", (1, 2000))):
        write_image(folder / f"{name}.png", draw_image(size, [], []))
    (folder / "strip.png").write_bytes(uniform_png(30_000, 40))
    rgb.save(folder / "animated_gif.jpg", "GIF", **frames)
    rgb.save(folder / "animated_webp.jpg", "WEBP", lossless=True, **frames)
    rgb.save(folder / "animated_png.png", "PNG", **frames)


def write_unreadable(folder: Path):
    jpeg = cv2.imencode(".jpg", UPRIGHT)[1].tobytes()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "cut.png").write_bytes(cv2.imencode(".png", UPRIGHT)[1].tobytes()[:-20])
    webp = cv2.imencode(".webp", UPRIGHT)[1].tobytes()
    (folder / "cut.webp").write_bytes(webp[: len(webp) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "html.jpg").write_text("<!DOCTYPE html>\n<html><body>404</body></html>")
    (folder / "noise.png").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "huge.png").write_bytes(uniform_png(30_000, 30_000))
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")


def listed(root: Path) -> CustomDataset:
    """A dataset of all that stands in the class folders, by a dataset's own list.

    An annotation file cannot hold the name with a newline, a scan leaves out the folder.
    """
    classes = sorted(path.name for path in root.iterdir())
    data = [
        {"img_path": str(path), "gt_label": classes.index(path.parent.name)}
        for path in sorted(root.glob("*/*"))
    ]

    class Listed(CustomDataset):
        def load_data_list(self):
            return data

    return Listed(data_root=str(root), metainfo={"classes": classes})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Good images alone, and the same among bad ones; with the same names in other classes."""
    base = tmp_path_factory.mktemp("odd")
    good, mixed = (make_class_folders(base / name, 2) for name in ("good", "mixed"))
    write_readable(mixed / "red")
    write_unreadable(mixed / "red")
    (mixed / "red" / "removed.jpg").write_bytes((mixed / "red" / "plain.jpg").read_bytes())
    return good, mixed


@pytest.fixture
def mixed_dataset(folders):
    removed = folders[1] / "red" / "removed.jpg"
    removed.touch()
    dataset = listed(folders[1])
    removed.unlink()
    return dataset


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_odd_file_is_read_or_named(mixed_dataset, num_workers):
    images = LabelledImages(mixed_dataset)
    found = {
        sample.entry.file_name: sample
        for sample in read_in_order(images, range(len(images)), num_workers)
    }
    assert len(found) == 6 + len(READABLE) + len(UNREADABLE)
    for name, (width, height) in READABLE.items():
        sample = found[f"red/{name}"]
        assert sample.error is None, (name, sample.error)
        assert sample.image.shape == (3, height, width), name
    for name, reason in UNREADABLE.items():
        sample = found[f"red/{name}"]
        assert sample.image is None, name
        assert reason in sample.error, (name, sample.error)


def boxes_by_file(out: Path):
    content = json.loads((out / "annotations.json").read_text())
    found = {
        image["file_name"]: ((image["width"], image["height"]), []) for image in content["images"]
    }
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        box = (annotation["category_id"], annotation["bbox"], annotation["threshold"])
        found[names[annotation["image_id"]]][1].append(box)
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_run_over_odd_files(folders, mixed_dataset, tmp_path, num_workers):
    good, _ = folders
    run = {"settings": SETTINGS, "execution": Execution(num_workers)}
    generate_pseudo_boxes(planted_classifier(), listed(good), tmp_path / "good", **run)
    summary = generate_pseudo_boxes(planted_classifier(), mixed_dataset, tmp_path / "mixed", **run)

    failed = {failure["file_name"]: failure["reason"] for failure in summary["failed"]}
    assert failed.keys() == {f"red/{name}" for name in UNREADABLE}
    for name, reason in UNREADABLE.items():
        assert reason in failed[f"red/{name}"]

    alone, among = boxes_by_file(tmp_path / "good"), boxes_by_file(tmp_path / "mixed")
    assert {name: among[name] for name in alone} == alone
    assert all(boxes for _, boxes in alone.values())
    sizes = {name: size for name, (size, _) in among.items() if name not in alone}
    assert sizes == {f"red/{name}": size for name, size in READABLE.items()}

    reference = [box for _, box, _ in among["red/plain.jpg"][1]]
    assert len(reference) == 1
    colourless = {"grey.jpg", "grey_alpha.png", "one.png", "column.png", "row.png", "strip.png"}
    for name in READABLE:
        boxes = [box for _, box, _ in among[f"red/{name}"][1]]
        if name in colourless:
            assert boxes == [], name
        else:
            np.testing.assert_allclose(boxes, reference, atol=3, err_msg=name)
    for image in json.loads((tmp_path / "mixed" / "annotations.json").read_text())["images"]:
        assert os.path.exists(folders[1] / image["file_name"])  # the names lead to the files


def test_file_that_may_not_be_read(tmp_path):
    """In a child process, which can give up the rights of root, who may read everything."""
    root = make_class_folders(tmp_path / "images", 1)
    (root / "red" / "0.jpg").chmod(0)
    images = LabelledImages(CustomDataset(data_root=str(root)))
    entry = images.entry(2)._replace(path="0.jpg")  # root alone may go through the folders above
    images.entry = lambda index: entry
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def read_as_nobody():
        os.chdir(root / "red")
        if os.getuid() == 0:
            os.setuid(65534)
        results.put(images[2].error)

    child = context.Process(target=read_as_nobody)
    child.start()
    assert "PermissionError" in results.get()
    child.join()


def png_size(path: Path, width: int, height: int) -> Path:
    """A PNG file whose header alone is sound."""
    header = uniform_png(1, 1)
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(content))
    path.write_bytes(header[:12] + content + crc + header[33:])
    return path


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.filterwarnings("error")
def test_limit_of_pixels(tmp_path, monkeypatch, backend):
    limit = Image.MAX_IMAGE_PIXELS
    loader = LoadImageFromFile(imdecode_backend=backend)
    for size in ((10_001, 10_001), (16_384, 8192)):  # where PIL warns, and the most there may be
        with pytest.raises(ValueError, match=r"cv2 can decode|pillow cannot decode"):
            read_image(str(png_size(tmp_path / "x.png", *size)), loader)
    with pytest.raises(ValueError, match="16385 x 8192 pixels, more than 134217728: it is left"):
        read_image(str(png_size(tmp_path / "x.png", 16_385, 8192)), loader)
    assert limit == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(image_files, "MAX_PIXELS", 128 * 192 - 1)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff"):
        with pytest.raises(ValueError, match="192 x 128 pixels, more than 24575"):
            read_image(str(write_image(tmp_path / f"x{suffix}", UPRIGHT)), loader)


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_damaged_bytes_raise_nothing_else(tmp_path, backend):
    """Each kind of file with bytes changed at random: an image or a ValueError comes of it."""
    rng = np.random.default_rng(0)
    loader = LoadImageFromFile(imdecode_backend=backend)
    jpeg, *wholes = (
        cv2.imencode(suffix, UPRIGHT[:48, :64])[1].tobytes()
        for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".jp2", ".ppm")
    )
    wholes.append(jpeg[:2] + exif(6) + jpeg[2:])
    outcomes = set()
    for number in range(700):
        data = np.frombuffer(wholes[number % len(wholes)], np.uint8).copy()
        places = rng.integers(0, min(len(data), 120), rng.integers(1, 5))
        data[places] = rng.integers(0, 256, len(places))
        path = tmp_path / "x"
        path.write_bytes(data.tobytes())
        try:
            image = read_image(str(path), loader)
        except ValueError as error:
            outcomes.add(type(error))
        else:
            assert image.shape[0] == 3
            outcomes.add(type(image))
    assert len(outcomes) == 2


def test_decoders_that_return_something_else_are_named(tmp_path):
    path = write_image(tmp_path / "x.png", UPRIGHT.astype(np.uint16))
    with pytest.raises(ValueError, match=r"decoded to uint16 of shape \(128, 192, 3\)"):
        read_image(str(path), LoadImageFromFile(color_type="unchanged"))


def test_classifier_of_the_zoo_over_odd_files(folders, tmp_path):
    """By the tool's function, which lists the folders itself."""
    (folders[1] / "red" / "removed.jpg").unlink(missing_ok=True)
    config = zoo_config(folders[1])
    checkpoint = save_random_weights(config, tmp_path / "weights.pth")
    execution = Execution(num_workers=0)
    summary = generate_from_config(
        config, str(checkpoint), tmp_path / "out", str(folders[1]), execution=execution
    )
    failed = {failure["file_name"] for failure in summary["failed"]}
    not_listed = {"red/folder.jpg", "red/removed.jpg"}  # a folder is no image, the other is gone
    assert failed == {f"red/{name}" for name in UNREADABLE} - not_listed
    assert summary["images"] == 6 + len(READABLE)
