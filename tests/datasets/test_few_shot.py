"""Few-shot subsets: draws worked out by hand, what counts, and files that mmdet reads."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset, VOCDataset

from dap.datasets import CheckedCocoDataset
from dap.datasets.few_shot import draw_shots, make_few_shot_subsets
from dap.datasets.few_shot_source import images_named
from dap.datasets.few_shot_voc import VOC_CLASSES
from dap.testing import make_coco, make_voc, write_voc_annotation

BOX = (10, 10, 40, 50)
IMAGES_OF = {"dog": ["1", "2", "3", "4", "5"], "cat": ["1", "2", "3", "4"]}


def write_voc(root, images, split="trainval"):
    """Write {id: class names} in VOC layout, without image files."""
    for stem, names in images.items():
        path = root / "Annotations" / f"{stem}.xml"
        write_voc_annotation(path, (96, 128), [BOX] * len(names), names)
    write_list(root, split, images)
    return root


def write_list(root, split, ids):
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{stem}\n" for stem in ids))


def edit_xml(root, stem, old, new):
    path = root / "Annotations" / f"{stem}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def coco_content(images, categories=("cat", "dog")):
    """Build {image id: [class name or dict of an annotation]}; category ids are 3, 7, …."""
    ids = {name: 3 + 4 * i for i, name in enumerate(categories)}
    annotations = []
    for image, items in images.items():
        for item in items:
            given = item if isinstance(item, dict) else {"name": item}
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "bbox": [10, 10, 30, 40],
                "area": 1200,
                "iscrowd": 0,
                **given,
            }
            annotation["category_id"] = ids[annotation.pop("name")]
            annotations.append(annotation)
    return {
        "info": {"year": 2024},
        "licenses": [{"id": 1}],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "images": [
            {"id": image, "file_name": f"{image:06d}.jpg", "width": 128, "height": 96}
            for image in images
        ],
        "annotations": annotations,
    }


def write_coco(path, images, categories=("cat", "dog")):
    path.write_text(json.dumps(coco_content(images, categories)))
    return path


def read(path):
    return json.loads(path.read_text())


def image_ids(folder):
    return {image["id"] for image in read(folder / "annotations.json")["images"]}


class TestDraw:
    # First digits of sha256 of "0/cat/1" and so on:
    #   seed 0  cat  4: 01  2: 2c  1: 9a  3: d1         dog  3: 80  5: 92  4: 9e  2: e6  1: f2
    #   seed 1  cat  3: 4a  2: 6b  4: 88  1: d8         dog  1: 0d  3: 58  2: 6a  4: cf  5: d1

    @pytest.mark.parametrize(
        ("seed", "k", "expected"),
        [
            (0, 1, {"cat": ["4"], "dog": ["3"]}),
            (0, 2, {"cat": ["4", "2"], "dog": ["3", "5"]}),
            # For dog all are taken: it shares its next one, 4, with cat.
            (0, 3, {"cat": ["4", "2", "1"], "dog": ["3", "5", "4"]}),
            (0, 9, {"cat": ["4", "2", "1", "3"], "dog": ["3", "5", "4", "2", "1"]}),
            (1, 2, {"cat": ["3", "2"], "dog": ["1", "4"]}),  # dog leaves 3 and 2 to cat
        ],
    )
    def test_by_hand(self, seed, k, expected):
        assert draw_shots(IMAGES_OF, k, seed) == expected

    def test_rarest_class_comes_first(self):
        images_of = {"common": ["1", "2", "3"], "rare": ["1"]}
        for seed in range(20):
            drawn = draw_shots(images_of, 2, seed)
            assert drawn["rare"] == ["1"]
            assert sorted(drawn["common"]) == ["2", "3"]

    def test_tie_goes_by_name(self):
        both = {"b": ["1", "2"], "a": ["1", "2"]}
        last = sorted("12", key=lambda image: hashlib.sha256(f"0/a/{image}".encode()).digest())
        assert draw_shots(both, 1, 0) == {"a": last[:1], "b": last[1:]}

    def test_no_class_starves_while_it_has_images(self):
        """All images of one class also show commoner ones."""
        images_of = {"rare": list("12"), "x": list("123"), "y": list("1234"), "z": list("12345")}
        for seed in range(20):
            drawn = draw_shots(images_of, 2, seed)
            assert all(len(set(images)) == 2 for images in drawn.values())

    def test_order_of_classes_and_images_does_not_matter(self):
        turned = {label: IMAGES_OF[label][::-1] for label in ("cat", "dog")}
        for seed in range(20):
            assert draw_shots(turned, 3, seed) == draw_shots(IMAGES_OF, 3, seed)

    def test_nested_and_disjoint_on_many_images(self):
        rng = random.Random(0)
        classes = "abcdefg"
        images_of = {label: rng.sample([str(i) for i in range(300)], 100) for label in classes}
        ten, five = draw_shots(images_of, 10, 3), draw_shots(images_of, 5, 3)
        assert {label: images[:5] for label, images in ten.items()} == five
        everything = [image for images in ten.values() for image in images]
        assert len(everything) == len(set(everything)) == 70
        for label in classes:
            assert len(ten[label]) == 10
            assert set(ten[label]) <= set(images_of[label])
        assert draw_shots(images_of, 10, 4) != ten


class TestVoc:
    def test_lists_and_record(self, tmp_path, capsys):
        """Each class has one image of its own and they share one: 2 shots take all that counts."""
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
        """Box (10, 10, 40, 50) is 11..40 x 11..50 in the XML; mmdet takes a pixel less."""
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
        """File, record and warning agree about them; mmdet's numbers are those of the file."""
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


