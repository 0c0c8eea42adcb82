"""Jobs of the benchmark: which there are, what they read, and in what they differ."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from dap.testing import make_voc
from tests.support import forked

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "real_mini"


@pytest.mark.parametrize("scale", ["small", "cpu", "gpu"])
def test_every_job_reads_what_earlier_ones_make(project, make_plan, scale):
    plan = make_plan("all", shots=(5, 10, None), seeds=(0, 1), scale=scale, truth="/true.json")
    made = set()
    for job in plan.jobs.values():
        assert set(job.reads) <= made
        own = [path for path in job.inputs if path.startswith(("work_dirs/", "data/"))]
        assert set(own) <= made
        made.add(job.makes)
    assert len(made) == len(plan.jobs)
    arms = [arm.name for part in project["plan"].PARTS.values() for arm in part]
    assert set(plan.arms) == set(arms)
    assert {len(folders) for by_k in plan.arms.values() for folders in by_k.values()} == {2}
    assert list(plan.arms["CLS"]) == [5, 10, None]
    assert list(plan.arms["DAP-to-RPN"]) == [5, 10, None]
    assert list(plan.arms["whole"]) == [10]  # the others at one k alone


def test_twins_differ_in_their_start_alone(make_plan):
    plan = make_plan("core", seeds=(3,))
    cls, dap = (
        plan.jobs[f"finetune_zoo/{name}_5shot_seed3"].config.to_dict() for name in ("CLS", "DAP")
    )
    assert cls.pop("model").pop("init_cfg", None) is None
    assert dap.pop("model")["init_cfg"]["checkpoint"] == "work_dirs/pretrain_DAP/iter_1200.pth"
    cls.pop("filename", None)
    assert cls == dap
    assert cls["randomness"]["seed"] == 3
    assert cls["train_dataloader"]["dataset"]["ann_file"].endswith(
        "zoo_5shot_seed3/annotations.json"
    )
    assert cls["val_dataloader"]["dataset"]["data_prefix"]["img"] == "images/b/"
    model = plan.jobs["finetune_zoo/DAP_5shot_seed3"].config.model
    assert model.roi_head.bbox_head.num_classes == 2


def test_second_round_starts_from_the_first(make_plan):
    """The pre-trained detector labels the photographs; a second one is trained on its boxes."""
    plan = make_plan("round2")
    relabelling = plan.jobs["boxes_round2"]
    first, second = (plan.jobs[f"pretrain_{name}"] for name in ("DAP", "DAP-round2"))
    assert relabelling.inputs == (first.makes, "work_dirs/boxes/manifest.json")
    assert relabelling.makes in second.inputs
    options = relabelling.command[-4:]
    assert options == ("--images", "photos", "--out", "work_dirs/boxes_round2")
    data = second.config.train_dataloader.dataset.dataset
    assert data.ann_file == "work_dirs/boxes_round2"
    assert data.type == "dap.PseudoBoxDataset"
    assert "test_dataloader" in first.config


def test_length_of_a_pretraining(make_plan):
    plan = make_plan("length")
    usual = Config.fromfile(PROJECT / "configs" / "pretrain_faster-rcnn.py")
    double = plan.jobs["pretrain_DAP-double"].config
    assert double.train_cfg.max_iters == 2 * usual.train_cfg.max_iters
    warm_up, cosine = double.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 200)
    assert (cosine.begin, cosine.end) == (200, 2400)
    assert usual.param_scheduler[1].begin == 100


def test_longer_finetuning_of_the_same_detector(make_plan):
    plan = make_plan("schedule")
    assert [name for name in plan.jobs if name.startswith("pretrain_")] == ["pretrain_DAP"]
    usual = plan.jobs["finetune_zoo/DAP_5shot_seed0"].config
    for arm in ("CLS", "DAP"):
        job = plan.jobs[f"finetune_zoo/{arm}-long_5shot_seed0"]
        assert job.config.train_cfg.max_iters == 3 * usual.train_cfg.max_iters == 360
        assert job.config.train_cfg.val_interval == 120
        assert job.config.param_scheduler[1].milestones == [288]
        assert job.makes == f"work_dirs/finetune_zoo/{arm}-long_5shot_seed0/iter_360.pth"
    long = plan.jobs["finetune_zoo/DAP-long_5shot_seed0"].config
    assert long.model.init_cfg.checkpoint == "work_dirs/pretrain_DAP/iter_1200.pth"
    assert list(plan.proposals) == [
        f"{row} {when}"
        for row, when in [
            *(("CLS", "after"), ("DAP", "before"), ("DAP", "after")),
            *(("CLS-long", "after"), ("DAP-long", "after")),
        ]
    ]


def test_a_part_of_the_detector_moves(make_plan):
    """In the built detector the moved parts have the checkpoint's weights, and no others do."""
    plan = make_plan("layers")
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"):
        pretrained = MODELS.build(plan.jobs["pretrain_DAP"].config.model)
    given = {key: torch.full_like(value, 0.5) for key, value in pretrained.state_dict().items()}
    Path("work_dirs/pretrain_DAP").mkdir(parents=True)
    torch.save({"state_dict": given}, "work_dirs/pretrain_DAP/iter_1200.pth")
    moved = {"backbone": [], "to-FPN": ["neck"], "to-RPN": ["neck", "rpn_head"]}
    for name, parts in moved.items():
        job = plan.jobs[f"finetune_zoo/DAP-{name}_5shot_seed0"]
        assert job.inputs[0] == "work_dirs/pretrain_DAP/iter_1200.pth"
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(job.config.model)
            model.init_weights()
        found = {
            key.split(".")[0]
            for key, value in model.named_parameters()
            if value.numel() > 1 and bool((value == 0.5).all())
        }
        assert found == {"backbone", *parts}
        for part in found:
            assert all(bool((v == 0.5).all()) for v in getattr(model, part).parameters())


