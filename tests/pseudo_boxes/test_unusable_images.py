"""Step 2 on images of all kinds: which are read, and what happens to those that cannot be used."""

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS

from dap.pseudo_boxes import Execution
from dap.runs import health
from dap.testing import draw_image, make_class_folders, write_image
from tests.support.planted import model_config, planted_state
from tests.support.planted_runs import generate


def test_broken_images_are_counted_named_and_left_out(tmp_path):
    root = make_class_folders(tmp_path / "images", 2)
    whole = (root / "red" / "0.jpg").read_bytes()
    (root / "red" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "red" / "empty.jpg").write_bytes(b"")
    (root / "red" / "text.png").write_text("no image")
    png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (root / "red" / "cut.png").write_bytes(png[:-20])
    summary, coco = generate(root, tmp_path / "out", num_workers=2)
    assert summary["images"] == len(coco["images"]) == 6
    reasons = {failure["file_name"]: failure["reason"] for failure in summary["failed"]}
    assert reasons.keys() == {f"red/{n}" for n in ("truncated.jpg", "empty.jpg", "text.png",
                                                   "cut.png")}  # fmt: skip
    assert "cut off" in reasons["red/truncated.jpg"]
    assert "cut off" in reasons["red/cut.png"]
    assert "empty" in reasons["red/empty.jpg"]
    assert "not an image" in reasons["red/text.png"]


def test_file_that_vanishes_is_counted(tmp_path):
    root = make_class_folders(tmp_path / "images", 2)
    dataset = CustomDataset(data_root=str(root))
    (root / "red" / "1.jpg").unlink()
    summary, _ = generate(root, tmp_path / "out", dataset=dataset)
    (failure,) = summary["failed"]
    assert failure["file_name"] == "red/1.jpg"
    assert "FileNotFoundError" in failure["reason"]


def test_image_whose_map_is_not_finite_is_counted(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    write_image(root / "red" / "black.png", np.zeros((64, 64, 3), np.uint8))
    model = MODELS.build(model_config(backbone={"type": "NanOnBlack"}))
    model.load_state_dict(planted_state())
    summary, coco = generate(root, tmp_path / "out", model=model)
    (failure,) = summary["failed"]
    assert failure["file_name"] == "red/black.png"
    assert "NaN or infinite" in failure["reason"]
    assert len(coco["images"]) == 3


def failing_classifier(error=RuntimeError):
    model = MODELS.build(model_config(backbone={"type": "FailsOnBlack"}))
    model.load_state_dict(planted_state())
    model.backbone.error = error
    return model


def images_in_order(root, kinds):
    """Images of one class: whole ones (w), black (b) ones, files that cannot be read (x)."""
    make_class_folders(root, 1, {"blue": "blue", "green": "green"})
    for number, kind in enumerate(kinds):
        path = root / "red" / f"{number}.png"
        write_image(path, np.full((64, 64, 3), 9 if kind == "w" else 0, np.uint8))
        if kind == "x":
            path.write_bytes(b"")
    return root


def test_computation_that_fails_from_some_image_on_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "FAILURES_IN_A_ROW", 3)
    root = images_in_order(tmp_path / "images", "wbbxbw")
    with pytest.raises(RuntimeError, match=r"3 images in a row .*4\.png: Runtime.*device says no"):
        generate(root, tmp_path / "out", model=failing_classifier())
    assert not (tmp_path / "out" / "annotations.json").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
    generate(root, tmp_path / "out")  # a sound device takes it up


def test_failures_apart_or_of_reading_end_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "FAILURES_IN_A_ROW", 3)
    root = images_in_order(tmp_path / "images", "bbwbxxxxb")
    execution = Execution(0, max_bad_fraction=0.8)
    summary, _ = generate(root, tmp_path / "out", model=failing_classifier(), execution=execution)
    assert len(summary["failed"]) == 8


@pytest.mark.parametrize("name", ["OutOfMemoryError", "AcceleratorError"])
def test_error_of_the_device_ends_the_run_at_once(tmp_path, name):
    error = getattr(torch, name, None)
    if error is None:
        pytest.skip(f"torch {torch.__version__} has no {name}")
    root = images_in_order(tmp_path / "images", "wbw")
    with pytest.raises(error, match="device says no"):
        generate(root, tmp_path / "out", model=failing_classifier(error))
    assert not (tmp_path / "out" / "summary.json").exists()


def test_no_usable_image_at_all_is_an_error(tmp_path):
    for name in ("blue", "green", "red"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.jpg").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"none of 3 images could be used.*x\.jpg.*empty"):
        generate(tmp_path / "images", tmp_path / "out")
    assert not (tmp_path / "out" / "annotations.json").exists()


def exif_rotated(image: np.ndarray) -> bytes:
    """A JPEG stored lying on its side, with the EXIF orientation (6) that puts it upright."""
    lying = cv2.imencode(".jpg", cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return lying[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + lying[2:]


def test_image_files_of_all_kinds_are_read(tmp_path):
    from PIL import Image

    upright = draw_image((128, 192), [(32, 32, 96, 96)], ["red"])
    rgb = Image.fromarray(upright[..., ::-1].copy())
    folder = tmp_path / "images" / "red"
    write_image(folder / "a.png", upright)
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.save(folder / "progressive.jpg", progressive=True)
    write_image(folder / "sixteen.png", upright.astype(np.uint16) * 257)
    (folder / "turned.jpg").write_bytes(exif_rotated(upright))
    (folder / "trailing.jpg").write_bytes((folder / "progressive.jpg").read_bytes() + b"\0" * 99)
    make_class_folders(tmp_path / "images", 1, {"blue": "blue", "green": "green"})
    summary, coco = generate(tmp_path / "images", tmp_path / "out")
    assert summary["failed"] == []
    boxes = {image["file_name"]: None for image in coco["images"]}
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    for annotation in coco["annotations"]:
        boxes[names[annotation["image_id"]]] = annotation["bbox"]
    assert boxes["red/grey.jpg"] is None  # it has lost its colour
    for image in coco["images"]:
        if image["file_name"].startswith("red/"):
            assert (image["width"], image["height"]) == (192, 128), image["file_name"]
    reference = boxes["red/a.png"]
    for name in ("cmyk.jpg", "palette.png", "alpha.png", "progressive.jpg", "sixteen.png",
                 "turned.jpg", "trailing.jpg"):  # fmt: skip
        np.testing.assert_allclose(boxes[f"red/{name}"], reference, atol=3, err_msg=name)


def test_what_follows_the_end_of_a_jpeg_does_not_matter(tmp_path):
    """A motion photo carries a video behind its picture, in which any bytes may stand."""
    root = make_class_folders(tmp_path / "images", 1)
    whole = (root / "red" / "0.jpg").read_bytes()
    (root / "red" / "motion.jpg").write_bytes(whole + b"\xff\xda" * 9)
    thumbnail = whole[:2] + b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole + whole[2:]
    (root / "red" / "thumbnail.jpg").write_bytes(thumbnail)
    (root / "red" / "cut.jpg").write_bytes(thumbnail[: len(whole) + 300])
    summary, _ = generate(root, tmp_path / "out")
    assert [failure["file_name"] for failure in summary["failed"]] == ["red/cut.jpg"]
