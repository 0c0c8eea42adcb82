"""Data at other places, and k-shot sets of any name: what is drawn, converted and listed."""

import json
import shlex
from pathlib import Path

import pytest

from dap.experiments import ConfigTree, Plan, find_experiment, k_shot_command
from dap.jobs import training_options
from dap.jobs.running import run_job
from dap.jobs.state import missing_inputs
from dap.testing import make_voc
from tests.support import forked
from tests.support.workplace import VOC_CLASSES, make_tiny_det

TREE = ConfigTree()
VOC = "faster-rcnn_r50-cls-in1k_fpn_voc-kshot"
COCO = "faster-rcnn_r50-cls-in1k_fpn_coco-kshot"
VOC_5, COCO_5 = VOC.replace("kshot", "5shot"), COCO.replace("kshot", "5shot")  # their runs
DET = "faster-rcnn_r50_fpn_5e_in200-det"
PREDICT = "predict_faster-rcnn_r50_fpn_voc12"
PSEUDO = "faster-rcnn_r50-cls-in1k_fpn_2e_voc07-pseudo12"


def planned(tmp_path, name, text, table, only, seeds=(None,)):
    """The jobs of a row with one's own config in place of the shipped one of its name."""
    path = tmp_path / "configs" / TREE.folder(name) / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\n{text}")
    plan = Plan(ConfigTree(tmp_path / "configs"), root=str(tmp_path / "runs"))
    plan.add(find_experiment(table).select(only), seeds)
    return plan.jobs


def test_draw_from_voc_at_another_place(tmp_path):
    text = """
train_dataloader = dict(dataset=dict(
    ann_file='/disk/sets/voc0712_5shot_seed0/annotations.json', data_prefix=dict(img='/disk/voc/')))
"""
    jobs = planned(tmp_path, VOC, text, "figure4", ("5shot", "cls-in1k"), (None, 7))
    for seed in (0, 7):
        job = jobs[f"/disk/sets/voc0712_5shot_seed{seed}"]
        assert job.makes == f"/disk/sets/voc0712_5shot_seed{seed}/annotations.json"
        assert job.command[2:5] == ("--voc", "/disk/voc/VOC2007", "/disk/voc/VOC2012")
        assert job.command[-2:] == ("--out", "/disk/sets")
        assert job.inputs == ("/disk/voc/VOC2007", "/disk/voc/VOC2012")
    trained = jobs[f"{VOC_5}_seed7"].config.train_dataloader.dataset
    assert trained.ann_file == "/disk/sets/voc0712_5shot_seed7/annotations.json"
    assert "/disk/sets/voc0712_5shot_seed7/annotations.json" in jobs[f"{VOC_5}_seed7"].reads


def test_draw_from_coco_below_a_data_root(tmp_path):
    """``ann_file`` is relative to ``data_root``, as mmdet reads it."""
    text = """
train_dataloader = dict(dataset=dict(
    data_root='/disk/coco/', ann_file='drawn/coco_5shot_seed0/annotations.json',
    data_prefix=dict(img='train2017/')))
"""
    jobs = planned(tmp_path, COCO, text, "figure3", ("5shot", "cls-in1k"), (3,))
    job = jobs["/disk/coco/drawn/coco_5shot_seed3"]
    assert job.inputs == ("/disk/coco/annotations/instances_train2017.json",)
    trained = jobs[f"{COCO_5}_seed3"]
    dataset = trained.config.train_dataloader.dataset
    assert dataset.ann_file == "drawn/coco_5shot_seed3/annotations.json"
    assert job.makes in trained.reads


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("dict(coco='/disk/cells.json')", ("--coco", "/disk/cells.json")),
        ("dict(voc=['/disk/cells'])", ("--voc", "/disk/cells")),
    ],
)
def test_a_set_of_any_name_is_drawn_from_what_its_config_says(tmp_path, source, arguments):
    text = f"""
few_shot_source = {source}
train_dataloader = dict(dataset=dict(ann_file='sets/my-cells.v2_5shot_seed0/annotations.json'))
"""
    jobs = planned(tmp_path, VOC, text, "figure4", ("5shot", "cls-in1k"), (1,))
    job = jobs["sets/my-cells.v2_5shot_seed1"]
    assert job.command[2:4] == arguments
    assert job.command[job.command.index("--name") + 1] == "my-cells.v2"
    assert job.inputs == arguments[1:]


