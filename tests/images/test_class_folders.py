"""Class folders of one's own: which images they hold."""

import json
import os

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import get_samples

from dap.images.class_folders import warn_of_files_not_taken
from dap.images.labelled_images import read_image
from dap.pseudo_boxes import ClassFolders, generate_from_config
from dap.testing import make_class_folders
from tests.support.class_folders import folders, names_file, touch
from tests.support.planted import model_config, planted_state
from tests.support.zoo import save_random_weights, zoo_config


def planted_config(**changes):
    settings = {"short_sides": (128,), "thresholds": (0.3, 0.5), "rule": "paper"}
    return Config({"model": model_config(), "pseudo_boxes": settings, **changes})


def generate(tmp_path, root, *lines):
    """Step 2 from a config with images of one's own: summary, COCO file."""
    torch.save({"state_dict": planted_state(), "meta": {}}, tmp_path / "planted.pth")
    summary = generate_from_config(
        planted_config(), str(tmp_path / "planted.pth"), tmp_path / "out", str(root),
        names_file(tmp_path, *lines) if lines else None, normalized=False,
    )  # fmt: skip
    return summary, json.loads((tmp_path / "out" / "annotations.json").read_text())


def test_from_folders_with_all_kinds_of_files_to_boxes(tmp_path, capsys):
    """Images of nine suffixes get boxes; what has none is named: in the log or as failed."""
    names = {"blue jay": "blue", "tree frog": "green", "red fox": "red"}
    root = make_class_folders(tmp_path / "images", 1, names)
    red = cv2.imread(str(root / "red fox" / "0.jpg"))
    suffixes = [".webp", ".tiff", ".tif", ".gif", ".jpe", ".avif", ".jp2", ".bmp"]
    for suffix in suffixes:
        cv2.imwrite(str(root / "red fox" / f"1{suffix}"), red)
    jpeg = (root / "red fox" / "0.jpg").read_bytes()
    for name in ("red fox/2.jfif", "red fox/._0.jpg", "red fox/3", ".cache/0.jpg", "beside.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(jpeg)
    (root / "tree frog" / "0.jpg").unlink()
    (root / "tree frog" / "0.jpg").symlink_to("/nowhere/frog.jpg")

    summary, coco = generate(tmp_path, root, "blue jay", "tree frog", "red fox")
    files = sorted(f"red fox/{name}" for name in ("0.jpg", "2.jfif", *(f"1{s}" for s in suffixes)))
    assert [image["file_name"] for image in coco["images"]] == ["blue jay/0.jpg", *files]
    assert [failure["file_name"] for failure in summary["failed"]] == ["tree frog/0.jpg"]
    assert "a dangling link to /nowhere/frog.jpg" in summary["failed"][0]["reason"]
    assert summary["top1"] == 1.0
    assert [c["name"] for c in coco["categories"]] == list(names)
    output = capsys.readouterr().out
    assert "files that look like images and are not taken: 1 (without suffix 1), such as" in output
    assert "skipped hidden names and leftovers of systems: 2" in output
    assert (
        "images that lie beside the class folders, have no class, and are not taken: 1, such as"
        in output
    )
    assert "no image in" not in output


class TestSamples:
    def test_order_is_that_of_mmpretrain(self, tmp_path):
        touch(tmp_path, "b/2.jpg", "b/10.jpg", "a b/x/1.PNG", "a b/x.png", "a b/x-1.png", "a/1.jpg")
        (tmp_path / "c").mkdir()
        dataset = ClassFolders(tmp_path, 4, ["a", "b", "c", "a b"], lazy_init=True)
        expected, _ = get_samples(str(tmp_path), dataset.folder_to_idx, dataset.is_valid_file)
        assert list(dataset.samples()) == expected
        assert expected[-2:] == [("b/10.jpg", 1), ("b/2.jpg", 1)]
        dataset.full_init()
        stored = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert [(info["img_path"], info["gt_label"]) for info in stored] == [
            (str(tmp_path / name), label) for name, label in expected
        ]

    def test_lazy_dataset_lists_no_image(self, tmp_path):
        dataset = ClassFolders(folders(tmp_path, "cat", "dog"), 2, lazy_init=True)
        assert not dataset._fully_initialized
        assert dataset.metainfo["classes"] == ("cat", "dog")
        touch(tmp_path, "cat/2.jpg")
        dataset.full_init()
        assert len(dataset) == 3

    def test_class_without_images_is_named_and_one_of_dangling_links_is_not(self, tmp_path, capsys):
        root = folders(tmp_path, "cat")
        (root / "dog").mkdir()
        (root / "eel").mkdir()
        (root / "eel" / "1.jpg").symlink_to("/nowhere/1.jpg")
        assert len(ClassFolders(root, 3)) == 2
        assert "no image in 1 of 3 class folders, such as 'dog'" in capsys.readouterr().out

    def test_folders_of_other_kinds_of_images_are_refused_with_what_they_hold(self, tmp_path):
        touch(tmp_path, "cat/1.heic", "dog/2.heic")
        with pytest.raises(RuntimeError, match=r"no image in them; .* others \(\.heic 2\)"):
            ClassFolders(tmp_path, 2)

    def test_class_folder_may_be_a_link(self, tmp_path):
        touch(tmp_path, "pool/1.jpg", "root/dog/2.jpg")
        (tmp_path / "root" / "cat").symlink_to(tmp_path / "pool")
        (tmp_path / "pool" / "up").symlink_to(tmp_path)
        dataset = ClassFolders(tmp_path / "root", 2, lazy_init=True)
        assert list(dataset.samples()) == [("cat/1.jpg", 0), ("dog/2.jpg", 1)]


def test_dangling_link_is_named_by_the_reader(tmp_path):
    (tmp_path / "1.jpg").symlink_to("../annex/1.jpg")
    with pytest.raises(
        FileNotFoundError, match=r"^a dangling link to \.\./annex/1\.jpg; mount or fetch"
    ):
        read_image(str(tmp_path / "1.jpg"))


class TestWarningOfAConfigsDataset:
    def test_files_that_mmpretrain_leaves_out_are_named(self, tmp_path, capsys):
        touch(tmp_path, "cat/1.jpg", "cat/2.webp", "dog/3.jpg", "dog/4.WEBP", "dog/5.gif")
        (tmp_path / "dog" / "6.jpg").symlink_to("/nowhere/6.jpg")
        dataset = RepeatDataset(CustomDataset(data_root=str(tmp_path)), 2)
        assert len(dataset) == 4
        warn_of_files_not_taken(dataset)
        files, links = capsys.readouterr().out.splitlines()
        assert "WARNING" in files
        assert "CustomDataset of the config leaves out files that look like images: 3" in files
        assert "(.webp 2, .gif 1), such as 'cat/2.webp'" in files
        assert "`extensions=` in the config, or give the folder with --images" in files
        assert "leaves out dangling links: 1 (.jpg 1), such as 'dog/6.jpg'" in links

    def test_hidden_folders_that_mmpretrain_takes_for_classes_are_named(self, tmp_path, capsys):
        touch(tmp_path, ".ipynb_checkpoints/1.jpg", "cat/1.jpg")
        warn_of_files_not_taken(CustomDataset(data_root=str(tmp_path)))
        assert "takes '.ipynb_checkpoints' for a class" in capsys.readouterr().out

    def test_nothing_is_said_where_nothing_is_left_out(self, tmp_path, capsys):
        touch(tmp_path, "cat/1.jpg", "cat/2.webp", "dog/3.jpg")
        (tmp_path / "list.txt").write_text("cat/1.jpg 0\n")
        extensions = (".jpg", ".webp")
        for dataset in (
            CustomDataset(data_root=str(tmp_path), extensions=extensions),
            CustomDataset(data_root=str(tmp_path), ann_file="list.txt"),
            ClassFolders(tmp_path, 2, ["cat", "dog"]),
            object(),
        ):
            capsys.readouterr()
            warn_of_files_not_taken(dataset)
            assert capsys.readouterr().out == ""


def test_listing_holds_the_names_of_one_class_at_a_time(tmp_path):
    """The first image of the second class is given out before the third folder is opened."""
    root = folders(tmp_path, "a", "b", "c")
    samples = ClassFolders(root, 3, ["a", "b", "c"], lazy_init=True).samples()
    assert [next(samples), next(samples)] == [("a/1.jpg", 0), ("b/1.jpg", 1)]
    os.rename(root / "c" / "1.jpg", root / "c" / "2.jpg")
    assert list(samples) == [("c/2.jpg", 2)]


def test_folders_of_some_classes_for_a_classifier_of_the_zoo(tmp_path):
    """Its checkpoint knows the names of its classes."""
    root = make_class_folders(tmp_path / "images", 2, {"red": "red", "green": "green"})
    (root / "green" / "0.jpg").rename(root / "green" / "0.jfif")
    config = zoo_config(root)
    checkpoint = save_random_weights(config, tmp_path / "weights.pth")
    generate_from_config(config, str(checkpoint), tmp_path / "out", str(root))
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [
        "green/0.jfif", "green/1.jpg", "red/0.jpg", "red/1.jpg",
    ]  # fmt: skip
    assert [category["name"] for category in coco["categories"]] == ["blue", "green", "red"]
    assert {a["category_id"] for a in coco["annotations"]} == {2, 3}