class TestCoco:
    def test_subset_keeps_all_boxes_and_all_categories(self, tmp_path):
        """Cat has one image, which also shows a dog and a crowd; zebra has none."""
        crowd = {"name": "zebra", "iscrowd": 1, "segmentation": {"counts": [1], "size": [96, 128]}}
        images = {40: ["dog"], 7: ["cat", "dog", crowd], 9: ["dog"]}
        path = write_coco(tmp_path / "instances_x.json", images, ("zebra", "dog", "cat"))
        (folder,) = make_few_shot_subsets(tmp_path, [1], seeds=[5], coco=path)
        assert folder == tmp_path / "coco_1shot_seed5"
        whole, subset = read(path), read(folder / "annotations.json")
        drawn = image_ids(folder)
        assert 7 in drawn
        assert len(drawn) == 2
        assert {key: subset[key] for key in ("info", "licenses", "categories")} == {
            key: whole[key] for key in ("info", "licenses", "categories")
        }
        assert subset["annotations"] == [a for a in whole["annotations"] if a["image_id"] in drawn]
        assert [a["iscrowd"] for a in subset["annotations"] if a["image_id"] == 7] == [0, 0, 1]
        record = read(folder / "record.json")
        assert record["classes"] == {
            "zebra": {"available": 0, "drawn_for": 0, "images": 0, "boxes": 0},
            "dog": {"available": 3, "drawn_for": 1, "images": 2, "boxes": 2},
            "cat": {"available": 1, "drawn_for": 1, "images": 1, "boxes": 1},
        }
        assert (record["short"], record["split"]) == ({"zebra": 0}, None)

    def test_draw_does_not_depend_on_the_order_of_the_file(self, tmp_path):
        content = coco_content({i: ["cat"] if i % 3 else ["dog", "cat"] for i in range(1, 40)})
        one, two = tmp_path / "one.json", tmp_path / "two.json"
        one.write_text(json.dumps(content))
        for key in ("images", "annotations", "categories"):
            content[key].reverse()
        two.write_text(json.dumps(content))
        (first,) = make_few_shot_subsets(tmp_path, [4], coco=one)
        (second,) = make_few_shot_subsets(tmp_path, [4], coco=two)
        assert (first.name, second.name) == ("one_4shot_seed0", "two_4shot_seed0")
        assert len(image_ids(first)) == 8
        assert image_ids(first) == image_ids(second)

    @pytest.mark.parametrize(
        "unusable",
        [
            {"iscrowd": 1},
            {"ignore": 1},
            {"bbox": [10, 10, 0.9, 40]},
            {"bbox": [10, 10, 30, 0.5]},
            {"bbox": [130, 10, 30, 40]},  # right of the image, which is 128 wide
            {"area": 0},
        ],
        ids=str,
    )
    def test_what_mmdet_does_not_train_on_does_not_count(self, tmp_path, unusable):
        path = write_coco(tmp_path / "a.json", {1: [{"name": "cat", **unusable}], 2: ["cat"]})
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=path)
        assert image_ids(folder) == {2}
        dataset = read_with_mmdet(path, tmp_path)
        trained = [
            item["ignore_flag"] == 0
            for index in range(2)
            for item in dataset.get_data_info(index)["instances"]
        ]
        assert trained.count(True) == 1

    def test_smallest_usable_box_counts(self, tmp_path):
        path = write_coco(tmp_path / "a.json", {1: [{"name": "cat", "bbox": [0, 0, 1, 1]}]})
        (folder,) = make_few_shot_subsets(tmp_path, [1], coco=path)
        assert image_ids(folder) == {1}

    def test_mmdet_reads_the_file(self, tmp_path):
        path = make_coco(tmp_path, images=20)
        (folder,) = make_few_shot_subsets(tmp_path / "out", [3], coco=path)
        dataset = read_with_mmdet(folder / "annotations.json", tmp_path, ("blue", "green", "red"))
        loaded = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert len(loaded) == 9
        assert all(Path(info["img_path"]).is_file() for info in loaded)
        labels = [item["bbox_label"] for info in loaded for item in info["instances"]]
        counted = read(folder / "record.json")["classes"]
        assert [labels.count(i) for i in range(3)] == [
            counts["boxes"] for counts in counted.values()
        ]