def test_a_set_of_any_name_without_a_source_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        "train_dataloader = dict(dataset=dict(ann_file='sets/cells_5shot_seed0/annotations.json'))"
    )
    jobs = planned(tmp_path, VOC, text, "figure4", ("5shot", "cls-in1k"), (1,))
    assert not [name for name in jobs if name.startswith("sets")]
    made = Path("sets/cells_5shot_seed1/annotations.json")
    assert str(made) in missing_inputs(list(jobs.values()))
    made.parent.mkdir(parents=True)
    made.touch()
    assert str(made) not in missing_inputs(list(jobs.values()))


def test_a_split_that_others_publish_is_read_as_it_is(tmp_path):
    text = "train_dataloader = dict(dataset=dict(ann_file='splits/voc_5shot.json'))"
    jobs = planned(tmp_path, VOC, text, "figure4", ("5shot", "cls-in1k"), (1,))
    assert "splits/voc_5shot.json" in jobs[f"{VOC_5}_seed1"].inputs


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("splits/voc_5shot.json", "splits/voc_20shot.json"),
        ("5shot/voc_5-shot/list.json", "5shot/voc_20-shot/list.json"),
        ("/disk/sets/voc0712_10shot_seed0/a.json", "/disk/sets/voc0712_20shot_seed4/a.json"),
    ],
)
def test_file_of_another_number_of_images(tmp_path, file, expected):
    text = f"train_dataloader = dict(dataset=dict(ann_file={file!r}))"
    jobs = planned(tmp_path, VOC, text, "figure4", ("20shot", "cls-in1k"), (4,))
    job = jobs[f"{VOC.replace('kshot', '20shot')}_seed4"]
    assert job.config.train_dataloader.dataset.ann_file == expected
    assert expected in job.inputs


def test_file_that_does_not_say_its_number_of_images(tmp_path):
    text = "train_dataloader = dict(dataset=dict(ann_file='splits/mine.json'))"
    with pytest.raises(ValueError, match="the file for 20 images per class is not known"):
        planned(tmp_path, VOC, text, "figure4", ("20shot", "cls-in1k"))


def test_length_of_ones_own(tmp_path):
    """That of the config for its own number of images, that of the table for all others."""
    text = """
train_cfg = dict(max_iters=7)
k_shot_schedules = {'10shot': dict(_delete_=True, max_iters=9, milestones=[8])}
"""
    for shots, length in (("5shot", 7), ("10shot", 9), ("20shot", 1000)):
        jobs = planned(tmp_path, VOC, text, "figure4", (shots, "cls-in1k"))
        (train,) = (job for job in jobs.values() if job.kind == "train")
        assert train.config.train_cfg.max_iters == length
        assert train.makes.endswith(f"/{VOC.replace('kshot', shots)}/iter_{length}.pth")


def test_number_of_images_without_a_schedule(tmp_path):
    text = "k_shot_schedules = dict(_delete_=True)"
    with pytest.raises(
        ValueError, match="expected an entry '10shot' in k_shot_schedules, found no"
    ):
        planned(tmp_path, VOC, text, "figure4", ("10shot", "cls-in1k"))


@pytest.mark.parametrize(
    ("folder", "row", "table"),
    [
        ("data/few_shot/voc0712_10shot_seed2", "10shot", "figure4"),
        ("data/few_shot/coco_5shot_seed2", "5shot", "figure3"),
        ("data/few_shot/coco_100shot_seed2", "100shot", "figure3"),
    ],
)
def test_printed_command_trains_as_reproduce_does(folder, row, table):
    plan = Plan(TREE)
    plan.add(find_experiment(table).select((row, "dap-in1k")), (2,))
    job = next(job for job in plan.jobs.values() if row in job.name and job.kind == "train")
    words = shlex.split(k_shot_command(Path(folder), TREE))
    assert words[:3] == ["mim", "train", "mmdet"]
    config = TREE.load(Path(words[3]).stem, training_options(words[7:]))
    assert words[4:7] == ["--work-dir", str(Path(job.makes).parent), "--cfg-options"]
    expected = job.config.to_dict()
    assert expected.pop("total_batch") == 16
    assert config.to_dict() == expected


def test_command_for_sets_that_the_table_lacks():
    words = shlex.split(k_shot_command(Path("/disk/voc0712_3shot_seed0"), TREE))
    file = "train_dataloader.dataset.ann_file=/disk/voc0712_3shot_seed0/annotations.json"
    assert words[7:] == [file, "train_dataloader.batch_size=16", "randomness.seed=0"]
    assert k_shot_command(Path("data/few_shot/mine_5shot_seed0"), TREE) is None


