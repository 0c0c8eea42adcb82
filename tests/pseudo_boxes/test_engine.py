"""Step 2 on images whose boxes are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.datasets import CustomDataset, MultiLabelDataset
from mmpretrain.registry import MODELS
from pycocotools.coco import COCO

from dap.pseudo_boxes import PseudoBoxSettings
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