def read_with_mmdet(path, root, classes=("cat", "dog")):
    return CocoDataset(
        ann_file=str(path),
        data_prefix={"img": f"{root}/images/"},
        metainfo={"classes": classes},
        pipeline=[],
    )


@pytest.fixture
def pets(tmp_path):
    """A COCO file: 12 images with a cat, 15 with a dog, 3 of them with both."""
    images = {i: ["cat"] for i in range(1, 10)}
    images |= {i: ["cat", "dog"] for i in range(10, 13)}
    images |= {i: ["dog"] for i in range(13, 25)}
    return write_coco(tmp_path / "pets.json", images)


class TestSeries:
    def test_nested_seeds_differ_and_counts_are_exact(self, tmp_path, pets):
        folders = make_few_shot_subsets(tmp_path / "out", [5, 2], [0, 1], coco=pets)
        assert [folder.name for folder in folders] == [
            f"pets_{k}shot_seed{seed}" for seed in (0, 1) for k in (2, 5)
        ]
        two, five, other_two, other_five = (image_ids(folder) for folder in folders)
        assert (len(two), len(five), len(other_two), len(other_five)) == (4, 10, 4, 10)
        assert two < five
        assert other_two < other_five
        assert five != other_five

    def test_runs_are_byte_identical(self, tmp_path, pets):
        """Also where one of them draws for other k and seeds besides."""
        (one,) = make_few_shot_subsets(tmp_path / "one", [3], [7], coco=pets)
        two = make_few_shot_subsets(tmp_path / "two", [3, 6], [2, 7], coco=pets)[2]
        assert one.name == two.name
        for name in ("annotations.json", "record.json"):
            assert (one / name).read_bytes() == (two / name).read_bytes()

    def test_disjoint(self, tmp_path, pets, capsys):
        folders = make_few_shot_subsets(
            tmp_path / "out", [2, 5], [0, 1, 2], coco=pets, disjoint=True
        )
        subsets = {folder.name: image_ids(folder) for folder in folders}
        largest = [subsets[f"pets_5shot_seed{seed}"] for seed in (0, 1, 2)]
        assert len(set.union(*largest)) == sum(map(len, largest))
        assert subsets["pets_2shot_seed1"] < largest[1]
        records = [read(folder / "record.json") for folder in folders]
        assert [record["disjoint_from"] for record in records] == [[]] * 2 + [[0]] * 2 + [
            [0, 1]
        ] * 2
        assert [record["disjoint_k"] for record in records] == [0, 0, 5, 5, 5, 5]
        # 24 images: 10, 10, and what is left comes short, which is said.
        assert [len(images) for images in largest] == [10, 10, 4]
        assert sum(records[5]["short"].values()) <= 4
        assert "pets_5shot_seed2: " in capsys.readouterr().out
        (alone,) = make_few_shot_subsets(tmp_path / "alone", [5], [0], coco=pets)
        assert image_ids(alone) == largest[0]

    def test_seeds_overlap_without_disjoint(self, tmp_path, pets):
        one, two = make_few_shot_subsets(tmp_path / "out", [9], [0, 1], coco=pets)
        assert image_ids(one) & image_ids(two)  # 18 of 24, twice

    def test_short_classes_are_named_once(self, tmp_path, capsys):
        images = {1: ["cat", "dog"], 2: ["dog"], 3: ["dog"], 4: ["dog"]}
        path = write_coco(tmp_path / "a.json", images)
        (folder,) = make_few_shot_subsets(tmp_path, [3], coco=path)
        assert read(folder / "record.json")["short"] == {"cat": 1}
        out = capsys.readouterr().out
        assert out.count("WARNING") == 1
        assert "1 of 2 classes got fewer than 3 images" in out
        assert out.rstrip().endswith("cat 1 of 1")

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("ids.txt", "3\n\n5\n"),
            ("names.txt", "000003.jpg\n/data/images/000005.jpg\n"),
            ("val.json", json.dumps(coco_content({3: [], 5: []}))),
            ("VAL.JSON", "\ufeff\n" + json.dumps(coco_content({3: [], 5: []}))),
            ("bom.txt", "\ufeff3\n5\n"),
            ("list.json", "3\n5\n"),
        ],
    )
    def test_excluded_images_are_never_drawn(self, tmp_path, pets, capsys, file, text):
        (tmp_path / file).write_text(text, encoding="utf-8")
        (folder,) = make_few_shot_subsets(tmp_path, [30], coco=pets, exclude=[str(tmp_path / file)])
        assert image_ids(folder) == set(range(1, 25)) - {3, 5}
        assert read(folder / "record.json")["excluded"]["in_exclude_files"] == 2
        assert "none of the" not in capsys.readouterr().out

    def test_exclude_file_without_effect_is_mentioned(self, tmp_path, pets, capsys):
        (tmp_path / "others.txt").write_text("000099.jpg\n")
        make_few_shot_subsets(tmp_path, [1], coco=pets, exclude=[tmp_path / "others.txt"])
        out = capsys.readouterr().out
        assert "others.txt: none of the 1 images that it names, such as 000099.jpg" in out

    def test_voc_ids_are_excluded(self, tmp_path):
        root = write_voc(tmp_path / "VOC2007", {str(i): ["cat"] for i in range(4)})
        (tmp_path / "val.txt").write_text("1\n")
        coco = coco_content({})
        coco["images"] = [{"file_name": "VOC2007/JPEGImages/2.jpg"}]
        (tmp_path / "val.json").write_text(json.dumps(coco))
        exclude = [tmp_path / "val.txt", tmp_path / "val.json"]
        (folder,) = make_few_shot_subsets(tmp_path, [4], voc=[root], exclude=exclude)
        assert (folder / "VOC2007.txt").read_text() == "0\n3\n"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/01.jpg", {"10"}),
        ("01", {"10", "11"}),
        ("x/a/01.png", {"10"}),
        ("c/01.jpg", set()),
        ("a\\01.jpg", {"10"}),
        ("12", {"12"}),
        ("img.v2", {"12"}),
        ("img", set()),
        ("1.jpg", set()),
    ],
)
def test_images_are_found_by_the_end_of_their_path(name, found):
    paths = {"10": "a/01.jpg", "11": "b/01.jpg", "12": "img.v2.jpg"}
    assert images_named(paths, [name]) == found


