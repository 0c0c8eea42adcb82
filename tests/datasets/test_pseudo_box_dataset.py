"""mmdet's view of a store is that of its COCO file, sample by sample."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.dataset import (
    ClassBalancedDataset,
    ConcatDataset,
    DefaultSampler,
    RepeatDataset,
    pseudo_collate,
)
from torch.utils.data import DataLoader

from dap.datasets import CheckedCocoDataset, PseudoBoxDataset
from dap.datasets.pseudo_box_dataset import StoredImages
from dap.testing import make_coco
from tests.support.stores import image, write_store

CATEGORIES = [{"id": 3, "name": "n3"}, {"id": 11, "name": "n11"}, {"id": 7, "name": "n7"}]
FILTERS = [
    None,
    {"filter_empty_gt": True},
    {"min_size": 50},
    {"filter_empty_gt": True, "min_size": 60},
]


def write(folder, records, categories=CATEGORIES, shard_size=4):
    return write_store(folder, records, categories, shard_size, {"thresholds": [0.2, 0.5]})


def by_hand():
    """All kinds of images that the rules tell apart; three shards of four, ids not those."""
    records = [
        image("a/1.jpg", 80, 100, [0.1, 0.2, 50.3, 60.45, 0, 0], [1, 1, 30, 30, 2, 1]),
        image("a/2.jpg", 80, 100),  # no box at all
        {"file_name": "broken.jpg", "reason": "it is no image"},  # not in the file
        image("b/3.jpg", 100, 100, [5, 5, 5.99, 40, 1, 0]),  # .99 px wide: empty, yet annotated
        image("b/4.jpg", 100, 40, [5, 5, 6, 6, 1, 255], [0.01, 0.01, 0.99, 30, 1, 0]),
        image("b/ü 5.jpg", 59, 100, [-3.5, 2, 20, 30, 1, 0], [-3.5, 2, 0, 30, 1, 0]),
        image("/absolute/6.jpg", 60, 60, [60, 5, 70, 20, 1, 0], [59.5, 5, 70, 20, 2, 1]),
        image("c/7.jpg", 500, 60, [5, -9.75, 20, 0, 1, 0], [5, 500, 20, 510, 1, 0]),
        image("c/8.jpg", 333, 500, [33.33, 0.07, 499.99, 332.01, 0, 1]),
        {"file_name": "broken too.jpg", "reason": "it is no image"},
    ]
    return [{"id": 5 + 2 * i, **record} for i, record in enumerate(records)]


def random_records(count, seed=0):
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        height, width = rng.integers(40, 600, 2).tolist()
        boxes = []
        for _ in range(rng.integers(0, 5)):
            x, y = (rng.random(2) * [width, height]).round(2).tolist()
            w, h = (rng.random(2) * [width - x, height - y]).round(2).tolist()
            boxes.append([x, y, round(x + w, 2), round(y + h, 2), int(rng.integers(3)), 1])
        records.append(image(f"{number}.jpg", height, width, *boxes))
    return records


def options(**kwargs):
    return {
        "data_prefix": {"img": "images/"},
        "pipeline": [],
        "metainfo": {"classes": ()},
        **kwargs,
    }


def both(folder, **kwargs):
    """The store through ours, its COCO file through mmdet's."""
    ours = PseudoBoxDataset(ann_file=str(folder / "manifest.json"), **options(**kwargs))
    stock = CheckedCocoDataset(ann_file=str(folder / "annotations.json"), **options(**kwargs))
    return ours, stock


def infos(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("store") / "boxes", by_hand())


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return write(tmp_path_factory.mktemp("larger") / "boxes", random_records(300), shard_size=64)


