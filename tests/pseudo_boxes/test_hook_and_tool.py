"""Step 2 through real runners and the command line."""

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import dap.hooks
from dap.testing import make_class_folders, tiny_classifier_config
from tests.support import forked
from tests.support.planted import config_text, planted_state
from tests.support.scripts import load_script
from tests.support.zoo import zoo_config

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "generate_pseudo_boxes.py"
STEP2 = """
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='{root}'))
pseudo_boxes = dict(short_sides=(128,), thresholds=(.3, .5), rule="paper")
"""


@pytest.fixture
def planted_run(tmp_path):
    """Config, checkpoint and images of the planted classifier."""
    root = make_class_folders(tmp_path / "images", 30)
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    config = tmp_path / "planted_config.py"
    config.write_text(config_text() + STEP2.format(root=root))
    torch.save({"state_dict": planted_state(), "meta": {}}, tmp_path / "planted.pth")
    return config, tmp_path / "planted.pth", root


@pytest.fixture
def run_tool(monkeypatch):
    """Call the tool in this process."""
    tool = load_script(TOOL)

    def run(*arguments):
        options = ["--workers", "0", "--no-normalization"]  # the planted classifier's are colours
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments), *options])
        tool.main()

    return run


def run_tool_in_two_processes(*arguments):
    """What torchrun does with the tool: two processes that know their ranks from variables."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    command = [sys.executable, TOOL, *arguments, "--launcher", "pytorch", "--no-normalization"]

    def run(rank):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        return forked.run(command, env={**os.environ, **shared, **ranks})

    with ThreadPoolExecutor() as threads:
        done = list(threads.map(run, (0, 1)))
    output = "".join(process.stdout for process in done)
    assert [process.returncode for process in done] == [0, 0], output
    return output


def test_two_processes_give_the_same_files_as_one(planted_run, tmp_path, run_tool):
    config, checkpoint, _ = planted_run
    run_tool(config, checkpoint, "--out", tmp_path / "one")
    output = run_tool_in_two_processes(config, checkpoint, "--out", tmp_path / "two")
    assert "90 images" in output
    assert output.count("verdict: ") == 1
    for name in sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")
    ):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("one", "two"))
        assert first == second, name
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert [failure["file_name"] for failure in summary["failed"]] == ["red/broken.jpg"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "annotations.json",
        "manifest.json",
        "shards",
        "summary.json",
    ]
    assert len(list((tmp_path / "two" / "shards").iterdir())) == 2


def test_tool_takes_rule_and_options(planted_run, tmp_path, run_tool):
    config, checkpoint, _ = planted_run
    options = ["--cfg-options", "pseudo_boxes.thresholds=(.4,)", "pseudo_boxes.flip=False"]
    run_tool(config, checkpoint, "--out", tmp_path / "out", "--rule", "release", *options)
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings == {"short_sides": [128], "flip": False, "thresholds": [0.4], "nms_iou": 0.8,
                        "rule": "release", "autocast": None, "map_method": None}  # fmt: skip


@pytest.mark.parametrize(
    "flags", [["--rule", "extent"], ["--cfg-options", "pseudo_boxes.rule=extent"]]
)
def test_tool_does_not_read_the_papers_thresholds_as_multiples(
    planted_run, tmp_path, run_tool, flags
):
    config, checkpoint, _ = planted_run
    run_tool(config, checkpoint, "--out", tmp_path / "out", *flags)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["rule"] == "extent"
    assert summary["settings"]["thresholds"] == [0.55, 0.8, 1.0, 1.25]
    assert summary["merged"]["boxes"] >= summary["images"]


def test_own_folders_of_some_classes_keep_their_labels(planted_run, tmp_path, run_tool):
    config, checkpoint, _ = planted_run
    own = make_class_folders(tmp_path / "own", 2, {"red": "red"})
    names = tmp_path / "names.txt"
    names.write_text("blue the first\ngreen\nred\n")
    run_tool(config, checkpoint, "--images", own, "--classes", names, "--out", tmp_path / "out")
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["blue", "green", "red"]
    assert {a["category_id"] for a in coco["annotations"]} == {3}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["top1"] == 1.0


def test_class_names_of_the_checkpoint_name_the_folders(planted_run, tmp_path, run_tool):
    config, _, _ = planted_run
    meta = {"dataset_meta": {"classes": ("blue", "green", "red")}}
    torch.save({"state_dict": planted_state(), "meta": meta}, tmp_path / "with_names.pth")
    own = make_class_folders(tmp_path / "own", 2, {"green": "green"})
    run_tool(config, tmp_path / "with_names.pth", "--images", own, "--out", tmp_path / "out")
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {a["category_id"] for a in coco["annotations"]} == {2}


def bad_inputs(tmp_path, config, checkpoint):
    """Name → (arguments, words the message must have)."""
    two = make_class_folders(tmp_path / "two", 1, {"red": "red", "blue": "blue"})
    foreign = make_class_folders(tmp_path / "foreign", 1, {"dog": "red", "red": "red"})
    flat = make_class_folders(tmp_path / "flat", 1, {"red": "red"}) / "red"
    for name in ("blue", "green", "red"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    other = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(2)}, other)
    wrong = tmp_path / "wrong.pth"
    torch.save({"head.fc.weight": torch.zeros(5, 3), "head.fc.bias": torch.zeros(5)}, wrong)
    fruit = {"apple": "red", "banana": "green", "cherry": "blue"}
    other_names = make_class_folders(tmp_path / "fruit", 1, fruit)
    named = tmp_path / "named.pth"
    meta = {"dataset_meta": {"classes": ("blue", "green", "red")}}
    torch.save({"state_dict": planted_state(), "meta": meta}, named)
    text = tmp_path / "text.pth"
    text.write_text("hello")
    names = tmp_path / "names.txt"
    names.write_text("blue\ngreen\nred\n")
    two_names = tmp_path / "two_names.txt"
    two_names.write_text("blue\nred\n")
    no_model = tmp_path / "no_model.py"
    no_model.write_text("x = 1\n")
    return {
        "missing checkpoint": ((config, tmp_path / "none.pth"), ("none.pth",)),
        "text for a checkpoint": ((config, text), ("text.pth", "expected")),
        "foreign checkpoint": ((config, other), ("other.pth", "not of the classifier", "head.fc")),
        "other class count": ((config, wrong), ("wrong.pth", "(5, 3)", "(3, 3)")),
        "config without model": ((no_model, checkpoint), ("no_model.py", "model")),
        "missing folder": ((config, checkpoint, "--images", tmp_path / "none"), ("is no folder",)),
        "two folders for three classes": (
            (config, checkpoint, "--images", two),
            ("2 class folders", "3 classes", "--classes"),
        ),
        "folder of no class": (
            (config, checkpoint, "--images", foreign, "--classes", names),
            ("dog", "no class of the classifier"),
        ),
        "folders of other classes": (
            (config, named, "--images", other_names),
            ("none has the name of a class", "apple", "--classes"),
        ),
        "missing config": ((tmp_path / "none.py", checkpoint), ("none.py",)),
        "slurm without srun": (
            (config, checkpoint, "--launcher", "slurm"),
            ("SLURM_PROCID", "tools/slurm.sh"),
        ),
        "too few names": (
            (config, checkpoint, "--images", two, "--classes", two_names),
            ("2 class folders are named", "3 classes"),
        ),
        "no class folders": ((config, checkpoint, "--images", flat), ("no class folders",)),
        "empty class folders": (
            (config, checkpoint, "--images", tmp_path / "empty"),
            ("no image in them", ".jpg"),
        ),
        "unknown setting": (
            (config, checkpoint, "--cfg-options", "pseudo_boxes.threshold=(.2,)"),
            ("unknown settings ['threshold']", "thresholds"),
        ),
        "bad threshold": (
            (config, checkpoint, "--cfg-options", "pseudo_boxes.thresholds=(2.,)"),
            ("thresholds: expected values in [0, 1)",),
        ),
    }


def test_bad_input_has_a_clear_message(planted_run, tmp_path, run_tool):
    """Each case must end with its message, and write nothing."""
    config, checkpoint, _ = planted_run
    for name, (arguments, words) in bad_inputs(tmp_path, config, checkpoint).items():
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as stopped:
            run_tool(*arguments, "--out", out)
        message = str(stopped.value)
        assert message.startswith("error: "), name
        for word in words:
            assert word in message, f"{name}: {message}"
        assert not out.exists(), name


def test_error_is_the_exit_code(planted_run, tmp_path, run_here):
    config, _, _ = planted_run
    arguments = (tmp_path / "none.pth", "--out", tmp_path / "out", "--no-normalization")
    result = run_here("generate_pseudo_boxes", config, *arguments)
    assert result.returncode == 1
    assert "none.pth" in result.stderr


def runner_config(root, work_dir, **hook):
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": 64},
        {"type": "PackInputs"},
    ]
    loader = {
        "batch_size": 3,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "dataset": {"type": "CustomDataset", "data_root": str(root), "pipeline": pipeline},
    }
    return Config(
        {
            "default_scope": "mmpretrain",
            "model": tiny_classifier_config(),
            "train_dataloader": loader,
            "train_cfg": {"by_epoch": True, "max_epochs": 1},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
            "test_dataloader": {**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
            "test_cfg": {},
            "test_evaluator": {"type": "Accuracy"},
            "custom_hooks": [{"type": "dap.PseudoBoxHook", "num_workers": 0, **hook}],
            "pseudo_boxes": {"short_sides": (64,)},
            "work_dir": str(work_dir),
            "randomness": {"seed": 1},
        }
    )


def test_hook_leaves_what_the_tool_would(tmp_path, run_tool):
    """Boxes at the end of training equal those of the tool on the checkpoint of that moment."""
    root = make_class_folders(tmp_path / "images", 3)
    config = runner_config(root, tmp_path / "work")
    runner = Runner.from_cfg(config)
    runner.train()
    hooked = tmp_path / "work" / "pseudo_boxes"
    assert json.loads((hooked / "summary.json").read_text())["images"] == 9
    config.dump(str(tmp_path / "config.py"))
    run_tool(tmp_path / "config.py", tmp_path / "work" / "epoch_1.pth", "--out", tmp_path / "tool")
    by_tool = (tmp_path / "tool" / "annotations.json").read_bytes()
    assert (hooked / "annotations.json").read_bytes() == by_tool


def zoo_runner_config(root, work_dir):
    """A config of mmpretrain's zoo with its preprocessor beside the model, trained for an epoch."""
    config = zoo_config(root)
    config.merge_from_dict(
        {
            "train_cfg": {"max_epochs": 1},
            "train_dataloader": {"batch_size": 3, "num_workers": 0, "persistent_workers": False},
            "train_dataloader.dataset.pipeline.1.scale": 64,
            "custom_hooks": [{"type": "dap.PseudoBoxHook", "num_workers": 0}],
            "work_dir": str(work_dir),
            "randomness": {"seed": 1},
        }
    )
    for name in ("val", "test"):
        for part in ("cfg", "dataloader", "evaluator"):
            config[f"{name}_{part}"] = None
    assert "data_preprocessor" not in config.model
    return config