def test_targets_share_what_is_pretrained(target, make_plan):
    makes = []
    for name in ("zoo", "farm"):
        target.name = name
        makes.append({job.makes for job in make_plan("core").jobs.values()})
    shared = ("lite0.pth", "boxes/manifest.json", "centre.json", "whole.json")
    arms = ("DAP", "centre", "whole")
    assert makes[0] & makes[1] == {
        *(f"work_dirs/{name}" for name in shared),
        *(f"work_dirs/pretrain_{arm}/iter_1200.pth" for arm in arms),
    }


def test_a_part_alone_has_its_twins_at_one_k(make_plan):
    plan = make_plan("frozen", shots=(5, 10))
    assert {arm: list(by_k) for arm, by_k in plan.arms.items()} == {
        "CLS": [10],
        "DAP": [10],
        "DAP-frozen": [10],
    }


def test_regressors_are_alike_in_both_steps(make_plan):
    """One regressor for all classes, or one per class in the arms of the part ``regression``."""
    plan = make_plan("core", "regression")
    for arm in plan.arms:
        for name in (f"pretrain_{arm}", f"finetune_zoo/{arm}_5shot_seed0"):
            if name in plan.jobs:
                head = plan.jobs[name].config.model.roi_head.bbox_head
                assert head.reg_class_agnostic is not arm.endswith("-specific")
    assert "pretrain_DAP-specific" in plan.jobs


def test_pretraining_repeated_with_each_seed(make_plan):
    """DAP, centre and whole are pre-trained once per seed, all others with seed 0 alone."""
    repeated = ["pseudo", "centre", "whole"]
    plan = make_plan(
        "core", "paper", shots=(None, 20, 10, 5), seeds=(0, 2), at=[5, 10], repeated=repeated
    )
    pretrained = {name for name in plan.jobs if name.startswith("pretrain_")}
    assert pretrained == {
        *(f"pretrain_{arm}{seed}" for arm in ("DAP", "centre", "whole") for seed in ("", "_seed2")),
        "pretrain_DAP-paper-rule",
    }
    assert plan.jobs["pretrain_whole_seed2"].config.randomness.seed == 2
    starts = {
        name: plan.jobs[f"finetune_zoo/{name}"].config.model.init_cfg.checkpoint
        for name in ("DAP_20shot_seed2", "DAP-paper-rule_5shot_seed2")
    }
    assert starts == {
        "DAP_20shot_seed2": "work_dirs/pretrain_DAP_seed2/iter_1200.pth",
        "DAP-paper-rule_5shot_seed2": "work_dirs/pretrain_DAP-paper-rule/iter_1200.pth",
    }
    assert list(plan.arms["whole"]) == [5, 10]  # where all arms are compared
    assert list(plan.arms["CLS"]) == [5, 10, 20, None]


def test_boxes_of_both_rules_and_true_ones(make_plan):
    plan = make_plan("paper", "truth", short_sides=[160, 288], truth="/true.json")
    settings = {name: plan.jobs[name].settings for name in ("boxes", "boxes_paper")}
    assert {name: (s.rule, s.short_sides) for name, s in settings.items()} == {
        "boxes": ("extent", (160, 288)),
        "boxes_paper": ("paper", (160, 288)),
    }
    data = plan.jobs["pretrain_DAP-paper-rule"].config.train_dataloader.dataset.dataset
    assert data.ann_file == "work_dirs/boxes_paper/manifest.json"
    data = plan.jobs["pretrain_true-boxes"].config.train_dataloader.dataset.dataset
    assert (data.type, data.ann_file) == ("dap.CheckedCocoDataset", "/true.json")
    with pytest.raises(ValueError, match=r"--parts truth: expected --truth, a COCO file"):
        make_plan("truth")


def test_arms_are_compared_at_drawn_numbers_of_images(make_plan):
    with pytest.raises(ValueError, match=r"--at \[7\]: expected some of --shots \[5, 10\]"):
        make_plan(shots=(10, 5), at=[5, 7])
    with pytest.raises(ValueError, match="--shots all: expected a number of images per class too"):
        make_plan(shots=(None,))


def test_all_images_only_on_request(make_plan):
    plan = make_plan("head", shots=(5, 10))
    assert {tuple(by_k) for by_k in plan.arms.values()} == {(5, 10), (10,)}
    assert not any("_all_" in name for name in plan.jobs)


def test_some_classes_of_a_voc_folder(project, work_dir):
    """Objects of other classes become background, in the test set too."""
    make_voc(work_dir / "zoo", {"trainval": 4, "test": 2})
    trees = [ElementTree.parse(path) for path in (work_dir / "zoo" / "Annotations").glob("*.xml")]
    names = {node.text for tree in trees for node in tree.iterfind("object/name")}
    kept = sorted(names)[0]
    (work_dir / "kept.txt").write_text(f"{kept}\n")
    target = project["plan"].Target.from_voc(
        "zoo", work_dir / "zoo", "trainval", "test", str(work_dir / "kept.txt")
    )
    for job in target.jobs.values():
        done = forked.run([sys.executable, *job.command[1:]])
        assert done.returncode == 0, done.stdout
    assert len(names) > 1
    assert target.num_classes == 1
    images = [len(json.loads(Path(p).read_text())["images"]) for p in (target.train, target.test)]
    assert images == [4, 2]


def test_other_categories_in_the_test_file_are_refused(work_dir, target):
    (work_dir / "test.json").write_text('{"categories": [{"id": 1, "name": "cow"}]}')
    with pytest.raises(ValueError, match=r"train\.json and test\.json have other categories"):
        _ = target.num_classes
