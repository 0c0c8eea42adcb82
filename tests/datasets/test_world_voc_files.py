"""VOC files as the world writes them: one reader for few-shot draws, conversion and listing."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dap.datasets import CheckedCocoDataset
from dap.datasets.voc_files import ImageFinder, alike_names, parse_voc
from dap.datasets.voc_xml import convert_xml_tree
from dap.few_shot import make_few_shot_subsets
from dap.testing import make_voc

OK = (
    "<annotation><filename>a.jpg</filename><size><width>100</width><height>80</height></size>"
    "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>12</ymin>"
    "<xmax>50</xmax><ymax>40</ymax></bndbox></object></annotation>"
)
CAT = [("cat", (11, 12, 50, 40), False)]


def changed(old, new, text=OK):
    assert old in text
    return text.replace(old, new)


def read(content):
    width, height, objects = parse_voc(content.encode() if isinstance(content, str) else content)
    assert (width, height) == (100, 80)
    return [tuple(item) for item in objects]


DECLARED = '<?xml version="1.0" encoding="{}"?>' + OK
SAME = {
    "as it should be": OK,
    "blanks around the name": changed(">cat<", "> cat\n<"),
    "exponent": changed(">11<", ">1.1e1<"),
    "blanks in a number": changed(">11<", "> 11 <"),
    "byte-order mark in a number": changed(">11<", ">\ufeff11<"),
    "byte-order mark": b"\xef\xbb\xbf" + OK.encode(),
    "UTF-16": OK.encode("utf-16"),
    "zero bytes at the end": OK.encode() + b"\0" * 64,
    "declared in Windows' encoding": DECLARED.format("Windows-1252").encode("cp1252"),
    "declared in an encoding of several bytes": DECLARED.format("GBK").encode("gbk"),
    "namespace": changed("<annotation>", '<annotation xmlns="http://x.org/voc">'),
    "wrapped": f"<annotations>{OK}</annotations>",
    "part before the box": changed(
        "<bndbox>", "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
    ),
    "difficult absent": changed("<difficult>0</difficult>", ""),
    "difficult empty": changed("<difficult>0</difficult>", "<difficult />"),
    "difficult unspecified": changed("<difficult>0", "<difficult>Unspecified"),
    "difficult false": changed("<difficult>0", "<difficult>False"),
}


@pytest.mark.parametrize("variant", SAME)
def test_what_means_the_same_is_read_the_same(variant):
    assert read(SAME[variant]) == CAT


@pytest.mark.parametrize("word", ["1", "true", "True", "yes", "2"])
@pytest.mark.parametrize("tag", ["difficult", "ignore"])
def test_words_that_mean_ignored(word, tag):
    text = changed("<difficult>0</difficult>", f"<{tag}>{word}</{tag}>")
    assert read(text) == [(*CAT[0][:2], True)]


def test_names_in_other_encodings():
    text = DECLARED.format("GBK").replace("cat", "猫").encode("gbk")
    assert read(text)[0][0] == "猫"
    text = DECLARED.format("Windows-1252").replace("cat", "café").encode("cp1252")
    assert read(text)[0][0] == "café"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(">11<", ">11,5<"), r"<xmin> of <object> 'cat' is '11,5'; expected a number"),
        (changed(">11<", ">nan<"), r"<xmin> of <object> 'cat' is 'nan'"),
        (changed(">40<", "><"), r"<ymax> of <object> 'cat' is ''; expected a number"),
        (changed("<xmax>50</xmax>", ""), r"<bndbox> of <object> 'cat' has no <xmax>"),
        (changed("bndbox>", "polygon>"), r"<object> 'cat' has no <bndbox>; expected one with xmin"),
        (changed(">cat<", "> <"), r"<object> has no <name>, or an empty one"),
        (changed("<name>cat</name>", ""), r"<object> has no <name>, or an empty one"),
        (changed("<width>100", "<width>0"), r"<size> is 0 x 80; expected"),
        (changed("<width>100", "<width>wide"), r"<width> of <annotation> is 'wide'"),
        (changed("<width>100</width>", ""), r"<size> of <annotation> has no <width>"),
        (changed("size>", "dims>"), r"<annotation> has no <size>; expected one with <width>"),
        (changed("<difficult>0", "<difficult>maybe"), r"<difficult> of <object> 'cat' is 'maybe'"),
        (OK + "\n</object>", r"it is no XML: .*line 2"),
        ("", r"it is no XML: no element found"),
        (changed(">cat<", ">cat & dog<"), r"it is no XML: not well-formed"),
        (changed("cat", "café").encode("cp1252"), r"0xe9 is no UTF-8.*declare it"),
        (DECLARED.format("utf-99"), r"it declares an unknown encoding: utf-99"),
        (f"<list>{OK}{OK}</list>", r"<list> has 2 <annotation>; expected one"),
        ("<html></html>", r"<html> has 0 <annotation>; expected one"),
    ],
)
def test_tag_and_value_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def write(root, texts):
    """Write {stem: XML} in VOC layout, with images of 100 x 80 px."""
    for stem, text in texts.items():
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
        Image.new("RGB", (100, 80)).save(root / "JPEGImages" / f"{stem}.jpg")
    lines = "".join(f"{stem}\n" for stem in texts)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text(lines)
    return root


def convert(root, **settings):
    folders = root / "Annotations", root / "JPEGImages"
    return convert_xml_tree(*folders, root / "voc.json", one_based=True, **settings)


@pytest.mark.parametrize("variant", sorted(set(SAME) - {"UTF-16"}))
def test_draws_and_conversion_read_alike(tmp_path, variant):
    root = write(tmp_path / "VOCx", {"a": OK, "b": OK})
    content = SAME[variant]
    path = root / "Annotations" / "b.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (folder,) = make_few_shot_subsets(tmp_path / "out", [2], voc=[root])
    drawn = json.loads((folder / "annotations.json").read_text())["annotations"]
    assert [item["bbox"] for item in drawn] == [[10, 11, 39, 28]] * 2  # as VOCDataset has it
    assert convert(root)["left_out"] == []
    whole = json.loads((root / "voc.json").read_text())["annotations"]
    assert [item["bbox"] for item in whole] == [[10, 11, 40, 29]] * 2


WRONG = {
    "turned": changed(">11<", ">60<"),  # xmin beyond xmax
    "outside": changed(">50<", ">240<", changed(">11<", ">200<")),
    "fine": OK,
}


def test_files_of_dropped_boxes_are_named(tmp_path, capsys):
    root = write(tmp_path / "VOCx", WRONG)
    done = convert(root)
    assert (done["dropped_without_area"], done["dropped_outside"]) == (1, 1)
    reasons = {item["file"]: item["reason"] for item in done["dropped"]}
    assert reasons == {
        "turned.xml": "<object> 'cat', x, y, width, height [59, 11, -9, 29], has no area",
        "outside.xml": "<object> 'cat', x, y, width, height [199, 11, 41, 29], is outside 100 x 80",
    }
    make_few_shot_subsets(tmp_path / "out", [3], voc=[root])
    shown = capsys.readouterr().out
    assert "2 of 3 boxes are left out of training" in shown
    assert "such as annotation 1 of VOCx/JPEGImages/turned.jpg (100 x 80)" in shown
    assert "such as annotation 1 of VOCx/JPEGImages/outside.jpg (100 x 80)" in shown


def test_tool_names_files_of_dropped_boxes_and_similar_classes(tmp_path, run_here):
    root = write(tmp_path / "VOCx", {**WRONG, "large": changed(">cat<", ">Cat<")})
    folders = (root / "Annotations", root / "JPEGImages")
    done = run_here("xml_to_coco", "--one-based", *folders, "--out", root / "v.json")
    assert done.returncode == 0, done.stderr
    assert "warning: boxes dropped: 2, all of them listed in the file's info:" in done.stderr
    assert "turned.xml: <object> 'cat'" in done.stderr
    assert "warning: the classes Cat, cat differ only in upper and lower case" in done.stderr


def test_size_that_looks_swapped_is_named_as_such(tmp_path, capsys):
    """A photograph of 60 x 100 px as it is shown, stated as 100 x 60."""
    text = changed(">100<", ">100<", changed(">80<", ">60<"))
    text = changed("<ymin>12<", "<ymin>71<", changed("<ymax>40<", "<ymax>95<", text))
    root = write(tmp_path / "VOCx", {"phone": text, "fine": OK})
    done = convert(root)
    assert [item["file"] for item in done["dropped"]] == ["phone.xml"]
    (swapped,) = done["swapped"]
    assert swapped["file"] == "phone.xml"
    assert (
        "<size> is 100 x 60, and the boxes fit 60 x 100 alone, as where EXIF" in swapped["reason"]
    )
    make_few_shot_subsets(tmp_path / "out", [2], voc=[root])
    shown = capsys.readouterr().out
    assert "stated size looks swapped, as where EXIF turns a photograph: 1." in shown


def test_images_of_any_kind(tmp_path, capsys):
    root = make_voc(tmp_path / "VOCx", {"trainval": 4}, ("cat", "dog"))
    suffixes = [".png", ".jpeg", ".JPG", ".jpg"]
    for path, suffix in zip(sorted((root / "JPEGImages").iterdir()), suffixes, strict=True):
        image = Image.open(path)
        image.load()
        path.unlink()
        image.save(path.with_suffix(suffix))
    (folder,) = make_few_shot_subsets(tmp_path / "out", [4], voc=[root])
    dataset = CheckedCocoDataset(
        ann_file=str(folder / "annotations.json"),
        data_prefix={"img": f"{tmp_path}/"},
        metainfo={"classes": ()},
        pipeline=[],
    )
    paths = [dataset.get_data_info(index)["img_path"] for index in range(4)]
    assert [Path(path).suffix for path in paths] == suffixes
    assert all(Path(path).is_file() for path in paths)
    assert (
        "3 of 4 images are no .jpg, such as VOCx/JPEGImages/000000.png" in capsys.readouterr().out
    )


def test_image_that_is_not_there_is_named(tmp_path, capsys):
    """A draw needs none: annotations may be at hand before the images are."""
    root = write(tmp_path / "VOCx", {"a": OK, "b": OK})
    (root / "JPEGImages" / "b.jpg").unlink()
    (folder,) = make_few_shot_subsets(tmp_path / "out", [2], voc=[root])
    assert "JPEGImages: 1 of 2 images are not there, such as b;" in capsys.readouterr().out
    names = [
        i["file_name"] for i in json.loads((folder / "annotations.json").read_text())["images"]
    ]
    assert names == ["VOCx/JPEGImages/a.jpg", "VOCx/JPEGImages/b.jpg"]


def test_two_images_of_one_stem_are_refused(tmp_path):
    root = write(tmp_path / "VOCx", {"a": OK})
    (root / "JPEGImages" / "a.png").touch()
    with pytest.raises(ValueError, match=r"expected one image .*a\.\*, found 2 \(a\.jpg, a\.png\)"):
        make_few_shot_subsets(tmp_path / "out", [1], voc=[root])


def test_class_that_differs_in_case_alone_is_named(tmp_path, capsys):
    root = write(tmp_path / "VOCx", {"a": OK, "b": changed(">cat<", ">Cat<")})
    make_few_shot_subsets(tmp_path / "out", [1], voc=[root])
    assert "the classes Cat, cat differ in upper and lower case alone" in capsys.readouterr().out


def test_alike_names():
    assert alike_names(["cat", "dog"], ["cat", "dog"]) == []
    assert alike_names(["Cat"], ["cat", "dog", "Dog"]) == ["Cat, cat"]


def test_image_finder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.b.PNG", "b/c.webp", "d.txt"):
        (tmp_path / name).touch()
    find = ImageFinder(tmp_path)
    assert (find("a.b"), find("b/c")) == ("a.b.PNG", "b/c.webp")
    with pytest.raises(ValueError, match="found none"):
        find("d")
