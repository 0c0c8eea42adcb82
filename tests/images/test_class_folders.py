"""Class folders of one's own: which images they hold, and which class each folder is."""

import json
import os
import unicodedata

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.datasets.custom import get_samples

from dap.images.categories import coco_categories, imagenet_wordnet_ids
from dap.images.class_folders import warn_of_files_not_taken
from dap.images.folder_labels import read_folder_names
from dap.images.labelled_images import LabelledImages, read_image
from dap.pseudo_boxes import ClassFolders, generate_from_config
from dap.pseudo_boxes.from_config import build_class_folders, known_classes
from dap.testing import make_class_folders
from tests.support.planted import model_config, planted_state
from tests.support.zoo import save_random_weights, zoo_config


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def folders(root, *names):
    return touch(root, *(f"{name}/1.jpg" for name in names))


def labels(dataset):
    """Label of each class folder that holds images."""
    return {name.split("/")[0]: label for name, label in dataset.samples()}


def names_file(tmp_path, *lines):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def names_of(dataset, num_classes):
    return [c["name"] for c in coco_categories(LabelledImages(dataset), num_classes)]


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
    assert "1 files look like images and are not taken (without suffix 1), such as" in output
    assert "2 hidden names and leftovers of systems were skipped" in output
    assert "1 images are not taken, since they lie beside the class folders" in output
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


class TestNamesInAFile:
    def test_names_with_blanks(self, tmp_path):
        root = folders(tmp_path / "images", "golden retriever", "sea")
        path = names_file(tmp_path, "sea lion", "sea", "tree frog", "golden retriever", "cat")
        dataset = build_class_folders(str(root), 5, None, path)
        assert labels(dataset) == {"sea": 1, "golden retriever": 3}
        assert names_of(dataset, 5) == ["sea lion", "sea", "tree frog", "golden retriever", "cat"]

    def test_ids_with_readable_names(self, tmp_path):
        path = names_file(tmp_path, "n2 tench, Tinca", "n1\tgreat\twhite shark", "", "n3")
        assert read_folder_names(path) == ["n2", "n1", "n3"]
        assert read_folder_names(path, ["n1"]) == ["n2", "n1", "n3"]

    def test_first_words_of_absent_folders_may_repeat(self, tmp_path):
        path = names_file(tmp_path, "tree frog", "cat", "tree sparrow", "great auk")
        assert read_folder_names(path, ["cat"]) == ["tree frog", "cat", "tree sparrow", "great"]

    def test_byte_order_mark_line_ends_and_tabs(self, tmp_path):
        (tmp_path / "x.txt").write_bytes(
            "cat\t\r\n\t\r\n dog \r\n\r\nzèbre\r\n".encode("utf-8-sig")
        )
        assert read_folder_names(tmp_path / "x.txt") == ["cat", "dog", "zèbre"]

    @pytest.mark.parametrize(
        ("lines", "present", "message"),
        [
            (["a", "", "b", "a"], [], r"lines 1 and 4 give the same folder name 'a'\. Give each"),
            (["cat persian", "cat siamese", "dog"], ["cat", "dog"],
             r"lines 1 and 2 give .* 'cat'.* blanks, as in 'cat persian', there must be a folder"),
            (["sea", "sea lion"], ["sea"], r"lines 1 and 2 give .* 'sea'.* as in 'sea lion'"),
            (["é", unicodedata.normalize("NFD", "é")], [], r"lines 1 and 2 give .* 'é'"),
        ],
    )  # fmt: skip
    def test_repeats_are_refused(self, tmp_path, lines, present, message):
        with pytest.raises(ValueError, match=rf"classes\.txt: {message}"):
            read_folder_names(names_file(tmp_path, *lines), present)

    def test_letters_may_be_composed_or_not(self, tmp_path):
        decomposed = unicodedata.normalize("NFD", "café")
        root = folders(tmp_path / "images", decomposed)
        dataset = build_class_folders(str(root), 2, None, names_file(tmp_path, "bar", "café"))
        assert labels(dataset) == {decomposed: 1}
        assert names_of(dataset, 2) == ["bar", "café"]
        assert labels(build_class_folders(str(root), 2, ["bar", "café"], None)) == {decomposed: 1}

    @pytest.mark.parametrize(
        ("encoding", "message"),
        [
            ("utf-16", "zero bytes, as a file in UTF-16 does"),
            ("utf-16-le", "zero bytes"),
            ("latin-1", "line 2 holds the byte 0xe8, as files in Latin-1"),
        ],
    )
    def test_other_encodings_are_refused_in_one_sentence(self, tmp_path, encoding, message):
        (tmp_path / "x.txt").write_bytes("cat\nzèbre\n".encode(encoding))
        with pytest.raises(ValueError, match=rf"x\.txt is no text in UTF-8: .*{message}.*Save it"):
            read_folder_names(tmp_path / "x.txt")

    def test_hidden_folder_counts_if_it_is_named(self, tmp_path):
        root = folders(tmp_path / "images", ".net", ".git", "java")
        assert labels(ClassFolders(root, 2, [".net", "java"])) == {".net": 0, "java": 1}

    def test_other_number_of_names_is_refused(self, tmp_path):
        root = folders(tmp_path / "images", "cat")
        with pytest.raises(ValueError, match="2 class folders are named, the classifier has 3"):
            build_class_folders(str(root), 3, None, names_file(tmp_path, "cat", "dog"))