def test_hook_and_tool_agree_on_a_config_of_the_zoo(tmp_path):
    root = make_class_folders(tmp_path / "images", 2)
    config = zoo_runner_config(root, tmp_path / "work")
    Runner.from_cfg(config).train()
    config.dump(str(tmp_path / "config.py"))
    arguments = (tmp_path / "config.py", tmp_path / "work" / "epoch_1.pth", "--workers", "0")
    done = forked.run([sys.executable, TOOL, *arguments, "--out", tmp_path / "tool"])
    assert done.returncode == 0, done.stdout
    hooked = tmp_path / "work" / "pseudo_boxes"
    names = [path.relative_to(hooked) for path in hooked.rglob("*") if path.is_file()]
    assert len(names) == 4
    for name in names:
        ours, theirs = ((folder / name).read_bytes() for folder in (hooked, tmp_path / "tool"))
        if name.suffix == ".arrow" or name.name == "annotations.json":
            assert ours == theirs, name
        else:  # they say where the weights came from
            ours, theirs = json.loads(ours), json.loads(theirs)
            assert ours.pop("checkpoint") != theirs.pop("checkpoint")
            assert ours == theirs, name


def test_hook_refuses_a_classifier_that_does_not_normalise_before_training(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    config = runner_config(root, tmp_path / "work")
    config.model.data_preprocessor = {"to_rgb": True}
    with pytest.raises(ValueError, match=r"PseudoBoxHook: its images are not normalised"):
        Runner.from_cfg(config).train()
    config.custom_hooks[0]["normalized"] = False
    Runner.from_cfg(config).train()
    assert (tmp_path / "work" / "pseudo_boxes" / "summary.json").exists()


def test_hook_after_a_test_run(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    hook = {"out_dir": str(tmp_path / "boxes"), "thresholds": (0.5,), "rule": "release"}
    Runner.from_cfg(runner_config(root, tmp_path / "work", after_test=True, **hook)).test()
    summary = json.loads((tmp_path / "boxes" / "summary.json").read_text())
    assert summary["settings"]["thresholds"] == [0.5]
    assert summary["settings"]["short_sides"] == [64]
    assert summary["settings"]["rule"] == "release"


def test_rule_of_the_hook_does_not_read_the_configs_thresholds_as_its_own(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    config = runner_config(root, tmp_path / "work", after_test=True, rule="extent")
    config["pseudo_boxes"] = {"rule": "paper", "thresholds": (0.2,), "short_sides": (64,)}
    Runner.from_cfg(config).test()
    summary = json.loads((tmp_path / "work" / "pseudo_boxes" / "summary.json").read_text())
    assert summary["settings"]["thresholds"] == [0.55, 0.8, 1.0, 1.25]


def test_a_test_run_writes_no_boxes_unasked(tmp_path):
    """Nor does it look for what boxes would need: the training set may not be at hand."""
    root = make_class_folders(tmp_path / "images", 1)
    config = runner_config(root, tmp_path / "work", out_dir=str(tmp_path / "boxes"))
    config.train_dataloader.dataset.data_root = str(tmp_path / "nowhere")
    Runner.from_cfg(config).test()
    assert not (tmp_path / "boxes").exists()


@pytest.mark.parametrize("name", ["manifest.json", "annotations.json", "summary.json"])
def test_hook_refuses_a_taken_folder_before_training(tmp_path, name):
    root = make_class_folders(tmp_path / "images", 1)
    boxes = tmp_path / "work" / "pseudo_boxes"
    boxes.mkdir(parents=True)
    (boxes / name).write_text("mine")
    with pytest.raises(ValueError, match="is from an earlier training"):
        Runner.from_cfg(runner_config(root, tmp_path / "work")).train()
    assert (boxes / name).read_text() == "mine"
    assert not list((tmp_path / "work").glob("*.pth"))


def test_hook_checks_its_settings_at_once():
    with pytest.raises(ValueError, match=r"unknown settings \['threshold'\]"):
        dap.hooks.PseudoBoxHook(threshold=(0.5,))
    with pytest.raises(ValueError, match="nms_iou"):
        dap.hooks.PseudoBoxHook(nms_iou=7)
