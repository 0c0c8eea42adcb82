"""Images without labels: what is listed, with which sizes, and what is left out."""

import json
import re
import shutil
import struct
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from dap.datasets.voc_files import VOC_CLASSES
from dap.self_training import image_size, write_unlabelled
from dap.testing import make_voc, write_image


@pytest.fixture
def voc(tmp_path):
    """A devkit with two splits and no Annotations folder."""
    root = make_voc(tmp_path / "VOC2012", {"trainval": 3, "test": 1}, size_hw=(48, 64))
    shutil.rmtree(root / "Annotations")
    return root


def read(path):
    return json.loads(path.read_text())


def test_split_of_voc(voc, tmp_path):
    out = tmp_path / "new" / "images.json"
    assert write_unlabelled(voc, out, "trainval") == {"images": 3, "left_out": []}
    content = read(out)
    assert content["images"] == [
        {"id": number + 1, "file_name": f"{number:06d}.jpg", "width": 64, "height": 48}
        for number in range(3)
    ]
    assert content["annotations"] == []
    assert [(c["id"], c["name"]) for c in content["categories"]][::19] == [
        (1, "aeroplane"),
        (20, "tvmonitor"),
    ]
    assert [path.name for path in out.parent.iterdir()] == ["images.json"]


def test_mmdet_reads_it(voc, tmp_path):
    write_unlabelled(voc, tmp_path / "images.json", "trainval")
    dataset = CocoDataset(
        ann_file=str(tmp_path / "images.json"),
        data_prefix={"img": f"{voc}/JPEGImages/"},
        metainfo={"classes": VOC_CLASSES},
        pipeline=[],
        test_mode=True,
    )
    assert [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))] == [1, 2, 3]
    assert all(Path(dataset.get_data_info(i)["img_path"]).is_file() for i in range(3))


