"""``tools/reproduce.py`` from nothing to a table, on tiny data and one's own tree of configs."""

import contextlib
import io
import os
import runpy
import shutil
import subprocess
import sys
import time
from unittest.mock import patch

import pytest
import torch
from mmengine.runner.checkpoint import get_torchvision_models
from mmpretrain.registry import MODELS
from queues import StandIn, real_slurm

from dap.experiments import ConfigTree, Experiment, Plan, Row
from dap.experiments import reproduce as run
from dap.experiments.config_tree import _read
from dap.experiments.paper import TABLE_A1
from dap.jobs import Job
from dap.jobs.running import run_job
from dap.testing import tiny_classifier_config
from tests.support import forked
from tests.support.workplace import CONFIGS, ROOT, Workplace, kill_all

TOOL = ROOT / "tools" / "reproduce.py"
CLASSIFIER = """
model = dict(backbone=dict(depth=18, base_channels=8, stem_channels=8),
             head=dict(in_channels=64, num_classes=3, topk=(1,)))
train_dataloader = dict(dataset=dict(split='', data_prefix='train',
                                     metainfo=dict(classes=('blue', 'green', 'red'))))
pseudo_boxes = dict(short_sides=(64,))
"""
DETECTOR = """
model = dict(backbone=dict(depth=18, base_channels=8, stem_channels=8),
             neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
             rpn_head=dict(in_channels=8, feat_channels=8),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=8),
                           bbox_head=dict(in_channels=8, fc_out_channels=16)))
small = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
         dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=small))
auto_scale_lr = dict(base_batch_size=2)
"""
STEP_3 = (
    DETECTOR
    + """
model['roi_head']['bbox_head']['num_classes'] = 3
train_cfg = dict(max_iters=12)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=-1))
"""
)
STEP_4 = (
    DETECTOR
    + """
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
"""
)
FULL = STEP_4 + "train_cfg = dict(max_epochs=1)\n"
# Of two data sets, each with its pipeline.
FULL_0712 = FULL.replace(", dataset=dict(pipeline=small)", "")
FEW = STEP_4 + "train_cfg = dict(max_iters=2, val_interval=2)\n"
TREE = {
    "pseudo_boxes/boxes_resnet50_in1k.py": CLASSIFIER,
    "pseudo_boxes/boxes_resnet50_in1k_candidates.py": CLASSIFIER,
    "pretrain/faster-rcnn_r50_fpn_40k_in1k-boxes.py": STEP_3,
    "finetune/voc07/faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py": FULL,
    "finetune/voc07/faster-rcnn_r50-dap-in1k_fpn_14e_voc07.py": FULL,
    "finetune/voc0712/faster-rcnn_r50-dap-in1k_fpn_14e_voc0712.py": FULL_0712,
    "finetune/coco/faster-rcnn_r50-dap-in1k_fpn_90k_coco.py": FEW,
    "finetune/voc_kshot/faster-rcnn_r50-dap-in1k_fpn_voc-kshot.py": FEW,
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Tiny data, a tree of tiny configs, and a tiny classifier where torchvision's would be."""
    place = Workplace(tmp_path_factory.mktemp("reproduce"))
    for path, changes in TREE.items():
        own = place.folder / "configs" / path
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(f"_base_ = [{str(CONFIGS / path)!r}]\n{changes}")
    model = MODELS.build(tiny_classifier_config())
    cache = place.folder / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    names = {name: name.split(".", 1)[1] for name in model.state_dict()}
    weights = {names[name]: value for name, value in model.state_dict().items()}
    torch.save(weights, cache / os.path.basename(get_torchvision_models()["resnet50"]))
    return place


def environment(workplace):
    return {**workplace.environment(), "TORCH_HOME": str(workplace.folder / "torch")}


def reproduce(workplace, *arguments):
    """Run the tool in this process, which has all its imports: what it printed itself."""
    _read.cache_clear()
    argv = ["reproduce.py", *arguments, "--configs", "configs"]
    printed = io.StringIO()
    with (
        patch.dict(os.environ, environment(workplace)),
        patch.object(sys, "argv", argv),
        forked.jobs(),
        contextlib.chdir(workplace.folder),
        contextlib.redirect_stdout(printed),
    ):
        runpy.run_path(str(TOOL), run_name="__main__")
    return printed.getvalue()


def kill_in_the_middle_of(workplace, checkpoint, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(TOOL), *arguments, "--configs", "configs"],
        cwd=workplace.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(workplace),
    )
    deadline = time.monotonic() + 400
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill_all(process)


@pytest.fixture(scope="module")
def first(workplace):
    """The chain of a row, killed in Step 3 and called again: what was printed."""
    arguments = ("table2", "--only", "07", "dap-in1k")
    saved = workplace.folder / "work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/last_checkpoint"
    kill_in_the_middle_of(workplace, saved, *arguments)
    return reproduce(workplace, *arguments)