class TestSamples:
    @pytest.mark.parametrize("filter_cfg", FILTERS, ids=str)
    @pytest.mark.parametrize("test_mode", [False, True])
    @pytest.mark.parametrize("which", ["store", "larger"])
    def test_are_those_of_the_coco_file(self, request, which, filter_cfg, test_mode):
        folder = request.getfixturevalue(which)
        ours, stock = both(folder, filter_cfg=filter_cfg, test_mode=test_mode)
        assert infos(ours) == infos(stock)
        assert [list(info) for info in infos(ours)] == [list(info) for info in infos(stock)]
        for index in range(len(stock)):
            assert ours.get_cat_ids(index) == stock.get_cat_ids(index)
        assert ours.metainfo["classes"] == stock.metainfo["classes"] == ("n3", "n11", "n7")

    def test_by_hand(self, store):
        ours, _ = both(store, filter_cfg={"filter_empty_gt": True, "min_size": 60})
        assert [info["img_id"] for info in infos(ours)] == [5, 11, 17, 19, 21]
        first = ours.get_data_info(0)
        assert first == {
            "img_path": "images/a/1.jpg",
            "img_id": 5,
            "seg_map_path": None,
            "height": 80,
            "width": 100,
            "instances": [
                {"bbox": [0.1, 0.2, 0.1 + 50.2, 60.45], "bbox_label": 0, "ignore_flag": 0},
                {"bbox": [1, 1, 30, 30], "bbox_label": 2, "ignore_flag": 0},
            ],
            "sample_idx": 0,
        }
        assert [type(first[key]) for key in ("img_id", "height", "width")] == [int] * 3
        assert [type(x) for x in first["instances"][0]["bbox"]] == [float] * 4
        assert ours.get_data_info(1)["instances"] == []  # .99 px wide
        assert [i["bbox_label"] for i in ours.get_data_info(2)["instances"]] == [2]

    @pytest.mark.parametrize("root", ["", "root", "/root/"])
    def test_paths(self, store, root):
        kwargs = {"data_prefix": {"img": "x", "seg": "y/z"}, "seg_map_suffix": ".seg.png"}
        ours, stock = both(store, **kwargs)
        assert infos(ours) == infos(stock)
        assert ours.get_data_info(0)["seg_map_path"] == "y/z/a/1.seg.png"
        kwargs = options(data_root=root, lazy_init=True)
        ours = PseudoBoxDataset(ann_file="boxes", **kwargs)
        stock = CheckedCocoDataset(ann_file="boxes", **kwargs)
        assert (ours.ann_file, ours.data_prefix) == (stock.ann_file, stock.data_prefix)

    def test_return_classes(self, store):
        ours, stock = both(store, return_classes=True, caption_prompt={"n3": {"prefix": "a "}})
        assert infos(ours) == infos(stock)
        ours.get_data_info(0)["caption_prompt"]["n3"]["prefix"] = "changed"
        assert infos(ours) == infos(stock)

    def test_negative_index_and_end(self, store):
        ours, stock = both(store)
        assert ours.get_data_info(-1) == stock.get_data_info(-1)
        assert ours.get_data_info(-1)["sample_idx"] == len(ours) - 1
        with pytest.raises(IndexError):
            ours.get_data_info(len(ours))

    def test_what_is_given_out_is_not_shared(self, store):
        ours, stock = both(store)
        ours.get_data_info(0)["instances"][0]["bbox"][0] = 99.0
        assert ours.get_data_info(0) == stock.get_data_info(0)

    def test_data_list_has_the_dicts_of_the_coco_file(self, store):
        """For scripts that read it themselves, as MMEngine documents it."""
        ours, theirs = both(store)
        assert list(ours.data_list) == list(theirs.load_data_list())
        assert list(ours.load_data_list()) == list(theirs.load_data_list())

    def test_serialization_makes_no_difference(self, store):
        ours, _ = both(store)
        asked = PseudoBoxDataset(ann_file=str(store), **options(serialize_data=True))
        assert isinstance(asked.data_list, StoredImages)
        assert infos(asked) == infos(ours)


