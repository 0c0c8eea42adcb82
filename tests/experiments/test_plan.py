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
    list_experiments,
    reproduce,
)
from dap.experiments.cost import describe_total, gpu_hours
from dap.experiments.schedule import batch_options, iteration_options, last_checkpoint
from dap.jobs import Launcher, training_options
from dap.jobs.state import differences, missing_inputs

TREE = ConfigTree()
STEP_3 = "faster-rcnn_r50_fpn_40k_in1k-boxes"
PAPER = [
    *("step1", "step2", "step3", "figure3", "figure4", "figure5", "section4.3"),
    *(f"table{n}" for n in range(1, 11)),
    *("tableA1", "tableA2", "tableA1-release", "tableA2-release"),
]


def planned(name, only=(), seeds=(None,), **settings):
    plan = Plan(TREE, **settings)
    plan.add(find_experiment(name).select(tuple(only)), seeds)
    return plan.jobs


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


def test_costs():
    """Worked out by hand from the paper's hours (section 4.1)."""
    jobs = {**planned("table2"), **planned("table1", ["cls-in1k"]), **planned("step3")}
    assert gpu_hours(jobs[STEP_3]) == (pytest.approx(28.8), True)
    assert gpu_hours(jobs["faster-rcnn_r50_fpn_444k_in14m-boxes"]) == (pytest.approx(281.6), True)
    assert gpu_hours(jobs["boxes_resnet50_in14m"]) == (pytest.approx(147.2), True)
    assert gpu_hours(jobs["boxes_resnet50_in1k"]) == (pytest.approx(13.87, abs=0.01), True)
    # Mean pixels of Step 3: 4/3 (96² + 160² + 320² + 640²) / 4 = 182,272; of COCO 4/3 800² =
    # 853,333; 90,000 x 16 images against 40,038 x 32: 28.8 · 1.1239 · 4.6816 = 151.5.
    coco = gpu_hours(jobs["faster-rcnn_r50-cls-in1k_fpn_90k_coco"])
    assert coco == (pytest.approx(151.5, abs=0.1), False)
    # 14 epochs of 5,011 images of 4/3 640² = 546,133 pixels: 28.8 · .05476 · 2.9963 = 4.72.
    voc = gpu_hours(jobs["faster-rcnn_r50-cls-in1k_fpn_14e_voc07"])
    assert voc == (pytest.approx(4.72, abs=0.01), False)
    # A classifier of IN-14M: 112 GPU hours for 90 epochs of IN-1M (the paper's reference).
    classifier = gpu_hours(jobs["cls_resnet50_64xb128_in14m"])
    assert classifier == (pytest.approx(112 * 50 * 14197122 / (90 * 1281167)), False)


def test_cost_does_not_depend_on_the_gpus():
    few = planned("table2", ["07", "cls-in1k"], batch_per_gpu=2)
    more = planned("table2", ["07", "cls-in1k"], launcher=Launcher(8))
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    assert gpu_hours(few[name]) == gpu_hours(more[name])
    few = planned("step3", ["retinanet"], batch_per_gpu=2)["retinanet_r50_fpn_80k_in1k-boxes"]
    more = planned("step3", ["retinanet"])["retinanet_r50_fpn_80k_in1k-boxes"]
    assert gpu_hours(few)[0] == pytest.approx(gpu_hours(more)[0])
    # A k-shot run of 2 images sees 8 times the iterations of one of 16.
    few = planned("figure3", ["5shot", "cls-in1k"], batch_per_gpu=2)
    more = planned("figure3", ["5shot", "cls-in1k"])
    name = "faster-rcnn_r50-cls-in1k_fpn_coco-5shot"
    assert gpu_hours(few[name])[0] == pytest.approx(gpu_hours(more[name])[0])


def test_cost_of_k_shot_runs_follows_their_length():
    """16 images of 4/3 640² pixels: .5388 hours for 500 iterations, 3 x that for 1500."""
    short = planned("figure4", ["5shot", "cls-in1k"])["faster-rcnn_r50-cls-in1k_fpn_voc-5shot"]
    jobs = planned("figure4", ["5shot", "cls-in1k"], iterations=1500)
    longer = jobs["faster-rcnn_r50-cls-in1k_fpn_voc-5shot_1500it"]
    assert gpu_hours(short)[0] == pytest.approx(0.5388, abs=0.001)
    assert gpu_hours(longer)[0] == pytest.approx(3 * 0.5388, abs=0.001)


def test_cost_of_every_step_is_known():
    for name in EXPERIMENTS:
        for job in planned(name).values():
            assert gpu_hours(job).hours is not None, job.name


def test_gpu_hours_in_the_docs_are_those_of_the_list():
    """Also its share of another step's: ``2140, of which step1 1724``."""
    listed = {
        line.split("|")[1].strip(): int(line.split("|")[4].split(",")[0])
        for line in list_experiments(TREE).splitlines()[2:]
    }
    seen = set()
    page = Path("docs/reproduce.md").read_text()
    for line in page.splitlines():
        cells = line.split("|")
        if not line.startswith("| `") or len(cells) != 6:
            continue
        names = re.findall(r"`([\w.-]+)`", cells[1])
        hours, *parts = cells[4].split(", of which ")
        for name in names:
            assert int(hours) == listed[name], name
        jobs = planned(names[0])
        for name, part in (part.split() for part in parts):
            shared = [gpu_hours(jobs[other]).hours for other in planned(name) if other in jobs]
            assert int(part) == round(sum(shared)), line
        seen |= set(names)
    assert seen == set(EXPERIMENTS)
    assert "`--only` runs single rows: `table2 --only 07 dap-in1k` costs 47." in page
    assert "about 47 GPU hours" in describe_total(planned("table2", ["07", "dap-in1k"]).values())


OWN = """
auto_scale_lr = None
small = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
         dict(type='RandomResize', scale=[(96, 64), (96, 80)], keep_ratio=True),
         dict(type='PackDetInputs')]
_base_.train_dataloader.dataset.pipeline = small
whole = _base_.train_dataloader.dataset
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=whole))
"""


def own_tree(tmp_path, name, text, folder="finetune/voc07"):
    """One's own tree of configs: one that inherits the shipped one of its name."""
    path = tmp_path / "configs" / folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\n{text}")
    return ConfigTree(tmp_path / "configs")


def test_own_config_with_any_pipeline_and_no_scaling(tmp_path):
    """Random sizes, a repeated data set and no ``auto_scale_lr``: planned, with a cost."""
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    plan = Plan(own_tree(tmp_path, name, OWN), Launcher(4))
    plan.add(find_experiment("table2").select(("07", "cls-in1k")))
    job = plan.jobs[name]
    assert gpu_hours(job) == (4.725, False)
    assert job.batch == 8  # 2 images on each of 4 GPUs: nothing says another batch
    assert job.config.total_batch == 8
    assert "data/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt" in job.inputs


def test_step_of_unknown_cost_is_named(tmp_path):
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    first = own_tree(tmp_path, name, "")._roots[name][0] / "pretrain" / "my-pretraining.py"
    first.parent.mkdir()
    first.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\n")
    text = "load_from = 'work_dirs/my-pretraining/epoch_14.pth'\n"
    plan = Plan(own_tree(tmp_path, name, text))
    plan.add(find_experiment("table2").select(("07", "cls-in1k")))
    said = describe_total(plan.jobs.values())
    assert said.endswith("1 steps of unknown cost not counted (my-pretraining)")


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
