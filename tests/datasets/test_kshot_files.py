"""The k-shot configs take any COCO file with the right names in place of our own draw."""

import json
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "finetune"
NAMES = {
    "voc": ("faster-rcnn_r50-cls-in1k_fpn_voc-kshot.py", "aeroplane", 20),
    "coco": ("faster-rcnn_r50-cls-in1k_fpn_coco-kshot.py", "person", 80),
}


def dataset_config(kind):
    register_all_modules()
    name, first, count = NAMES[kind]
    config = Config.fromfile(CONFIGS / f"{kind}_kshot" / name)
    given = config.train_dataloader.dataset
    given.pipeline = []
    return given, first, count


def published(path, names):
    """A list of the release's kind: ids from nowhere, an image of each class, area left out."""
    content = {
        "images": [
            {"id": 900 + i, "file_name": f"sub/{i}.jpg", "width": 50, "height": 40}
            for i in range(len(names))
        ],
        "categories": [{"id": 7 + 3 * i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": 900 + i, "category_id": 7 + 3 * i, "bbox": [i % 9, 2, 20, 30]}
            for i in range(len(names))
        ],
    }
    path.write_text(json.dumps(content))
    return str(path)


def classes_of(given):
    plain = DATASETS.get("CocoDataset").METAINFO["classes"]
    return tuple(given.get("metainfo", {}).get("classes", plain))


@pytest.mark.parametrize("turn", [lambda names: names[::-1], lambda names: names[3:] + names[:3]])
@pytest.mark.parametrize("kind", NAMES)
def test_names_in_any_order(tmp_path, kind, turn):
    """Labels are numbered as the config does, on which the metric of the test set relies."""
    given, first, count = dataset_config(kind)
    classes = classes_of(given)
    assert (classes[0], len(classes)) == (first, count)
    names = turn(classes)
    given.ann_file = published(tmp_path / "split.json", names)
    given.data_prefix.img = "elsewhere/"
    dataset = DATASETS.build(given)
    assert dataset.metainfo["classes"] == classes
    assert len(dataset) == count
    for index, name in enumerate(names):
        info = dataset.get_data_info(index)
        assert info["img_path"] == f"elsewhere/sub/{index}.jpg"
        (instance,) = info["instances"]
        assert classes[instance["bbox_label"]] == name
        assert instance["bbox"] == [index % 9, 2, index % 9 + 20, 32]


@pytest.mark.parametrize("kind", NAMES)
def test_other_names_are_refused(tmp_path, kind):
    given, first, _ = dataset_config(kind)
    names = ("plane", *classes_of(given)[1:])
    given.ann_file = published(tmp_path / "split.json", names)
    with pytest.raises(
        ValueError, match=rf"split\.json.*\(plane\), 1 .*not in the file \({first}\)"
    ):
        DATASETS.build(given)