def test_source_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"few_shot_source: expected dict\(voc="):
        planned(tmp_path, VOC, "few_shot_source = dict(x=1)", "figure4", ("5shot", "cls-in1k"))


def test_detection_set_of_ilsvrc_at_another_place(tmp_path):
    text = """
train_dataloader = dict(dataset=dict(
    ann_file='/disk/made/det.json', data_prefix=dict(img='/disk/ILSVRC/Data/DET/train/')))
"""
    jobs = planned(tmp_path, DET, text, "table8", ("det-in200",))
    job = jobs["/disk/made/det.json"]
    folders = ("/disk/ILSVRC/Annotations/DET/train", "/disk/ILSVRC/Data/DET/train")
    assert job.command[2:] == (*folders, "--out", "/disk/made/det.json")
    assert jobs[DET].reads == ("/disk/made/det.json",)


@pytest.mark.parametrize(
    ("images", "arguments"),
    [
        ("/disk/voc/JPEGImages/", ("/disk/voc", "--split", "trainval")),
        ("/disk/photographs", ("/disk/photographs",)),
    ],
)
def test_self_training_on_images_at_another_place(tmp_path, images, arguments):
    text = f"test_dataloader = dict(dataset=dict(data_prefix=dict(img={images!r})))"
    jobs = planned(tmp_path, PREDICT, text, "table9", ("cls-in1k", "self-training"))
    made = f"{tmp_path}/runs/unlabelled_voc12/images.json"
    assert jobs["unlabelled_voc12"].command[2:] == (*arguments, "--out", made)
    assert jobs["predictions_r50-cls-in1k_voc12"].config.test_evaluator.ann_file == made


def test_self_training_on_a_list_of_ones_own(tmp_path):
    text = "test_dataloader = dict(dataset=dict(data_root='/disk', ann_file='images.json'))"
    jobs = planned(tmp_path, PREDICT, text, "table9", ("cls-in1k", "self-training"))
    assert "unlabelled_voc12" not in jobs
    predicted = jobs["predictions_r50-cls-in1k_voc12"]
    assert predicted.inputs[0] == predicted.config.test_evaluator.ann_file == "/disk/images.json"
    assert jobs["pseudo-labels_r50-cls-in1k_voc12"].command[2] == "/disk/images.json"


def test_self_training_with_other_classes_needs_a_list_of_ones_own(tmp_path):
    text = "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('cat', 'dog'))))"
    with pytest.raises(ValueError, match=r"found \('cat', 'dog'\)\. Make the list with"):
        planned(tmp_path, PREDICT, text, "table9", ("cls-in1k", "self-training"))


def test_commands_run_on_data_at_another_place(tmp_path, monkeypatch):
    """The draw, the list and the conversion by the real tools."""
    monkeypatch.chdir(TREE.path(VOC).parents[3])  # where the tools are
    disk = tmp_path / "disk"
    make_voc(disk / "VOC2007", {"trainval": 4, "test": 3}, VOC_CLASSES)
    make_voc(disk / "VOC2012", {"trainval": 4}, VOC_CLASSES, seed=1)
    make_tiny_det(disk / "ILSVRC")
    drawn = f"""
train_dataloader = dict(dataset=dict(
    ann_file='{disk}/sets/voc0712_5shot_seed0/annotations.json', data_prefix=dict(img='{disk}/')))
"""
    jobs = planned(tmp_path, VOC, drawn, "figure4", ("5shot", "cls-in1k"))
    images = (
        f"test_dataloader = dict(dataset=dict(data_prefix=dict(img='{disk}/VOC2012/JPEGImages')))"
    )
    jobs |= planned(tmp_path, PREDICT, images, "table9", ("cls-in1k", "self-training"))
    det = f"""
train_dataloader = dict(dataset=dict(
    ann_file='{disk}/det.json', data_prefix=dict(img='{disk}/ILSVRC/Data/DET/train/')))
"""
    jobs |= planned(tmp_path, DET, det, "table8", ("det-in200",))
    counts = {}
    for name in (f"{disk}/sets/voc0712_5shot_seed0", "unlabelled_voc12", f"{disk}/det.json"):
        with forked.jobs():
            run_job(jobs[name], tmp_path / "runs")
        counts[Path(name).name] = len(json.loads(Path(jobs[name].makes).read_text())["images"])
    assert counts == {"voc0712_5shot_seed0": 8, "unlabelled_voc12": 4, "det.json": 9}
