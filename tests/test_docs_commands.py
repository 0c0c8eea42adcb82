"""Every command of the README and the documentation can be parsed, and the short ones run."""

import argparse
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS

import dap_cli
from dap.launch import installed_tool
from dap.testing import make_class_folders, make_coco, make_voc
from tests.support.markdown_files import ROOT, blocks, commands, markdown_files
from tests.support.planted import config_text, planted_state
from tests.support.workplace import Place
from tests.test_readme_configs import save_pretrained

OTHER_PROGRAMS = {"pip", "conda", "pytest", "sphinx-build", "pre-commit", "uv", "source"}
FOLDERS = {"crack": "blue", "dent": "green", "scratch": "red"}
STEP2 = """
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='my_images'))
pseudo_boxes = dict(short_sides=(128,))
"""


class ParsedError(Exception):
    """Ends a program when it has read its arguments."""


def simple_commands():
    """Programs with their arguments, as (file, words), each once."""
    found = {}
    for file in markdown_files():
        for block in blocks(file, "bash"):
            for line in commands(block.text):
                for command in re.split(r"\s*&&\s*", line):
                    words = shlex.split(command.replace("[", "").replace("]", ""))
                    while "=" in words[0]:  # variables of the environment
                        words.pop(0)
                    if words[:2] == ["uv", "run"]:
                        words = words[2:]
                        if words[0] in ("--group", "--with"):
                            words = words[2:]
                    found.setdefault(tuple(words), file)
    return [(file.relative_to(ROOT), words) for words, file in found.items()]


