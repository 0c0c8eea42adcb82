"""Few-shot subsets: draws worked out by hand, several seeds, images that are left out."""

import hashlib
import json
import random

import pytest

from dap.few_shot import draw_shots, make_few_shot_subsets
from dap.few_shot.source import images_named
from tests.support.few_shot import coco_content, image_ids, read, write_coco, write_voc

IMAGES_OF = {"dog": ["1", "2", "3", "4", "5"], "cat": ["1", "2", "3", "4"]}


class TestDraw:
    # First digits of sha256 of "0/cat/1" and so on:
    #   seed 0  cat  4: 01  2: 2c  1: 9a  3: d1         dog  3: 80  5: 92  4: 9e  2: e6  1: f2
    #   seed 1  cat  3: 4a  2: 6b  4: 88  1: d8         dog  1: 0d  3: 58  2: 6a  4: cf  5: d1

    @pytest.mark.parametrize(
        ("seed", "k", "expected"),
        [
            (0, 1, {"cat": ["4"], "dog": ["3"]}),
            (0, 2, {"cat": ["4", "2"], "dog": ["3", "5"]}),
            # Every image is drawn for one of them, so dog shares its next one, 4, with cat.
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

    def test_every_class_gets_its_images_where_it_has_them(self):
        """All images of the rarest class also show more frequent ones."""
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
        """A subset does not depend on which other k and seeds are drawn in the same call."""
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
        # Of 24 images 10 and 10 are drawn; the third seed gets fewer, and a warning says so.
        assert [len(images) for images in largest] == [10, 10, 4]
        assert sum(records[5]["short"].values()) <= 4
        assert "pets_5shot_seed2: " in capsys.readouterr().out
        (alone,) = make_few_shot_subsets(tmp_path / "alone", [5], [0], coco=pets)
        assert image_ids(alone) == largest[0]

    def test_seeds_overlap_without_disjoint(self, tmp_path, pets):
        one, two = make_few_shot_subsets(tmp_path / "out", [9], [0, 1], coco=pets)
        assert image_ids(one) & image_ids(two)  # each draws 18 of 24

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