class TestSubsets:
    @pytest.mark.parametrize("indices", [2, -2, [4, 0, -1, 0], (1,), []], ids=str)
    def test_are_lazy_and_those_of_the_coco_file(self, store, indices):
        kwargs = {"indices": indices, "serialize_data": False}  # mmengine cannot serialise none
        ours, stock = both(store, **kwargs)
        assert infos(ours) == infos(stock)
        assert isinstance(ours.data_list, StoredImages)
        ours, stock = both(store, serialize_data=False)
        assert infos(ours.get_subset(indices)) == infos(stock.get_subset(indices))
        assert len(ours) == len(stock)
        ours.get_subset_(indices)
        stock.get_subset_(indices)
        assert infos(ours) == infos(stock)
        assert isinstance(ours.data_list, StoredImages)

    def test_other_indices(self, store):
        ours, _ = both(store)
        with pytest.raises(TypeError, match="sequence of int"):
            ours.get_subset_(1.5)
        with pytest.raises(IndexError):
            ours.get_subset_([99])

    def test_copies_share_the_store(self, store):
        ours, _ = both(store)
        for other in (
            copy.deepcopy(ours.data_list),
            ours.data_list[1:3],
            ours.get_subset(3).data_list,
        ):
            assert other.store is ours.data_list.store
        assert list(ours.data_list[1:3]) == list(ours.data_list)[1:3]

    def test_lazy_init(self, store):
        _, stock = both(store)
        lazy = PseudoBoxDataset(ann_file=str(store), **options(lazy_init=True))
        assert not len(lazy.data_list)
        assert lazy.get_data_info(1) == stock.get_data_info(1)
        assert len(lazy) == len(stock)


