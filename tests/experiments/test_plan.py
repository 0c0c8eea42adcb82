"""Which commands fill a table: complete, in an order that can run, on any number of GPUs."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from dap.comparison.config_difference import shots_of
from dap.experiments import (
    EXPERIMENTS,
    ConfigTree,
    Plan,
    find_experiment,
    reproduce,
)
from dap.experiments.schedule import batch_options, iteration_options, last_checkpoint
from dap.jobs import Launcher, training_options
from dap.jobs.state import differences, missing_inputs
from tests.support.plans import STEP_3, TREE, planned

PAPER = [
    *("step1", "step2", "step3", "figure3", "figure4", "figure5", "section4.3"),
    *(f"table{n}" for n in range(1, 11)),
    *("tableA1", "tableA2", "tableA1-release", "tableA2-release"),
]


def made_elsewhere(job):
    """Files below the work directory or of a k-shot set that a command reads."""
    own = Path(job.makes.split("*")[0] if "*" in job.makes else Path(job.makes).parent)
    for argument in job.command[1:]:
        path = Path(argument.split("=", 1)[-1])
        is_made = path.parts[:1] == ("work_dirs",) or path.parts[:2] == ("data", "few_shot")
        if (
            is_made
            and path.parts[1:]
            and not path.is_relative_to(own)
            and not own.is_relative_to(path)
        ):
            yield path


def test_every_table_and_figure_has_a_name():
    assert sorted(EXPERIMENTS) == sorted(PAPER)


@pytest.mark.parametrize("seeds", [(None,), (3,)])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_a_command_reads_is_made_before(name, seeds):
    made = []
    for job in planned(name, seeds=seeds).values():
        for path in made_elsewhere(job):
            assert any(Path(other) == path or Path(other).parent == path for other in made), path
        made.append(job.makes)
    assert made


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_configs_and_tools_of_the_commands_exist(name):
    for job in planned(name, launcher=Launcher(8)).values():
        files = [part for part in job.command if re.search(r"\.(py|sh)$", part)]
        assert files
        assert all(Path(file).is_file() for file in files)


def test_chain_of_a_row():
    jobs = planned("table2", ["07", "dap-in1k"])
    assert [job.kind for job in jobs.values()] == ["boxes", "train", "extract", "train", "test"]
    pretrain, finetune = (job for job in jobs.values() if job.kind == "train")
    assert pretrain.makes == f"work_dirs/{STEP_3}/iter_40038.pth"
    assert finetune.makes == "work_dirs/faster-rcnn_r50-dap-in1k_fpn_14e_voc07/epoch_14.pth"
    assert finetune.command[:5] == ("python", "-m", "dap.launch", "mmdet", "train")


def test_maps_are_computed_once_for_all_thresholds_and_nms():
    plan = Plan(TREE)
    for name in ("tableA1", "tableA2", "tableA1-release", "tableA2-release"):
        plan.add(find_experiment(name).rows)
    tools = [Path(job.command[1]).stem for job in plan.jobs.values() if job.kind == "boxes"]
    assert tools.count("generate_pseudo_boxes") == 2  # one of each rule
    assert tools.count("select_boxes") == 20  # 4 thresholds, 4 NMS, none, the paper's main one
    assert sum(name.startswith(STEP_3) and "/" not in name for name in plan.jobs) == 10


def test_seeds_reach_finetuning_and_draws_but_not_pretraining():
    jobs = planned("figure4", ["5shot", "dap-in1k"], seeds=(0, 1))
    assert STEP_3 in jobs
    for seed in (0, 1):
        assert f"data/few_shot/voc0712_5shot_seed{seed}" in jobs
        run = jobs[f"faster-rcnn_r50-dap-in1k_fpn_voc-5shot_seed{seed}"].config
        assert run.randomness.seed == seed
        drawn = f"data/few_shot/voc0712_5shot_seed{seed}/annotations.json"
        assert run.train_dataloader.dataset.ann_file == drawn


def test_seeds_reach_labels_of_self_training():
    jobs = planned("table9", ["dap-in1k", "self-training"], seeds=(1,))
    last = jobs["faster-rcnn_r50-dap-in1k_fpn_2e_voc07-pseudo12_seed1"].config
    first = "work_dirs/faster-rcnn_r50-dap-in1k_fpn_14e_voc07_seed1/epoch_14.pth"
    labels = "work_dirs/pseudo-labels_r50-dap-in1k_voc12_seed1/annotations.json"
    assert last.load_from == first
    assert last.train_dataloader.dataset.datasets[1].ann_file == labels
    assert first in jobs["predictions_r50-dap-in1k_voc12_seed1"].command


def test_another_work_directory_moves_all_paths():
    for job in planned("table9", seeds=(1,), root="elsewhere").values():
        assert "work_dirs" not in " ".join(job.command)


def test_runs_of_other_numbers_of_images_are_told_apart():
    """Their work directories, and what is compared of their configs."""
    jobs = planned("figure4", ["cls-in1k"]) | planned("table10", ["cls-in1k"])
    trainings = [job for job in jobs.values() if job.kind == "train" and "voc-" in job.name]
    assert len(trainings) == len({job.makes for job in trainings}) == 6
    for one, other in combinations(trainings, 2):
        keys = {line.split(":")[0] for line in differences(one.config, other.config)}
        assert keys, (one.name, other.name)
        assert keys <= {
            "train_dataloader.dataset.ann_file", "train_cfg.max_iters",
            "param_scheduler.1.milestones",
        }  # fmt: skip


def test_test_records_its_number_of_images():
    """``dap compare`` reads it from the config of a test where there is no training."""
    jobs = planned("figure3", ["20shot", "cls-in1k"])
    (tested,) = (job for job in jobs.values() if job.kind == "test")
    assert shots_of(tested.config) == 20
    assert any("coco_20shot_seed0" in word for word in tested.command)


def test_iterations_of_k_shot_runs():
    jobs = planned("figure4", ["5shot", "cls-in1k"], iterations=1400)
    run = jobs["faster-rcnn_r50-cls-in1k_fpn_voc-5shot_1400it"]
    assert run.makes.endswith("iter_1400.pth")
    assert run.config.param_scheduler[1].milestones == [1000]  # 357 of 500, as 1000 of 1400
    assert run.config.param_scheduler[0].end == 100


@pytest.mark.parametrize(
    ("gpus", "batch", "expected"),
    [
        (16, None, {"total_batch": 32}),  # 2 images each, as written
        (8, None, {"total_batch": 32, "train_dataloader.batch_size": 4}),
        (1, None, {"total_batch": 32, "train_dataloader.batch_size": 32}),
        (32, None, {"total_batch": 32, "train_dataloader.batch_size": 1}),
        (16, 8, {"total_batch": 32}),  # at most 8
        # 2 images in place of 32: LR is scaled, 16 times the iterations.
        (1, 2, {"total_batch": 2, "train_cfg.max_iters": 640608, "param_scheduler.0.end": 32000,
                "train_cfg.val_interval": 80000, "default_hooks.checkpoint.interval": 80000}),
        # 7 GPUs: 4 images each, 28 in all.
        (7, None, {"total_batch": 28, "train_dataloader.batch_size": 4,
                   "train_cfg.max_iters": 45758, "param_scheduler.0.end": 2286,
                   "default_hooks.checkpoint.interval": 5714, "train_cfg.val_interval": 5714}),
    ],
)  # fmt: skip
def test_batches_of_pretraining(gpus, batch, expected):
    assert batch_options(TREE.load(STEP_3), gpus, batch) == expected


def test_batches_that_count_epochs_and_those_without_scaling():
    voc = TREE.load("faster-rcnn_r50-cls-in1k_fpn_14e_voc07")
    # 4 GPUs of 2 images: the warm-up counts iterations, the epochs stay.
    assert batch_options(voc, 4, 2) == {"total_batch": 8, "param_scheduler.0.end": 1000}
    classifier = TREE.load("cls_resnet50_8xb32_in1k")
    assert batch_options(classifier, 2, 64) == {
        "total_batch": 128, "train_dataloader.batch_size": 64, "auto_scale_lr.enable": True,
    }  # fmt: skip


def test_validations_of_a_longer_training_are_as_many():
    coco = batch_options(TREE.load("faster-rcnn_r50-cls-in1k_fpn_90k_coco"), 1, 2)
    assert coco["train_cfg.max_iters"] == 720000
    assert coco["train_cfg.val_interval"] == 40000
    assert coco["param_scheduler.1.milestones"] == [480000, 640000]


def test_no_more_processes_than_images_in_the_batch():
    jobs = planned("table8", ["det-in200"], launcher=Launcher(64, "slurm", "gpu"))
    train = jobs["faster-rcnn_r50-det-in200_fpn_14e_voc07"].command
    assert train[:4] == ("env", "GPUS=16", "GPUS_PER_NODE=8", "bash")
    assert train[4].endswith("slurm.sh")
    assert train[5:7] == ("train", "gpu")
    assert "train_dataloader.batch_size=1" in train


def test_launchers():
    one = planned("step2", ["release"])["boxes_resnet50_in1k_candidates_release"]
    assert one.command[0] == "python"
    assert one.command[-2:] == ("--cfg-options", "pseudo_boxes.rule=release")
    eight = planned("table2", ["07", "dap-in1k"], launcher=Launcher(8))
    assert eight["boxes_resnet50_in1k"].command[0] == "bash"
    assert eight["boxes_resnet50_in1k"].command[2:4] == ("boxes", "8")
    assert eight[STEP_3].command[0] == "bash"
    assert eight[STEP_3].command[2:4] == ("train", "8")
    on_slurm = planned("step2", ["r101", "in1k"], launcher=Launcher(64, "slurm", "gpu"))
    boxes = on_slurm["boxes_resnet101_in1k"].command
    assert boxes[:4] == ("env", "GPUS=64", "GPUS_PER_NODE=8", "bash")
    assert boxes[5:8] == ("boxes", "gpu", "boxes")
    slurm = planned("step1", launcher=Launcher(64, "slurm", "gpu"))["cls_resnet50_64xb128_in14m"]
    assert "PACKAGE=mmpretrain" in slurm.command
    assert "GPUS=64" in slurm.command
    with pytest.raises(ValueError, match="partition"):
        Launcher(8, "slurm")
    with pytest.raises(ValueError, match="expected 1 or more, found 0"):
        Launcher(0)


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match=r"no experiment 'table99'; there are list, step1"):
        find_experiment("table99")
    with pytest.raises(ValueError, match=r"no row with 'dap in1k'.*07 dap-in1k"):
        find_experiment("table2").select(("dap in1k",))
    with pytest.raises(ValueError, match=r"no config nothing\.py"):
        TREE.path("nothing")


def test_two_configs_of_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="same name"):
        ConfigTree(tmp_path)


def test_last_checkpoint():
    assert last_checkpoint(TREE.load("faster-rcnn_r50-cls-in1k_fpn_90k_coco")) == "iter_90000.pth"
    assert last_checkpoint(TREE.load("cls_resnet50_64xb128_in14m")) == "epoch_50.pth"
    longer = iteration_options(TREE.load("faster-rcnn_r50-cls-in1k_fpn_coco-kshot"), 300)
    assert longer == {
        "train_cfg.max_iters": 300,
        "train_cfg.val_interval": 100,
        "default_hooks.checkpoint.interval": 100,
        "param_scheduler.1.milestones": [200, 267],
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "my runs"}, "no blanks and commas, found 'my runs'"),
        ({"batch_per_gpu": 0}, "batch_per_gpu: expected 1 or more, found 0"),
        ({"iterations": -3}, "iterations: expected 1 or more, found -3"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Plan(TREE, **settings)


def test_arguments_that_do_not_fit_the_experiment():
    with pytest.raises(ValueError, match="table10 has its lengths from the paper"):
        reproduce(find_experiment("table10"), Plan(TREE, iterations=100), dry_run=True)
    with pytest.raises(ValueError, match=r"expected each once, found \[0, 0\]"):
        reproduce(find_experiment("figure4"), Plan(TREE), seeds=(0, 0), dry_run=True)


def test_seeds_change_nothing_where_nothing_is_drawn():
    assert planned("section4.3", seeds=(0, 1)).keys() == planned("section4.3").keys()


@pytest.mark.parametrize("root", ["elsewhere/", "./elsewhere", "elsewhere"])
def test_work_directory_however_it_is_written(root):
    jobs = planned("table2", ["07", "dap-in1k"], root=root)
    assert jobs[STEP_3].makes == f"elsewhere/{STEP_3}/iter_40038.pth"
    missing = missing_inputs(list(jobs.values()))
    assert not [path for path in missing if "elsewhere" in path]


def test_images_are_inputs_too():
    section = planned("section4.3")["faster-rcnn_r50_fpn_40k_in1k-val/test"]
    assert "data/imagenet/val" in section.inputs
    coco = planned("table6", ["cls-in1k"])["retinanet_r50-cls-in1k_fpn_90k_coco"]
    assert "data/coco/train2017" in coco.inputs
    assert "data/coco/annotations/instances_val2017.json" in coco.inputs


def trainings(name, only=(), **settings):
    return [job for job in planned(name, only, **settings).values() if job.kind == "train"]


def test_mixed_precision_reaches_every_training():
    jobs = trainings("table2", amp=True) + trainings("step1", amp=True)
    assert {job.config.model.type for job in jobs} == {"FasterRCNN", "ImageClassifier"}
    for job in jobs:
        assert job.config.optim_wrapper.type == "AmpOptimWrapper"
        for command in (job.command, job.resumed):
            assert "optim_wrapper.type=AmpOptimWrapper" in command
            assert "optim_wrapper.loss_scale=dynamic" in command


def test_options_and_visualizer_reach_every_training():
    given = training_options(
        ["train_dataloader.num_workers=7", "default_hooks.logger.interval=9"],
        ["TensorboardVisBackend"],
    )
    jobs = trainings("table2", training_options=given, launcher=Launcher(8))
    jobs += trainings("step1", training_options=given)
    for job in jobs:
        assert job.config.train_dataloader.num_workers == 7
        assert "train_dataloader.num_workers=7" in job.command
        assert "visualizer.vis_backends.0.type=dap.VisBackends" in job.command
        (named,) = (part for part in job.resumed if ".backends=" in part)
        read = training_options([named])["visualizer.vis_backends.0.backends"]
        assert read == ["LocalVisBackend", "TensorboardVisBackend"]
    tests = [
        job for job in planned("table2", training_options=given).values() if job.kind == "test"
    ]
    assert not any("num_workers=7" in " ".join(job.command) for job in tests)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train_dataloader.batch_size=3"], r"train_dataloader\.batch_size of .* --batch-per-gpu"),
        (["randomness.seed=3"], r"randomness\.seed of .* --seeds"),
        (["param_scheduler.7.begin=3"], "--cfg-options do not fit"),
    ],
)
def test_options_that_the_plan_decides_or_no_config_has(words, message):
    with pytest.raises(ValueError, match=message):
        planned("table2", ["07", "cls-in1k"], training_options=training_options(words))


def test_options_without_a_value():
    with pytest.raises(ValueError, match=r"expected KEY=VALUE, found 'amp'"):
        training_options(["amp"])


def test_jobs_know_their_gpus():
    jobs = planned("table2", ["07", "dap-in1k"], launcher=Launcher(64, "slurm", "gpu"))
    assert [(job.kind, job.gpus) for job in jobs.values()] == [
        *(("boxes", 64), ("train", 32), ("extract", 0), ("train", 16), ("test", 64))
    ]