def test_chain_goes_on_after_a_kill(workplace, first):
    commands = [line for line in first.splitlines() if line.startswith(("python", "bash"))]
    tools = [
        line.split()[4 if " -m dap.launch " in line else 1].split("/")[-1] for line in commands
    ]
    assert tools == ["train", "extract_detector.py", "train", "test"]
    assert "--resume" in commands[0]
    assert "# boxes_resnet50_in1k is finished" in first
    # The tree's pre-training is shorter, so that its checkpoint has another name.
    init = "model.init_cfg.checkpoint=work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_12.pth"
    assert init in commands[2]
    assert list(workplace.folder.glob("work_dirs/faster-rcnn*boxes/extracted/*.pth"))


def test_table_has_both_figures(workplace, first):
    line = first.splitlines()[-1]
    assert line in (workplace.folder / "work_dirs" / "table2.md").read_text()
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == "07 dap-in1k"
    assert (cells[1], cells[3]) == ("79.93", "77.57")
    assert 0 <= float(cells[2]) <= 100
    assert 0 <= float(cells[4]) <= 100


def test_finished_steps_are_not_run_again(workplace, first):
    again = reproduce(workplace, "table2", "--only", "07", "dap-in1k")
    assert again.count(" is finished") == 5
    assert not [line for line in again.splitlines() if line.startswith(("python", "bash"))]


def in_workplace(workplace, function):
    """Call a function where the tool would run, with its own tree of configs."""
    _read.cache_clear()
    printed = io.StringIO()
    with (
        patch.dict(os.environ, environment(workplace)),
        forked.jobs(),
        contextlib.chdir(workplace.folder),
        contextlib.redirect_stdout(printed),
    ):
        function()
    return printed.getvalue()


def test_boxes_of_table_2_serve_table_a1(workplace, first):
    """Table A1 makes all boxes, of which those of Table 2 are a choice: they stay, and so does
    what was trained on them."""
    multi, tau = TABLE_A1.rows[-1], TABLE_A1.rows[0]
    rows = (
        Row(tau.name, tau.cells[:3]),
        Row(multi.name, (*multi.cells[:3], multi.cells[4])),
    )
    assert rows[1].cells[3].column == "VOC07 AP50"
    plan = Plan(ConfigTree(workplace.folder / "configs"))
    printed = in_workplace(workplace, lambda: run(Experiment("tableA1", "", rows), plan))
    commands = [line for line in printed.splitlines() if line.startswith(("python", "bash"))]
    assert [line.split()[1].split("/")[-1] for line in commands] == [
        "generate_pseudo_boxes.py",  # all boxes
        "select_boxes.py",  # of tau 0.2
    ]
    assert "# boxes_resnet50_in1k is finished" in printed
    assert "# faster-rcnn_r50-dap-in1k_fpn_14e_voc07 is finished" in printed
    assert "by hand" not in printed


@pytest.mark.slow
def test_whole_table_a1_after_table_2(workplace, first):
    output = reproduce(workplace, "tableA1")
    assert "# boxes_resnet50_in1k is finished" in output
    lines = [line for line in output.splitlines() if line.startswith("| ")][-5:]
    for line, row in zip(lines, TABLE_A1.rows, strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] == row.name
        assert all(cells[2::2]), line  # a figure of one's own in each column


def test_copied_work_directory_is_still_finished(workplace, first):
    """``cp -r`` to another name, in an order that makes results older than what they are of."""
    copied = workplace.folder / "copy"
    shutil.copytree(workplace.folder / "work_dirs", copied, copy_function=shutil.copyfile)
    for path in copied.rglob("*"):
        os.utime(path, (1e9 - len(str(path)), 1e9 - len(str(path))))
    again = reproduce(workplace, "table2", "--only", "07", "dap-in1k", "--work-dir", "copy")
    assert again.count(" is finished") == 5
    assert "by hand" not in again
    assert not [line for line in again.splitlines() if line.startswith(("python", "bash"))]
    assert again.splitlines()[-1] == first.splitlines()[-1]


def test_training_by_hand_counts_if_its_batch_is_the_papers(workplace, first):
    """The config's total batch is 2; a training with 1 image in a step is another one."""
    arguments = ("table2", "--only", "07", "dap-in1k", "--seeds", "5", "--dry-run")
    name = "faster-rcnn_r50-dap-in1k_fpn_14e_voc07_seed5"
    config = "configs/finetune/voc07/faster-rcnn_r50-dap-in1k_fpn_14e_voc07.py"
    weights = "work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_12.pth"
    options = [f"model.init_cfg.checkpoint={weights}", "randomness.seed=5"]
    workplace.train(config, name, *options, "train_dataloader.batch_size=1")
    assert "total_batch: earlier 1, now 2" in reproduce(workplace, *arguments)
    shutil.rmtree(workplace.folder / "work_dirs" / name)
    workplace.train(config, name, *options)
    (line,) = [x for x in reproduce(workplace, *arguments).splitlines() if f"{name} is" in x]
    assert line.endswith(
        "(no record of its inputs, as of one made by hand: its settings alone are compared)"
    )


