"""Step 2 on images whose boxes are known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.datasets import CustomDataset, MultiLabelDataset
from mmpretrain.registry import MODELS
from pycocotools.coco import COCO

from dap.pseudo_boxes import Execution, PseudoBoxSettings
from dap.runs import health
from dap.testing import draw_image, make_class_folders, write_image
from tests.support.planted import model_config, planted_classifier, planted_state
from tests.support.planted_runs import generate, tree
from tests.support.zoo import zoo_run


@pytest.fixture
def one_image(tmp_path):
    """A red block on 6 x 3 whole cells of a 160 x 128 image, and an empty class on each side."""
    image = draw_image((128, 160), [(32, 48, 128, 96)], ["red"])
    write_image(tmp_path / "images" / "c_red" / "x.png", image)
    for name in ("a_blue", "b_green"):
        write_image(tmp_path / "images" / name / "plain.png", draw_image((128, 128), [], []))
    return tmp_path / "images"


def test_box_of_a_known_block(one_image, tmp_path):
    """6 x 3 cells of 16 px: eq. 5 gives sqrt(35) x sqrt(8) cells around (80, 72)."""
    summary, coco = generate(one_image, tmp_path / "out")
    assert [image["file_name"] for image in coco["images"]] == [
        "a_blue/plain.png",
        "b_green/plain.png",
        "c_red/x.png",
    ]
    assert [(image["width"], image["height"]) for image in coco["images"]] == [
        (128, 128),
        (128, 128),
        (160, 128),
    ]
    (box,) = coco["annotations"]
    width, height = 16 * 35**0.5, 16 * 8**0.5
    np.testing.assert_allclose(
        box["bbox"], [80 - width / 2, 72 - height / 2, width, height], atol=0.02
    )
    assert box["image_id"] == 3
    assert coco["categories"][box["category_id"] - 1]["name"] == "c_red"
    assert box["threshold"] == 0.3
    assert summary["images"] == 3
    assert summary["images_without_boxes"] == 2  # plain images have a constant map
    assert summary["merged"]["boxes"] == 1
    assert summary["merged"]["boxes_per_image"] == pytest.approx(1 / 3, abs=1e-4)
    assert summary["merged"]["mean_width"] == pytest.approx(width, abs=0.02)
    assert summary["merged"]["mean_height"] == pytest.approx(height, abs=0.02)


def test_summary_counts_what_the_file_holds(tmp_path):
    root = make_class_folders(tmp_path / "images", 4)
    summary, coco = generate(root, tmp_path / "out")
    boxes = np.array([a["bbox"] for a in coco["annotations"]])
    assert summary["images"] == len(coco["images"]) == 12
    assert summary["merged"]["boxes"] == len(boxes) >= 12
    np.testing.assert_allclose(summary["merged"]["mean_width"], boxes[:, 2].mean(), atol=0.01)
    np.testing.assert_allclose(summary["merged"]["mean_height"], boxes[:, 3].mean(), atol=0.01)
    assert summary["top1"] == 1.0
    assert summary["settings"]["thresholds"] == [0.3, 0.5]
    assert set(summary["versions"]) >= {"dap", "torch", "mmpretrain", "cv2"}
    assert len(summary["classifier"]["weights_sha256"]) == 64
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(boxes) + 1))
    for image, annotation in ((i, a) for i in coco["images"] for a in coco["annotations"]):
        if annotation["image_id"] == image["id"]:
            x, y, w, h = annotation["bbox"]
            assert x >= 0 <= y
            assert x + w <= image["width"] + 0.01
            assert y + h <= image["height"] + 0.01


def test_file_loads_in_pycocotools_and_in_stock_coco_dataset(tmp_path):
    root = make_class_folders(tmp_path / "images", 2)
    _, coco = generate(root, tmp_path / "out")
    annotations = str(tmp_path / "out" / "annotations.json")
    assert len(COCO(annotations).getAnnIds()) == len(coco["annotations"])

    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        ann_file=annotations,
        data_prefix={"img": f"{root}/"},
        metainfo={"classes": ("blue", "green", "red")},
        pipeline=[],
    )
    assert len(dataset) == 6
    for index in range(6):
        info = dataset.get_data_info(index)
        assert Path(info["img_path"]).exists()
        label = ("blue", "green", "red").index(Path(info["img_path"]).parent.name)
        assert {instance["bbox_label"] for instance in info["instances"]} == {label}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_same_run_twice_gives_the_same_bytes(tmp_path, num_workers):
    root = make_class_folders(tmp_path / "images", 2)
    generate(root, tmp_path / "a")
    generate(root, tmp_path / "b", num_workers=num_workers)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    names = [path.split("-")[0] for path in tree(tmp_path / "a")]
    assert names == ["annotations.json", "manifest.json", "shards/00000", "summary.json"]


def test_wordnet_ids_name_the_categories(tmp_path):
    folders = {"n00000001": "blue", "n00000002": "green", "n00000003": "red"}
    root = make_class_folders(tmp_path / "images", 1, folders)
    names = ("crane", "hen", "crane")
    dataset = CustomDataset(data_root=str(root), metainfo={"classes": names})
    _, coco = generate(root, tmp_path / "folders", dataset=dataset)
    expected = list(zip(folders, names, strict=True))
    assert [(c["name"], c["readable_name"]) for c in coco["categories"]] == expected

    listing = tmp_path / "train.txt"
    listing.write_text("".join(f"{f}/0.jpg {i}\n" for i, f in enumerate(folders)))
    dataset = CustomDataset(data_root=str(root), ann_file=str(listing), metainfo={"classes": names})
    _, coco = generate(root, tmp_path / "listed", dataset=dataset)
    assert [(c["name"], c["readable_name"]) for c in coco["categories"]] == expected


def test_readable_names_that_repeat_are_told_apart(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    dataset = CustomDataset(data_root=str(root), metainfo={"classes": ("crane", "hen", "crane")})
    _, coco = generate(root, tmp_path / "out", dataset=dataset)
    assert [c["name"] for c in coco["categories"]] == ["crane (0)", "hen", "crane (2)"]


def test_several_classes_of_an_image_have_boxes_of_their_own(tmp_path):
    image = draw_image((128, 192), [(16, 32, 80, 96), (112, 32, 176, 96)], ["red", "blue"])
    write_image(tmp_path / "images" / "both.png", image)
    listing = {
        "metainfo": {"classes": ["blue", "green", "red"]},
        "data_list": [
            {"img_path": "both.png", "gt_label": [2, 0]},
            {"img_path": "none.png", "gt_label": []},
        ],
    }
    write_image(tmp_path / "images" / "none.png", image)
    (tmp_path / "list.json").write_text(json.dumps(listing))
    dataset = MultiLabelDataset(data_root=str(tmp_path), ann_file="list.json", data_prefix="images")
    summary, coco = generate(tmp_path, tmp_path / "out", dataset=dataset)
    assert (summary["images"], summary["images_without_boxes"]) == (2, 1)
    centres = {a["category_id"]: a["bbox"][0] + a["bbox"][2] / 2 for a in coco["annotations"]}
    assert centres == {1: pytest.approx(144, abs=1), 3: pytest.approx(48, abs=1)}


def test_repeated_dataset_gives_each_image_once(tmp_path):
    from mmengine.dataset import RepeatDataset

    root = make_class_folders(tmp_path / "images", 1)
    dataset = RepeatDataset(CustomDataset(data_root=str(root)), 3)
    summary, _ = generate(root, tmp_path / "out", dataset=dataset)
    assert summary["images"] == 3


def test_release_rule_is_a_setting(tmp_path):
    root = make_class_folders(tmp_path / "images", 2)
    _, paper = generate(root, tmp_path / "paper")
    settings = PseudoBoxSettings(short_sides=(128,), thresholds=(0.3, 0.5), rule="release")
    _, release = generate(root, tmp_path / "release", settings=settings)
    assert release["info"]["settings.rule"] == "release"
    assert release["annotations"] != paper["annotations"]


def test_training_mode_and_weights_stay(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    model = planted_classifier().train()
    model.neck.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generate(root, tmp_path / "out", model=model)
    assert model.training
    assert model.head.training
    assert not model.neck.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, "without a head"),
        ({"neck": None, "head": {"type": "LinearClsHead", "num_classes": 3, "in_channels": 5}},
         "failed on a colour image of 224 x 224 px"),
        ({"head": {"type": "DoublingHead", "num_classes": 3, "in_channels": 3}},
         "no map can be computed. It has no exact one, because its logits are not"),
    ],
)  # fmt: skip
def test_classifier_without_a_map_is_refused(tmp_path, change, message):
    root = make_class_folders(tmp_path / "images", 1)
    model = MODELS.build(model_config(**change))
    with pytest.raises(ValueError, match=message):
        generate(root, tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_classifier_with_nan_weights_is_refused(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    model = planted_classifier()
    model.head.fc.weight.data[1, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        generate(root, tmp_path / "out", model=model)


def test_number_of_classes_must_match(tmp_path):
    root = make_class_folders(tmp_path / "images", 1, {"blue": "blue", "red": "red"})
    with pytest.raises(ValueError, match="has 2 classes, the classifier 3"):
        generate(root, tmp_path / "out")


def test_dataset_without_labels_is_refused(tmp_path):
    from tests.support.planted import Unlabelled

    root = make_class_folders(tmp_path / "images", 1)
    with pytest.raises(ValueError, match="has no label"):
        generate(root, tmp_path / "out", dataset=Unlabelled(data_root=str(root)))


def test_finished_run_is_kept_and_another_refused(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    first, _ = generate(root, tmp_path / "out")
    before = (tmp_path / "out" / "annotations.json").stat().st_mtime_ns
    again, _ = generate(root, tmp_path / "out")
    assert again == first
    with pytest.raises(ValueError, match=r"holds another run.*settings\.rule: 'paper' there"):
        generate(root, tmp_path / "out", settings=PseudoBoxSettings((128,), True, (0.3, 0.5),
                                                                     rule="release"))  # fmt: skip
    write_image(root / "red" / "new.jpg", draw_image((64, 64), [], []))
    with pytest.raises(ValueError, match=r"image_list\.count: 3 there, 4 now"):
        generate(root, tmp_path / "out")
    assert (tmp_path / "out" / "annotations.json").stat().st_mtime_ns == before


def test_normalisation_is_part_of_the_run(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    generate(root, tmp_path / "out")
    model = MODELS.build(model_config(data_preprocessor={"mean": [9.0] * 3, "std": [2.0] * 3}))
    model.load_state_dict(planted_state())
    with pytest.raises(ValueError, match=r"another run.*weights_sha256"):
        generate(root, tmp_path / "out", model=model)


def test_necks_that_fuse_stages_are_followed(tmp_path):
    """As in HRNet: what is pooled is the neck's output, not the backbone's."""
    root = make_class_folders(tmp_path / "images", 1)
    neck = [{"type": "Swapped"}, {"type": "GlobalAveragePooling"}]
    model = MODELS.build(model_config(neck=neck))
    state = planted_state()
    model.load_state_dict({**state, "head.fc.weight": state["head.fc.weight"].flip(1)})
    _, swapped = generate(root, tmp_path / "swapped", model=model)
    _, plain = generate(root, tmp_path / "plain")
    assert swapped["annotations"] == plain["annotations"]


@pytest.mark.parametrize("thresholds", [0.5, (0.5, 0.5), ("a",), "0.5", ()])
def test_bad_thresholds_are_named(thresholds):
    with pytest.raises(ValueError, match="thresholds: "):
        PseudoBoxSettings(thresholds=thresholds)


@pytest.mark.parametrize("name", ["annotations.json", "summary.json", "shards"])
def test_files_of_unknown_origin_are_not_overwritten(tmp_path, name):
    root = make_class_folders(tmp_path / "images", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{name} exists without a manifest\.json"):
        generate(root, tmp_path / "out")
    assert tree(tmp_path / "out") == {name: b"mine"}


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


@pytest.mark.parametrize("gone", ["summary.json", "annotations.json", "manifest.json's shards"])
def test_killed_before_the_end_is_run_again(tmp_path, gone):
    root = make_class_folders(tmp_path / "images", 1)
    out = tmp_path / "out"
    generate(root, out)
    before = tree(out)
    if gone in before:
        (out / gone).unlink()
    else:
        manifest = json.loads(before["manifest.json"])
        del manifest["shards"]
        (out / "manifest.json").write_text(json.dumps(manifest))
    left = tree(out)
    with pytest.raises(ValueError, match=r"holds another run.*settings\.thresholds"):
        generate(root, out, settings=PseudoBoxSettings((128,), rule="paper"))
    assert tree(out) == left
    generate(root, out)
    assert tree(out) == before


def test_begun_and_come_to_nothing_is_no_run(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    generate(root, tmp_path / "out")
    for path in (tmp_path / "out" / "shards").iterdir():
        path.unlink()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    del manifest["shards"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    summary, _ = generate(root, tmp_path / "out", settings=PseudoBoxSettings((128,), rule="paper"))
    assert summary["settings"]["thresholds"] == [0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("content", ["no json", "{}", "[]", '{"format": "DAP pseudo boxes, 1"}'])
def test_foreign_manifest_is_left_alone(tmp_path, content):
    root = make_class_folders(tmp_path / "images", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is not what Step 2 writes"):
        generate(root, tmp_path / "out")
    assert tree(tmp_path / "out") == {"manifest.json": content.encode()}


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


def test_classifier_of_the_zoo_gives_boxes_within_its_images(tmp_path):
    root = make_class_folders(tmp_path / "images", 3)
    summary = zoo_run(root, tmp_path / "out")
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    assert summary["images"] == len(sizes) == 9
    assert summary["merged"]["boxes"] == len(coco["annotations"]) > 9
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= sizes[annotation["image_id"]][0] + 0.01
        assert 0 <= y < y + height <= sizes[annotation["image_id"]][1] + 0.01
