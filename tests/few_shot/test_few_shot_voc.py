"""Few-shot subsets of sets in VOC layout: what counts, and what is written."""

from pathlib import Path

import pytest
from mmdet.datasets import VOCDataset

from dap.datasets import CheckedCocoDataset
from dap.datasets.voc_files import VOC_CLASSES
from dap.few_shot import make_few_shot_subsets
from dap.testing import make_voc
from tests.support.few_shot import edit_xml, read, write_list, write_voc


class TestVoc:
    def test_lists_and_record(self, tmp_path, capsys):
        """2 shots take all four images: a fox alone, dogs alone in two, and both in one."""
        first = write_voc(tmp_path / "VOC2007", {"000005": ["fox"], "000007": ["dog", "dog"]})
        second = write_voc(tmp_path / "VOC2012", {"2008_02": ["dog"], "2008_01": ["fox", "dog"]})
        (folder,) = make_few_shot_subsets(tmp_path / "out", [2], voc=[first, second])
        assert folder == tmp_path / "out" / "voc0712_2shot_seed0"
        assert {path.name for path in folder.iterdir()} == {
            "VOC2007.txt",
            "VOC2012.txt",
            "annotations.json",
            "record.json",
        }
        assert (folder / "VOC2007.txt").read_text() == "000005\n000007\n"
        assert (folder / "VOC2012.txt").read_text() == "2008_01\n2008_02\n"
        record = read(folder / "record.json")
        assert len(record.pop("sha256")) == 64
        assert record == {
            "name": "voc0712",
            "k": 2,
            "seed": 0,
            "images": 4,
            "sources": [str(first), str(second)],
            "split": "trainval",
            "excluded": {"in_test_list": 0, "in_exclude_files": 0},
            "short": {},
            "classes": {
                "dog": {"available": 3, "drawn_for": 2, "images": 3, "boxes": 4},
                "fox": {"available": 2, "drawn_for": 2, "images": 2, "boxes": 2},
            },
            "disjoint_from": [],
            "disjoint_k": 0,
        }
        assert "WARNING" not in capsys.readouterr().out

    def test_source_without_a_drawn_image_has_an_empty_list(self, tmp_path, capsys):
        first = write_voc(tmp_path / "VOC2007", {"1": ["cat"]})
        second = write_voc(tmp_path / "VOC2012", {"2": []})
        (folder,) = make_few_shot_subsets(tmp_path, [1], voc=[first, second])
        assert (folder / "VOC2012.txt").read_text() == ""
        assert "VOC2012.txt: no image was drawn from there" in capsys.readouterr().out

    def test_hash_follows_what_was_read(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["dog"]})
        (one,) = make_few_shot_subsets(tmp_path / "one", [1], voc=[root])
        edit_xml(root, "2", "<xmax>40", "<xmax>41")
        (two,) = make_few_shot_subsets(tmp_path / "two", [1], voc=[root])
        assert read(one / "record.json")["sha256"] != read(two / "record.json")["sha256"]

    @pytest.mark.parametrize(
        ("folders", "name"),
        [
            (["VOC2007"], "voc07"),
            (["VOC2012", "VOC2007"], "voc1207"),
            (["Cars"], "cars"),
            (["VOC2007", "Cars"], "voc2007-cars"),
        ],
    )
    def test_default_name(self, tmp_path, folders, name):
        roots = [write_voc(tmp_path / folder, {f"{folder}_1": ["cat"]}) for folder in folders]
        (folder,) = make_few_shot_subsets(tmp_path / "out", [1], voc=roots)
        assert folder.name == f"{name}_1shot_seed0"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("<difficult>0", "<difficult>1"),
            ("<xmax>40", "<xmax>11"),  # xmin is 11: mmdet's width is 0
            ("<ymax>50", "<ymax>11.9"),
        ],
    )
    def test_unusable_object_does_not_count(self, tmp_path, capsys, old, new):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["cat"], "3": ["fox"]})
        edit_xml(root, "1", old, new)
        edit_xml(root, "3", old, new)
        (folder,) = make_few_shot_subsets(tmp_path / "out", [2], voc=[root])
        assert (folder / "VOC2007.txt").read_text() == "2\n"
        record = read(folder / "record.json")
        assert record["short"] == {"cat": 1, "fox": 0}
        assert record["classes"]["cat"]["boxes"] == record["classes"]["cat"]["available"] == 1
        assert "2 of 2 classes got fewer than 2 images" in capsys.readouterr().out

    def test_smallest_usable_object_counts(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"]})
        edit_xml(root, "1", "<xmax>40", "<xmax>12")
        (folder,) = make_few_shot_subsets(tmp_path / "out", [1], voc=[root])
        assert (folder / "VOC2007.txt").read_text() == "1\n"

    def test_parts_of_a_person_are_no_objects(self, tmp_path):
        root = write_voc(tmp_path / "VOC2012", {"1": ["rider"]})
        part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        edit_xml(root, "1", "</object>", part)
        (folder,) = make_few_shot_subsets(tmp_path / "out", [1], voc=[root])
        assert list(read(folder / "record.json")["classes"]) == ["rider"]

    def test_test_images_are_never_drawn(self, tmp_path, capsys):
        images = {f"{i:06d}": ["fox"] for i in range(6)}
        root = write_voc(tmp_path / "VOC2007", images)
        write_list(root, "test", ["000001", "000004", "000099"])
        (folder,) = make_few_shot_subsets(tmp_path / "out", [6], voc=[root])
        assert (folder / "VOC2007.txt").read_text().split() == [
            "000000",
            "000002",
            "000003",
            "000005",
        ]
        record = read(folder / "record.json")
        assert record["excluded"] == {"in_test_list": 2, "in_exclude_files": 0}
        assert record["short"] == {"fox": 4}
        assert "2 of 6 images are also in" in capsys.readouterr().out

    def test_test_split_itself_is_refused(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"]}, split="test")
        with pytest.raises(ValueError, match=r"none of 0 images .*1 in_test_list"):
            make_few_shot_subsets(tmp_path / "out", [1], voc=[root], split="test")

    def test_coco_file_of_the_draw(self, tmp_path):
        """Box (10, 10, 40, 50) is 11..40 x 11..50 in the XML; mmdet makes it a pixel smaller."""
        root = write_voc(tmp_path / "VOC2007", {"7": ["fox"], "5": ["cat"], "3": ["cow"]})
        edit_xml(root, "5", "<difficult>0", "<difficult>1")
        edit_xml(root, "5", "</annotation>", "")
        other = "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>10</xmax>"
        with open(root / "Annotations" / "5.xml", "a") as file:
            file.write(other + "<ymax>20.7</ymax></bndbox></object></annotation>")
        write_list(root, "trainval", ["7", "5"])
        (folder,) = make_few_shot_subsets(tmp_path / "out", [1], voc=[root])
        images = [
            {"id": i, "file_name": f"VOC2007/JPEGImages/{stem}.jpg", "width": 128, "height": 96}
            for i, stem in [(1, "5"), (2, "7")]
        ]
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        annotations = [
            (1, 1, 1, [10, 10, 29, 39], 1131, 1),
            (2, 1, 1, [1, 2, 8, 17], 136, 0),
            (3, 2, 2, [10, 10, 29, 39], 1131, 0),
        ]
        assert read(folder / "annotations.json") == {
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "fox"}],
            "images": images,
            "annotations": [dict(zip(keys, values, strict=True)) for values in annotations],
        }

    def test_mmdet_reads_lists_and_coco_file_alike(self, tmp_path):
        classes = ("aeroplane", "bicycle", "bird")
        root = make_voc(tmp_path / "VOC2007", {"trainval": 20}, classes, objects=3)
        for path in (root / "Annotations").iterdir():  # the first of three objects
            path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
        (folder,) = make_few_shot_subsets(tmp_path / "out", [3], voc=[root])
        by_list = VOCDataset(
            data_root=str(tmp_path),
            ann_file="out/voc07_3shot_seed0/VOC2007.txt",
            data_prefix={"sub_data_root": "VOC2007/"},
            metainfo={"classes": classes},
            filter_cfg={"filter_empty_gt": True},
            pipeline=[],
        )
        by_file = CheckedCocoDataset(
            ann_file=str(folder / "annotations.json"),
            data_prefix={"img": f"{tmp_path}/"},
            metainfo={"classes": classes},
            allow_unused=True,  # the file has VOC's twenty
            filter_cfg={"filter_empty_gt": True},
            pipeline=[],
        )
        listed = [by_list.get_data_info(i) for i in range(len(by_list))]
        assert [info["img_id"] for info in listed] == (folder / "VOC2007.txt").read_text().split()
        assert len(listed) == len(by_file) == 9
        for index, info in enumerate(listed):
            other = by_file.get_data_info(index)
            assert Path(info["img_path"]).is_file()
            assert Path(info["img_path"]) == Path(other["img_path"])
            for key in ("width", "height", "instances"):
                assert info[key] == other[key]
        trained = [
            classes[item["bbox_label"]]
            for info in listed
            for item in info["instances"]
            if not item["ignore_flag"]
        ]
        assert len(trained) == 2 * 9
        counted = read(folder / "record.json")["classes"]
        assert {name: trained.count(name) for name in classes} == {
            name: counted[name]["boxes"] for name in classes
        }

    def test_part_of_vocs_classes_gets_the_twenty(self, tmp_path, capsys):
        """File, record and warning have all of VOC's classes, in the order of mmdet."""
        voc = write_voc(tmp_path / "VOC2007", {"1": ["dog"], "2": ["cat", "dog"]})
        (folder,) = make_few_shot_subsets(tmp_path, [1], voc=[voc])
        content = read(folder / "annotations.json")
        names = [category["name"] for category in content["categories"]]
        assert names == list(VOC_CLASSES) == list(VOCDataset.METAINFO["classes"])
        assert {names[a["category_id"] - 1] for a in content["annotations"]} == {"cat", "dog"}
        record = read(folder / "record.json")
        assert list(record["classes"]) == names
        assert set(record["short"]) == set(names) - {"cat", "dog"}
        assert record["classes"]["sofa"] == dict.fromkeys(
            ("available", "drawn_for", "images", "boxes"), 0
        )
        warning = capsys.readouterr().out
        assert "18 of 20 classes got fewer than 1 images" in warning
        assert "sofa 0 of 0" in warning

    def test_blanks_around_a_name(self, tmp_path):
        voc = write_voc(tmp_path / "VOC2007", {"1": ["fox"], "2": ["fox"]})
        edit_xml(voc, "1", "<name>fox</name>", "<name> fox\n</name>")
        (folder,) = make_few_shot_subsets(tmp_path, [2], voc=[voc])
        assert list(read(folder / "record.json")["classes"]) == ["fox"]