@pytest.mark.slow
def test_steps_of_another_table_are_shared(workplace, first):
    output = reproduce(workplace, "figure4", "--only", "5shot", "dap-in1k", "--seeds", "3")
    assert "# faster-rcnn_r50_fpn_40k_in1k-boxes is finished" in output
    record = workplace.folder / "data" / "few_shot" / "voc0712_5shot_seed3" / "record.json"
    assert record.exists()
    assert "| 5shot dap-in1k | 40.10 | " in output


def test_other_settings_are_refused(workplace, first):
    config = workplace.folder / "configs" / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py"
    text = config.read_text()
    config.write_text(text + "optim_wrapper = dict(optimizer=dict(lr=0.5))\n")
    with pytest.raises(SystemExit, match=r"optim_wrapper\.optimizer\.lr: earlier 0\.004, now 0\.5"):
        reproduce(workplace, "table2", "--only", "07", "dap-in1k")
    config.write_text(text)


def test_missing_data_stops_before_anything_runs(workplace, first):
    hidden = workplace.folder / "data" / "hidden"
    (workplace.folder / "data" / "VOCdevkit").rename(hidden)
    with pytest.raises(SystemExit, match=r"VOC2007/ImageSets/Main/trainval\.txt"):
        reproduce(workplace, "table2", "--only", "07", "cls-in1k")
    hidden.rename(workplace.folder / "data" / "VOCdevkit")
    assert not (workplace.folder / "work_dirs/faster-rcnn_r50-cls-in1k_fpn_14e_voc07").exists()


def submit(workplace, queue, monkeypatch, *arguments):
    """Hand the steps of a table to a queue, wait for them, and report; both outputs."""
    for name, value in {**queue.variables, "CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(name, value)
    said = reproduce(workplace, *arguments, "--submit", "--partition", "gpu", "--time", "30")
    queue.wait()
    return said, reproduce(workplace, *arguments, "--report")


def has_figures(line):
    """Whether a row of Table 2 has figures of one's own in both columns."""
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    return all(cells[i] and 0 <= float(cells[i]) <= 100 for i in (2, 4))


@pytest.mark.slow
def test_steps_in_a_queue(workplace, first, tmp_path, monkeypatch):
    """What the first call has made is not queued; options reach the training on the node."""
    row = ("table2", "--only", "07", "dap-in1k", "--seeds", "9")
    options = ("--cfg-options", "default_hooks.logger.interval=1")
    said, table = submit(workplace, StandIn(tmp_path), monkeypatch, *row, *options)
    assert said.count(" is finished: ") == 3  # boxes, pre-training, extraction
    assert said.count(" is submitted: ") == 2
    name = "faster-rcnn_r50-dap-in1k_fpn_14e_voc07"
    log = (workplace.folder / "work_dirs" / "logs" / f"{name}_seed9.log").read_text()
    assert "default_hooks.logger.interval=1" in log
    assert has_figures(table.splitlines()[-1]), log[-3000:]


@pytest.mark.slow
def test_whole_chain_under_slurm_in_two_processes(workplace, tmp_path, monkeypatch):
    row = ("table2", "--only", "07", "dap-in1k", "--work-dir", "queued", "--gpus", "2")
    with real_slurm(tmp_path) as slurm:
        said, table = submit(workplace, slurm, monkeypatch, *row)
    assert said.count(" is submitted: ") == 5
    logs = sorted((workplace.folder / "queued" / "logs").iterdir())
    assert has_figures(table.splitlines()[-1]), [log.read_text()[-2000:] for log in logs]
    assert "Distributed training: True" in "".join(log.read_text() for log in logs)


def test_one_job_by_its_name(workplace, first):
    row = ("table2", "--only", "07", "dap-in1k")
    said = reproduce(workplace, *row, "--job", "boxes_resnet50_in1k")
    assert said.startswith("# boxes_resnet50_in1k is finished")
    with pytest.raises(
        SystemExit, match=r"--job: expected one of boxes_resnet50_in1k, .*'nothing'"
    ):
        reproduce(workplace, *row, "--job", "nothing")
    test = "faster-rcnn_r50-dap-in1k_fpn_14e_voc07_seed8/test"
    with pytest.raises(SystemExit, match=r"reads files that do not exist: .*epoch_1\.pth"):
        reproduce(workplace, *row, "--seeds", "8", "--job", test)


def test_failing_step_is_named(tmp_path):
    job = Job("some step", "files", ("python", "-c", "raise SystemExit(3)"), str(tmp_path / "x"))
    with pytest.raises(RuntimeError, match=r"some step: its command ended with code 3"):
        run_job(job, tmp_path)
    job = Job("some step", "files", ("python", "-c", ""), str(tmp_path / "x"))
    with pytest.raises(RuntimeError, match=r"some step: its command ended without .*x"):
        run_job(job, tmp_path)


def test_list(workplace):
    lines = reproduce(workplace, "list").splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert {"step2", "table1", "table10", "tableA2", "figure5", "section4.3"} <= set(names)
    table1 = lines[names.index("table1")]
    assert float(table1.split("|")[4].split(",")[0]) > 281.6