class TestKnownClasses:
    def test_name_of_two_classes_is_refused_where_a_folder_has_it(self, tmp_path):
        known = ["crane", "hen", "crane"]
        assert labels(build_class_folders(str(folders(tmp_path / "a", "hen")), 3, known, None))
        with pytest.raises(ValueError, match=r"folder 'crane' in .* fits the classes 0 and 2"):
            build_class_folders(str(folders(tmp_path / "b", "crane", "hen")), 3, known, None)

    def test_some_wordnet_ids_of_imagenet_keep_their_labels(self, tmp_path):
        root = folders(tmp_path, "n01443537", "n02012849")
        dataset = build_class_folders(str(root), 1000, list(IMAGENET_CATEGORIES), None)
        assert labels(dataset) == {"n01443537": 1, "n02012849": 134}
        assert IMAGENET_CATEGORIES[134] == "crane"
        assert names_of(dataset, 1000) == list(imagenet_wordnet_ids())

    def test_names_in_a_file_of_the_config(self, tmp_path):
        (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
        dataset = {"type": "CustomDataset", "classes": str(tmp_path / "names.txt")}
        config = Config({"train_dataloader": {"dataset": dataset}})
        assert known_classes(config, {}) == ["cat", "dog"]


class TestUnknownClasses:
    def test_dangling_link_that_may_be_a_class_folder_is_named(self, tmp_path):
        root = folders(tmp_path, "cat", "dog")
        (root / "frog").symlink_to("/nowhere/frog")
        with pytest.raises(ValueError, match=r"2 class folders.* 3 classes.* such as 'frog'"):
            ClassFolders(root, 3)

    def test_sorted_order_is_logged_as_assumed(self, tmp_path, capsys):
        root = folders(tmp_path, "f", "e", "d", "c", "b", "a")
        assert labels(ClassFolders(root, 6))["f"] == 5
        output = capsys.readouterr().out
        assert (
            "assumed in sorted order: 0 -> 'a', 1 -> 'b', 2 -> 'c', 3 -> 'd', 4 -> 'e', …" in output
        )
        assert "--classes FILE" in output

    @pytest.mark.parametrize(
        "names", [list(map(str, range(11))), ["class1", "class2", "class10"], ["9 x", "10 x"]]
    )
    def test_names_that_are_sorted_in_two_ways_are_refused(self, tmp_path, names):
        root = folders(tmp_path / "images", *names)
        with pytest.raises(ValueError, match=r"sorted in two ways: label .* --classes FILE"):
            build_class_folders(str(root), len(names), None, None)
        path = names_file(tmp_path, *names)
        expected = {name: label for label, name in enumerate(names)}
        assert labels(build_class_folders(str(root), len(names), None, path)) == expected

    @pytest.mark.parametrize(
        "names", [["0", "1", "9"], ["01", "02", "10"], ["car", "car (new)", "car2"], ["a1", "a1b"]]
    )
    def test_names_that_are_sorted_in_one_way_pass(self, tmp_path, names):
        dataset = ClassFolders(folders(tmp_path, *names), len(names))
        assert [*labels(dataset)] == sorted(names)

    @pytest.mark.parametrize(
        "names",
        [
            ("train", "val"),
            ("Test", "TRAIN"),
            ("training", "testing"),
            ("train2017", "val2017"),
            ("validation", "train_set"),
        ],
    )
    @pytest.mark.parametrize("known", [None, ["cat", "dog"]])
    def test_splits_are_no_classes(self, tmp_path, names, known):
        root = folders(tmp_path, *names)
        first = next(name for name in names if name.lower().startswith("train"))
        with pytest.raises(ValueError, match=rf"named like a split .*: {root / first}\. If it is"):
            build_class_folders(str(root), 2, known, None)

    def test_split_that_is_the_name_of_a_class_is_one(self, tmp_path):
        root = folders(tmp_path / "images", "bus", "train")
        expected = {"bus": 1, "train": 0}
        assert labels(build_class_folders(str(root), 2, ["train", "bus"], None)) == expected
        path = names_file(tmp_path, "train", "bus")
        assert labels(build_class_folders(str(root), 2, None, path)) == expected

    def test_hidden_folders_are_no_classes(self, tmp_path):
        root = folders(tmp_path, "cat", "dog", ".ipynb_checkpoints", "__MACOSX")
        assert labels(ClassFolders(root, 2)) == {"cat": 0, "dog": 1}
        with pytest.raises(ValueError, match="2 class folders, the classifier has 3"):
            ClassFolders(root, 3)


class TestCategoryNames:
    IDS = ("n00000001", "n00000002", "n00000003")

    def listed(self, tmp_path, *lines, classes=("crane", "hen", "crane")):
        (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
        return CustomDataset(
            data_root=str(tmp_path), ann_file="list.txt", metainfo={"classes": classes}
        )

    def test_empty_class_folder_changes_no_name(self, tmp_path):
        folders(tmp_path, *self.IDS[:2])
        dataset = ClassFolders(tmp_path, 3, self.IDS, ["crane", "hen", "crane"])
        assert names_of(dataset, 3) == list(self.IDS)

    def test_class_without_images_in_a_list_changes_no_name_of_the_others(self, tmp_path, capsys):
        a, b, c = (f"{name}/{name}_1.JPEG {label}" for label, name in enumerate(self.IDS))
        assert names_of(self.listed(tmp_path, a, b, c), 3) == list(self.IDS)
        assert capsys.readouterr().out == ""
        assert names_of(self.listed(tmp_path, b, c), 3) == ["crane (0)", *self.IDS[1:]]
        output = capsys.readouterr().out
        assert "WARNING" in output
        assert "no image tells the WordNet id of 1 of 3 classes, such as label 0" in output

    @pytest.mark.parametrize(
        "lines",
        [
            ("n00000001/1.jpg 0", "n00000001/2.jpg 1"),
            ("n00000001/1.jpg 0", "n00000002/2.jpg 0", "n00000003/1.jpg 1"),
        ],
    )
    def test_ids_and_labels_that_are_not_one_to_one_name_nothing(self, tmp_path, lines, capsys):
        expected = ["crane (0)", "hen", "crane (2)"]
        assert names_of(self.listed(tmp_path, *lines), 3) == expected
        assert "not one to one, such as n00000001 of label 0" in capsys.readouterr().out

    def test_folder_next_to_the_file_is_the_one_that_names_the_class(self, tmp_path):
        dataset = self.listed(tmp_path, "n9/n00000009/n00000002/1.jpg 0", "n00000009/x/1.jpg 1")
        assert names_of(dataset, 3) == ["n00000002", "n00000009", "crane (2)"]

    def test_imagenet_has_its_ids_whichever_classes_have_images(self, tmp_path, capsys):
        line = "n02012849/n02012849_7.JPEG 134"
        dataset = self.listed(tmp_path, line, classes=IMAGENET_CATEGORIES)
        assert names_of(dataset, 1000) == list(imagenet_wordnet_ids())
        assert capsys.readouterr().out == ""

    def test_imagenet_in_another_order_is_not_taken_for_it(self, tmp_path, capsys):
        line = "n02012849/n02012849_7.JPEG 135"
        names = names_of(self.listed(tmp_path, line, classes=IMAGENET_CATEGORIES), 1000)
        assert names[134:136] == ["crane (134)", "n02012849"]
        output = capsys.readouterr().out
        assert "images of label 135 lie in a folder n02012849, which in ImageNet-1k is" in output

    def test_table_of_imagenet(self):
        """The ids of crane the bird, of crane the machine, and of the first and the last class."""
        ids = imagenet_wordnet_ids()
        assert len(set(ids)) == 1000
        assert list(ids) == sorted(ids)
        assert (ids[0], ids[134], ids[517]) == ("n01440764", "n02012849", "n03126707")
        assert ids[999] == "n15075141"


class TestWarningOfAConfigsDataset:
    def test_files_that_mmpretrain_leaves_out_are_named(self, tmp_path, capsys):
        touch(tmp_path, "cat/1.jpg", "cat/2.webp", "dog/3.jpg", "dog/4.WEBP", "dog/5.gif")
        (tmp_path / "dog" / "6.jpg").symlink_to("/nowhere/6.jpg")
        dataset = RepeatDataset(CustomDataset(data_root=str(tmp_path)), 2)
        assert len(dataset) == 4
        warn_of_files_not_taken(dataset)
        files, links = capsys.readouterr().out.splitlines()
        assert "WARNING" in files
        assert "CustomDataset of the config leaves out 3 files that look like images" in files
        assert "(.webp 2, .gif 1), such as 'cat/2.webp'" in files
        assert "`extensions=` in the config, or give the folder with --images" in files
        assert "leaves out 1 dangling links (.jpg 1), such as 'dog/6.jpg'" in links

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
