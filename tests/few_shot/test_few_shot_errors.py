"""Errors of few-shot subsets name the file or the argument."""

import json

import pytest

from dap.few_shot import make_few_shot_subsets
from tests.support.few_shot import coco_content, edit_xml, write_coco, write_list, write_voc


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"shots": [5, 0]}, r"shots: found \[5, 0\]"),
            ({"shots": []}, r"shots: found \[\]"),
            ({"seeds": [1, 1]}, r"seeds: found \[1, 1\], expected one or more, each once"),
            ({"name": "a/b"}, r"name: found 'a/b'"),
            ({"voc": ["x"]}, r"expected either folders .* or a COCO file"),
            ({"coco": None}, r"expected either folders .* or a COCO file"),
        ],
    )
    def test_arguments(self, tmp_path, pets, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_few_shot_subsets(tmp_path / "out", **{"shots": [1], "coco": pets, **arguments})
        assert not (tmp_path / "out").exists()

    def test_unknown_split(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"]})
        with pytest.raises(FileNotFoundError, match=r"Main/dev\.txt.* there: trainval\."):
            make_few_shot_subsets(tmp_path, [1], voc=[root], split="dev")

    def test_missing_xml(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"]})
        write_list(root, "trainval", ["1", "2"])
        with pytest.raises(FileNotFoundError, match=r"Annotations/2\.xml.*has a line '2'"):
            make_few_shot_subsets(tmp_path, [1], voc=[root])

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("</annotation>", ""),
            ("<xmin>11</xmin>", ""),
            ("<xmin>11", "<xmin>nan"),
            ("<xmin>11", "<xmin>inf"),
            ("<name>cat</name>", ""),
            ("<width>128", "<width>0"),
            ("<height>96</height>", ""),
            ("<difficult>0", "<difficult>maybe"),
        ],
    )
    def test_malformed_xml(self, tmp_path, old, new):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["cat"]})
        edit_xml(root, "2", old, new)
        with pytest.raises(ValueError, match=r"Annotations/2\.xml is no annotation in VOC layout"):
            make_few_shot_subsets(tmp_path, [1], voc=[root])

    def test_unknown_encoding(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"]})
        path = root / "Annotations" / "1.xml"
        path.write_text('<?xml version="1.0" encoding="utf-99"?><annotation/>')
        with pytest.raises(ValueError, match=r"Annotations/1\.xml is no annotation .*utf-99"):
            make_few_shot_subsets(tmp_path, [1], voc=[root])

    def test_folders_of_the_same_name(self, tmp_path):
        roots = [write_voc(tmp_path / part / "VOC2007", {"1": ["cat"]}) for part in "ab"]
        with pytest.raises(ValueError, match=r"expected folders with different names"):
            make_few_shot_subsets(tmp_path, [1], voc=roots)

    def test_missing_files(self, tmp_path, pets):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.json: cannot be read"):
            make_few_shot_subsets(tmp_path, [1], coco=tmp_path / "nowhere.json")
        with pytest.raises(FileNotFoundError, match=r"nowhere\.txt: cannot be read"):
            make_few_shot_subsets(tmp_path, [1], coco=pets, exclude=[tmp_path / "nowhere.txt"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"a\.json is no json"),
            ("[]", r"a\.json has no list of images, annotations, categories"),
            ('{"images": [], "categories": []}', r"has no list of annotations;"),
            ('{"images": [], "categories": [], "annotations": {}}', r"no list of annotations;"),
        ],
    )
    def test_no_coco_file(self, tmp_path, text, message):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            make_few_shot_subsets(tmp_path, [1], coco=tmp_path / "a.json")

    @pytest.mark.parametrize(
        ("key", "change", "message"),
        [
            ("annotations", {"image_id": 99}, r"annotation 1: unknown image_id 99, as 1 of 2"),
            (
                "annotations",
                {"category_id": 99},
                r"annotation 1: unknown category_id 99, as 1 of 2",
            ),
            (
                "annotations",
                {"bbox": [1, 2, 3]},
                r"annotation 1: bbox \[1, 2, 3\]; expected 4 numbers",
            ),
            ("annotations", {"bbox": None}, r"annotation 1: bbox None; expected 4 numbers"),
            ("images", {"width": None}, r"image 1: width None; expected whole pixels"),
            ("images", {"id": 2}, r"have the same id"),
            ("categories", {"id": 7}, r"have the same id"),
            ("categories", {"name": "dog"}, r"the same name"),
        ],
    )
    def test_malformed_coco(self, tmp_path, key, change, message):
        content = coco_content({1: ["cat"], 2: ["dog"]})
        content[key][0].update(change)
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
            make_few_shot_subsets(tmp_path, [1], coco=tmp_path / "a.json")

    @pytest.mark.parametrize("key", ["images", "categories"])
    def test_nameless_image_or_category(self, tmp_path, key):
        content = coco_content({1: ["cat"]})
        content[key][0].pop({"images": "file_name", "categories": "name"}[key])
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(
            ValueError, match=r"a\.json: (image 1: file_|category 3: )name None; expected a"
        ):
            make_few_shot_subsets(tmp_path, [1], coco=tmp_path / "a.json")

    def test_nothing_to_draw_from(self, tmp_path):
        path = write_coco(tmp_path / "a.json", {1: [], 2: [{"name": "cat", "iscrowd": 1}]})
        with pytest.raises(ValueError, match=r"a\.json: none of 2 images has a usable box"):
            make_few_shot_subsets(tmp_path, [1], coco=path)