class TestWrappers:
    def test_repeated_concatenated_balanced(self, larger):
        kwargs = {"filter_cfg": {"filter_empty_gt": True}, "indices": 60}
        wrapped = []
        for dataset in both(larger, **kwargs):
            repeated = RepeatDataset(dataset, 2)
            joined = ConcatDataset([dataset, dataset.get_subset(5)])
            balanced = ClassBalancedDataset(dataset, 0.9)
            wrapped.append([infos(repeated), infos(joined), infos(balanced), balanced.metainfo])
        assert wrapped[0][:3] == wrapped[1][:3]
        assert wrapped[0][3]["classes"] == wrapped[1][3]["classes"]

    def test_batches_by_aspect_ratio(self, larger):
        batches = []
        for dataset in both(larger, filter_cfg={"filter_empty_gt": True}):
            sampler = DefaultSampler(dataset, shuffle=True, seed=3)
            batches.append(list(AspectRatioBatchSampler(sampler, 4)))
        assert batches[0] == batches[1]
        assert len(batches[0]) > 50

    def test_pickle_is_small_and_opens_the_store_anew(self, larger):
        ours, stock = both(larger)
        content = pickle.dumps(ours)
        assert len(content) < 5000  # 4 bytes an image, and the pipeline
        assert infos(pickle.loads(content)) == infos(stock)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Real images with their boxes, as a store."""
    root = tmp_path_factory.mktemp("pictures")
    content = json.loads(make_coco(root, images=9).read_text())
    boxes = {item["id"]: [] for item in content["images"]}
    labels = {item["id"]: label for label, item in enumerate(content["categories"])}
    for item in content["annotations"]:
        x, y, w, h = item["bbox"]
        boxes[item["image_id"]].append([x, y, x + w, y + h, labels[item["category_id"]], 0])
    records = [
        {"id": i["id"], **image(i["file_name"], i["height"], i["width"], *boxes[i["id"]])}
        for i in content["images"]
    ]
    return write(root / "boxes", records, content["categories"])


def training(folder):
    register_all_modules(init_default_scope=True)
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "Resize", "scale": (64, 48), "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]
    prefix = {"img": f"{folder.parent}/images/"}
    kwargs = {"filter_cfg": {"filter_empty_gt": True}, "data_prefix": prefix, "pipeline": pipeline}
    return both(folder, **kwargs)


def assert_same_sample(one, other):
    assert torch.equal(one["inputs"], other["inputs"])
    first, second = one["data_samples"], other["data_samples"]
    assert first.metainfo == second.metainfo
    assert torch.equal(first.gt_instances.bboxes.tensor, second.gt_instances.bboxes.tensor)
    assert torch.equal(first.gt_instances.labels, second.gt_instances.labels)


def test_pipeline_gives_the_same(pictures):
    ours, stock = training(pictures)
    assert len(ours) == len(stock) == 8
    for index in range(8):
        np.random.seed(index)  # noqa: NPY002  (what mmdet draws from)
        one = ours[index]
        np.random.seed(index)  # noqa: NPY002  (what mmdet draws from)
        assert_same_sample(one, stock[index])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers(pictures, start):
    ours, stock = training(pictures)
    for dataset in (ours, stock):
        dataset.pipeline.transforms.pop(3)  # the flip is drawn by each worker's own numbers
    loader = DataLoader(
        ours, 3, num_workers=1, multiprocessing_context=start, collate_fn=pseudo_collate
    )
    found = [
        {"inputs": inputs, "data_samples": sample}
        for batch in loader
        for inputs, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    ]
    assert len(found) == len(stock)
    for index, one in enumerate(found):
        assert_same_sample(one, stock[index])


def test_is_built_by_mmdet(store):
    register_all_modules(init_default_scope=True)
    config = {"type": "dap.PseudoBoxDataset", "ann_file": str(store), "data_prefix": {"img": "x/"}}
    assert DATASETS.build(config).metainfo["classes"] == ("n3", "n11", "n7")


class TestErrors:
    def build(self, folder, classes=(), **kwargs):
        return PseudoBoxDataset(
            ann_file=str(folder), **options(metainfo={"classes": classes}, **kwargs)
        )

    def test_classes_are_compared(self, store):
        assert len(self.build(store, ["n3", "n11", "n7"])) == 8
        with pytest.raises(ValueError, match=r"order n3, n11, n7, the config in the order n3, n7"):
            self.build(store, ("n3", "n7", "n11"))
        with pytest.raises(
            ValueError, match=r"1 in the file are not in the config \(n7\).*Checked"
        ):
            self.build(store, ("n3", "n11"))
        with pytest.raises(ValueError, match=r"1 in the config are not in the file \(zebra\)"):
            self.build(store, ("n3", "n11", "n7", "zebra"))

    def test_no_box_to_train_on(self, tmp_path):
        small = [image("1.jpg", 80, 100), image("2.jpg", 80, 100, [5, 5, 5.99, 40, 1, 0])]
        folder = write(tmp_path / "boxes", small)
        with pytest.raises(ValueError, match="none of 2 images has a box to train on"):
            self.build(folder)
        assert len(self.build(folder, test_mode=True)) == 2

    @pytest.mark.parametrize("name", ["", "nowhere", "annotations.json"])
    def test_no_store(self, store, name, tmp_path):
        place = store / name if name.endswith("json") else tmp_path / name
        with pytest.raises(ValueError, match=r"holds no pseudo boxes: no manifest\.json there"):
            self.build(place)

    def test_damaged_store(self, tmp_path):
        folder = write(tmp_path / "boxes", by_hand())
        shard = sorted((folder / "shards").iterdir())[1]
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=f"{shard.name} is damaged: its SHA-256"):
            self.build(folder)

    def test_arguments(self, store):
        with pytest.raises(ValueError, match="takes no proposal_file"):
            self.build(store, proposal_file="proposals.pkl")
        with pytest.raises(ValueError, match=r"data_prefix has \['img_path'\]; expected 'img'"):
            self.build(store, data_prefix={"img_path": "x"})


def test_memory_per_image_is_the_index(larger):
    ours, _ = both(larger)
    assert ours.data_list.indices.nbytes == 4 * len(ours)
    assert Path(ours.data_list.store.folder) == larger