class TestWriting:
    def test_same_draw_is_kept(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        moved = pets.rename(tmp_path / "moved.json")
        assert make_few_shot_subsets(tmp_path, [2], coco=moved, name="pets") == [folder]
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_other_draw_is_refused(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        (tmp_path / "no.txt").write_text("3\n")
        with pytest.raises(
            FileExistsError,
            match=r"pets_2shot_seed0 holds another draw: .*in_exclude_files has 0, this draw 1\. "
            r"Nothing was written. Take another name",
        ):
            make_few_shot_subsets(tmp_path, [2], coco=pets, exclude=[tmp_path / "no.txt"])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_nothing_is_written_where_a_later_folder_holds_another_draw(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path / "out", [5], coco=pets)
        (folder / "annotations.json").write_text("{}")
        with pytest.raises(FileExistsError, match=r"5shot_seed0 holds another draw.*Nothing was"):
            make_few_shot_subsets(tmp_path / "out", [2, 5, 9], coco=pets)
        assert list((tmp_path / "out").iterdir()) == [folder]

    def test_changed_file_is_noticed(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        (folder / "annotations.json").write_text("{}")
        with pytest.raises(FileExistsError, match=r"annotations\.json has other images"):
            make_few_shot_subsets(tmp_path, [2], coco=pets)

    @pytest.mark.parametrize(
        ("record", "message"),
        [("not json", "cannot read what is there"), ("[]", r"record\.json has \[\], this draw")],
    )
    def test_record_that_is_none_is_refused(self, tmp_path, pets, record, message):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        (folder / "record.json").write_text(record)
        with pytest.raises(FileExistsError, match=message):
            make_few_shot_subsets(tmp_path, [2], coco=pets)

    @pytest.mark.parametrize(
        "missing", [["record.json"], ["record.json", "VOC2007.txt"], ["annotations.json"]]
    )
    def test_unfinished_folder_is_finished(self, tmp_path, missing):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["dog"]})
        (folder,) = make_few_shot_subsets(tmp_path, [2], voc=[root])
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for name in missing:
            (folder / name).unlink()
        make_few_shot_subsets(tmp_path, [2], voc=[root])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_file_of_another_is_not_written_over(self, tmp_path, pets):
        """A folder of the same name, made by hand: without a record."""
        foreign = tmp_path / "pets_2shot_seed0" / "annotations.json"
        foreign.parent.mkdir()
        foreign.write_text("{}")
        with pytest.raises(FileExistsError, match=r"annotations\.json has other images or boxes"):
            make_few_shot_subsets(tmp_path, [2], coco=pets)
        assert foreign.read_text() == "{}"
        assert list(foreign.parent.iterdir()) == [foreign]

    def test_record_is_written_last(self, tmp_path, pets, monkeypatch):
        names = []
        replace = Path.replace

        def watched(self, target):
            names.append(Path(target).name)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", watched)
        make_few_shot_subsets(tmp_path, [2], coco=pets)
        assert names == ["annotations.json", "record.json"]


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


class TestTool:
    def test_writes_and_prints_the_folders(self, tmp_path, run_here):
        first = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["fox"], "4": ["fox"]})
        second = write_voc(tmp_path / "VOC2012", {"3": ["cat"], "5": ["cat"]})
        (tmp_path / "no.txt").write_text("4\n")
        out = tmp_path / "out"
        done = run_here(
            *("few_shot", "--voc", first, second, "--shots", 1, 2, "--seeds", 0, 1, "--out", out),
            *("--name", "mine", "--split", "trainval", "--disjoint"),
            *("--exclude", tmp_path / "no.txt"),
        )
        assert done.returncode == 0, done.stderr
        names = [f"mine_{k}shot_seed{seed}" for seed in (0, 1) for k in (1, 2)]
        printed = [line for line in done.stdout.splitlines() if line.startswith(str(out))]
        assert printed == [str(out / name) for name in names]
        assert sorted(path.name for path in out.iterdir()) == sorted(names)
        record = read(out / "mine_2shot_seed1" / "record.json")
        assert record["disjoint_from"] == [0]
        assert record["short"] == {"cat": 1, "fox": 0}
        assert record["excluded"]["in_exclude_files"] == 1
        assert "mim train" not in done.stdout  # such a set needs a config of its own

    def test_prints_how_to_train_on_sets_of_the_paper(self, tmp_path, run_here):
        first = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["fox"]})
        second = write_voc(tmp_path / "VOC2012", {"3": ["cat"]})
        out = tmp_path / "out"
        done = run_here("few_shot", "--voc", first, second, "--shots", 1, "--out", out)
        assert done.returncode == 0, done.stderr
        folder = out / "voc0712_1shot_seed0"
        printed = [line for line in done.stdout.splitlines() if line.startswith((str(out), "mim"))]
        assert printed[0] == str(folder)
        assert printed[1].startswith("mim train mmdet ")
        assert f"train_dataloader.dataset.ann_file={folder}/annotations.json" in printed[1]
        assert len(printed) == 2

    def test_error_is_one_line(self, tmp_path, run_here):
        done = run_here(
            "few_shot", "--coco", tmp_path / "none.json", "--shots", 1, "--out", tmp_path / "out"
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {tmp_path / 'none.json'}: cannot be read")
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