def test_folder_of_images(tmp_path):
    images = tmp_path / "images"
    for name in ("b.png", "deep/er/a.JPG", "a.jpg"):
        write_image(images / name, np.zeros((20, 30, 3), np.uint8))
    (images / "readme.txt").write_text("no image")
    (tmp_path / "elsewhere").mkdir()
    write_image(tmp_path / "elsewhere" / "c.jpg", np.zeros((5, 6, 3), np.uint8))
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    write_unlabelled(images, tmp_path / "out.json", classes=["x", "a thing"])
    content = read(tmp_path / "out.json")
    names = [image["file_name"] for image in content["images"]]
    assert names == ["a.jpg", "b.png", "deep/er/a.JPG", "linked/c.jpg"]
    assert content["images"][3] == {"id": 4, "file_name": names[3], "width": 6, "height": 5}
    assert [category["name"] for category in content["categories"]] == ["x", "a thing"]


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_loaded_image(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{kind}"
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    assert image_size(path) == mmcv.imread(path).shape[:2]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_broken_exif_does_not_cost_the_image(tmp_path, kind):
    path = tmp_path / f"image.{kind}"
    Image.new("RGB", (40, 20), "red").save(path, exif=b"Exif\0\0no header of TIFF")
    assert image_size(path) == mmcv.imread(path).shape[:2] == (20, 40)


def exif_block(kind, count, value, order="<"):
    """Build EXIF data of one tag, the orientation."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHHI", 1, 0x0112, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0" + head + entry + bytes(4)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "exif",
    [
        exif_block(1, 1, b"\6"),  # BYTE
        exif_block(7, 1, b"\6"),  # UNDEFINED
        exif_block(3, 2, b"\1\0\6\0"),  # two SHORTs
        exif_block(4, 1, b"\6\0\0\0"),  # LONG
        exif_block(4, 1, b"\0\0\0\6", ">"),
        exif_block(3, 1, b"\0\0"),
        exif_block(3, 1, b"\11\0"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_orientation_stored_oddly(tmp_path, kind, exif):
    path = tmp_path / f"image.{kind}"
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    assert image_size(path) == mmcv.imread(path).shape[:2]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.filterwarnings("ignore")
def test_exif_cut_off_anywhere(tmp_path, kind):
    whole = exif_block(3, 1, b"\6\0")
    path = tmp_path / f"image.{kind}"
    for end in range(6, len(whole) + 1):
        Image.new("RGB", (40, 20), "red").save(path, exif=whole[:end])
        assert image_size(path) == mmcv.imread(path).shape[:2], end


def test_size_of_grey_palette_and_alpha_images(tmp_path):
    for number, mode in enumerate(("L", "P", "RGBA", "I;16")):
        Image.new(mode, (40, 20)).save(tmp_path / f"{number}.png")
        assert image_size(tmp_path / f"{number}.png") == (20, 40)


def test_only_the_header_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 130, 3), np.uint8)
    for name in ("a.png", "a.jpg"):
        path = write_image(tmp_path / name, noise)
        path.write_bytes(path.read_bytes()[:2000])
        assert image_size(path) == (120, 130)


def test_broken_images_are_left_out_and_named(voc, tmp_path):
    (voc / "JPEGImages" / "000000.jpg").write_bytes(b"")
    (voc / "JPEGImages" / "000001.jpg").unlink()
    done = write_unlabelled(voc, tmp_path / "images.json", "trainval")
    assert done["images"] == 1
    assert [item["file"] for item in done["left_out"]] == ["000000.jpg", "000001"]
    assert done["left_out"][0]["reason"].startswith("UnidentifiedImageError: ")
    assert done["left_out"][1]["reason"].endswith("JPEGImages/000001.*, found none")
    content = read(tmp_path / "images.json")
    assert content["info"]["left_out"] == done["left_out"]
    assert [(image["id"], image["file_name"]) for image in content["images"]] == [(1, "000002.jpg")]


def test_images_of_voc_of_any_kind(voc, tmp_path):
    for path, suffix in zip(sorted((voc / "JPEGImages").iterdir()), (".png", ".JPG"), strict=False):
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()
    Image.new("RGB", (5, 5)).save(voc / "JPEGImages" / "000002.png")  # beside 000002.jpg
    done = write_unlabelled(voc, tmp_path / "images.json", "trainval")
    names = [image["file_name"] for image in read(tmp_path / "images.json")["images"]]
    assert names == ["000000.png", "000001.JPG"]
    assert [item["file"] for item in done["left_out"]] == ["000002"]
    assert "found 2 (000002.jpg, 000002.png)" in done["left_out"][0]["reason"]


def test_file_with_other_content_is_not_written_over(voc, tmp_path):
    """Predictions made on it name images by their place in it."""
    out = tmp_path / "images.json"
    write_unlabelled(voc, out, "trainval")
    before = out.read_bytes()
    write_unlabelled(voc, out, "trainval")
    with pytest.raises(FileExistsError, match=r"images\.json is there with other content.*Move it"):
        write_unlabelled(voc, out, "test")
    assert out.read_bytes() == before
    with pytest.raises(IsADirectoryError, match="VOC2012 is a folder"):
        write_unlabelled(voc, voc, "trainval")


def test_list_with_a_bom(voc, tmp_path):
    listing = voc / "ImageSets" / "Main" / "trainval.txt"
    listing.write_text("\ufeff" + listing.read_text(), encoding="utf-8")
    assert write_unlabelled(voc, tmp_path / "images.json", "trainval")["left_out"] == []


def test_no_image_left(voc, tmp_path):
    for path in (voc / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"found 3 files that cannot be read.*000000\.\*, found"):
        write_unlabelled(voc, tmp_path / "images.json", "trainval")
    (voc / "JPEGImages").rmdir()
    with pytest.raises(NotADirectoryError, match="JPEGImages is no folder"):
        write_unlabelled(voc, tmp_path / "images.json", "trainval")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found 0 files"):
        write_unlabelled(tmp_path / "empty", tmp_path / "images.json")
    assert not (tmp_path / "images.json").exists()


def test_what_is_not_there(voc, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ImageSets/Main/val\.txt is not there"):
        write_unlabelled(voc, tmp_path / "images.json", "val")
    with pytest.raises(NotADirectoryError, match="nowhere is no folder"):
        write_unlabelled(tmp_path / "nowhere", tmp_path / "images.json")


def test_tool(voc, tmp_path, run_here):
    (voc / "JPEGImages" / "000001.jpg").write_bytes(b"no image")
    classes, out = tmp_path / "classes.txt", tmp_path / "images.json"
    classes.write_text("cat\n\ntraffic light\n")
    command = ["unlabelled_images", voc, "--out", out, "--classes", classes]
    done = run_here(*command, "--split", "trainval")
    assert done.returncode == 0, done.stderr
    assert f"{out}: images: 2, categories: 2, no labels" in done.stdout
    assert "warning: files left out: 1," in done.stderr
    assert "000001.jpg: UnidentifiedImageError" in done.stderr
    assert [c["name"] for c in read(out)["categories"]] == ["cat", "traffic light"]
    classes.write_text("cat\ncat\n")
    done = run_here(*command)
    assert done.returncode == 1
    assert re.search(r"error: .*found 'cat' twice", done.stderr)