def parse(script, arguments, monkeypatch):
    """Let a Python program read these arguments, and end it there."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, *_):
        if "…" in arguments:  # some are left out
            known = {option for action in parser._actions for option in action.option_strings}
            unknown = {a for a in arguments if a.startswith("--")} - known
            assert not unknown, f"{script} has no option {unknown}"
        else:
            original(parser, arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.syspath_prepend(str(Path(script).parent))
    with pytest.raises(ParsedError):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(("file", "words"), simple_commands(), ids=lambda v: str(v)[:90])
def test_command_is_one_that_works(file, words, monkeypatch, capsys):
    program, *arguments = words
    for word in words:
        if re.match(r"(configs|projects|tools)/[\w./-]*\.\w+$", word):
            assert (ROOT / word).is_file(), f"{file}: there is no {word}"
    if program in ("python", "torchrun"):
        first = next(i for i, word in enumerate(arguments) if word.endswith(".py"))
        program, arguments = arguments[first], arguments[first + 1 :]
    if program == "bash":
        program = arguments.pop(0)
    if program == "mim":
        tool, package, config, *arguments = arguments
        if tool == "test":  # mim's option is the tool's second argument
            at = arguments.index("--checkpoint")
            arguments = [arguments[at + 1], *arguments[:at], *arguments[at + 2 :]]
        arguments = [a for a in arguments if a != "OPTIONS"]
        parse(installed_tool(package, tool), [config, *arguments], monkeypatch)
    elif program == "dap":
        verb, *arguments = arguments
        assert verb in dap_cli.VERBS, f"{file}: dap has no verb {verb}"
        if tool := dap_cli.VERBS[verb][0]:
            parse(ROOT / "tools" / f"{tool}.py", arguments, monkeypatch)
    elif program.endswith(".py"):
        parse(ROOT / program, arguments, monkeypatch)
    elif program.endswith(".sh"):
        options = {a for a in arguments if a.startswith("--")}
        if program.endswith("offline_folder.sh"):
            assert all(option in (ROOT / program).read_text() for option in options)
        else:
            assert (ROOT / program).stat().st_mode & 0o100, f"{program} cannot be executed"
    else:
        assert program in OTHER_PROGRAMS, f"{file}: unknown program {program}"


def test_an_option_that_does_not_exist_is_found(monkeypatch, capsys):
    script = ROOT / "tools" / "select_boxes.py"
    with pytest.raises(SystemExit):
        parse(script, ["source", "--out", "x", "--tresholds", ".2"], monkeypatch)
    assert "--tresholds" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="--tresholds"):
        parse(script, ["…", "--tresholds", ".2"], monkeypatch)


def make_boxes_place(folder):
    """Class folders, a classifier whose maps are known, and true boxes."""
    images = make_class_folders(folder / "my_images", 4, FOLDERS)
    classifier = config_text(data_preprocessor={"mean": [110.0] * 3, "std": [60.0] * 3})
    (folder / "classifier.py").write_text(classifier + STEP2)
    torch.save({"state_dict": planted_state(), "meta": {}}, folder / "classifier.pth")
    (folder / "classes.txt").write_text("crack\ndent\nscratch\n")
    truth = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(FOLDERS)],
        "images": [],
        "annotations": [],
    }
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        image = cv2.imread(str(path))
        coloured = (image.max(axis=2) - image.min(axis=2) > 60).astype("uint8")
        name = path.relative_to(images).as_posix()
        truth["images"].append({"id": number, "file_name": name})
        truth["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": list(FOLDERS).index(path.parent.name),
                "bbox": cv2.boundingRect(coloured),
            }
        )
    (folder / "truth.json").write_text(json.dumps(truth))


def make_coco_place(folder):
    make_coco(folder).rename(folder / "boxes_of_another_tool.json")


def make_few_place(folder):
    make_coco(folder, 12).rename(folder / "train.json")
    make_voc(folder / "data" / "VOCdevkit" / "VOC2007", {"trainval": 8}, ("cat", "dog"))


def make_detector_place(folder):
    save_pretrained(folder / "pretrained.pth")


PLACES = {  # place → what it needs, and what its commands have made in the end
    "boxes": (make_boxes_place, ["boxes/inspection/index.html", "quality.json", "chosen/shards",
                                 "selected/annotations.json", "boxes_by_list/manifest.json"]),
    "coco": (make_coco_place, ["work_dirs/boxes_of_another_tool/manifest.json"]),
    "few": (make_few_place, ["data/few_shot/site_2shot_seed2/record.json", "data/few_shot_voc"]),
    "detector": (make_detector_place, ["weights"]),
}  # fmt: skip


def place_blocks():
    docs = [b for f in markdown_files() for b in blocks(f, "bash") if b.place]
    return {name: [b for b in docs if b.place == name] for name in {b.place for b in docs}}


def test_all_places_are_known():
    assert place_blocks().keys() == PLACES.keys()


@pytest.mark.parametrize("name", PLACES)
def test_commands_run(name, tmp_path, capsys):
    """All blocks of one place, in the order of the pages, on tiny data."""
    make, outputs = PLACES[name]
    make(tmp_path)
    place = Place(tmp_path)
    for block in place_blocks()[name]:
        for line in commands(block.text):
            python, script, *arguments = shlex.split(line)
            assert python == "python"
            assert script.startswith("tools/")
            if script.endswith("generate_pseudo_boxes.py"):
                arguments += ["--workers", "0"]
            place.tool(Path(script).stem, *arguments)
    for output in outputs:
        assert (tmp_path / output).exists(), output


def test_config_of_a_classifier_of_own_folders(tmp_path):
    """It reads the folders, and its network has as many classes."""
    page = ROOT / "docs" / "own_images.md"
    (text,) = (b.text for b in blocks(page, "python") if "mmpretrain::" in b.text)
    make_class_folders(tmp_path / "my_images", 2, FOLDERS)
    config_file = tmp_path / "classifier.py"
    config_file.write_text(text.replace('"my_images"', repr(str(tmp_path / "my_images"))))
    config = Config.fromfile(config_file)
    config.model.backbone.pop("init_cfg")
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        dataset = DATASETS.build(config.train_dataloader.dataset)
        model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor})
    assert list(dataset.CLASSES) == list(FOLDERS)
    assert sorted(dataset.get_gt_labels().tolist()) == [0, 0, 1, 1, 2, 2]
    assert model.head.fc.out_features == 3
    assert {key: config.train_cfg[key] for key in ("by_epoch", "max_epochs")} == {
        "by_epoch": True, "max_epochs": 30,
    }  # fmt: skip
