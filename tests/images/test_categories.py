"""The names of the categories, by the classes of a data set and the folders of its images."""

import pytest
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from dap.images.categories import imagenet_wordnet_ids
from dap.pseudo_boxes import ClassFolders
from tests.support.class_folders import folders, names_of


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
