"""Which class each folder is: by the names that a file or a checkpoint gives, or by its order."""

import unicodedata

import pytest
from mmengine.config import Config
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from dap.images.categories import imagenet_wordnet_ids
from dap.images.folder_labels import read_folder_names
from dap.pseudo_boxes import ClassFolders
from dap.pseudo_boxes.from_config import build_class_folders, known_classes
from tests.support.class_folders import folders, labels, names_file, names_of


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
