"""What is finished, and whether it is of the same settings."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from dap.experiments import ConfigTree, Plan, find_experiment
from dap.jobs import Launcher
from dap.jobs.state import differences, is_begun, is_finished, missing_inputs
from dap.store.writer import StoreWriter

TREE = ConfigTree()
CLS = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"


@pytest.fixture
def plan(tmp_path):
    plan = Plan(TREE, root=str(tmp_path / "runs"))
    plan.add(find_experiment("table2").select(("07", "cls-in1k")))
    return plan


def dump(job, **changes):
    """What MMEngine leaves in a work directory at the start of a training."""
    folder = Path(job.makes).parent
    folder.mkdir(parents=True, exist_ok=True)
    config = job.config.copy()
    config.merge_from_dict({"work_dir": str(folder), "launcher": "none", **changes})
    config.dump(folder / Path(config.filename).name)
    return folder


def test_nothing_is_there(plan):
    assert not any(is_finished(job) or is_begun(job) for job in plan.jobs.values())


def end(job):
    """What MMEngine leaves at the end of a training."""
    checkpoint = Path(job.makes)
    checkpoint.touch()
    checkpoint.with_name("last_checkpoint").write_text(str(checkpoint))


def test_finished_training(plan):
    job = plan.jobs[CLS]
    dump(job, **{"train_dataloader.num_workers": 7, "env_cfg.cudnn_benchmark": True})
    assert not is_finished(job)
    end(job)
    assert is_finished(job)


def test_half_written_last_checkpoint_is_not_the_end(plan):
    """MMEngine writes ``last_checkpoint`` after the checkpoint."""
    job = plan.jobs[CLS]
    folder = dump(job)
    Path(job.makes).touch()
    (folder / "last_checkpoint").write_text(str(folder / "epoch_13.pth"))
    assert not is_finished(job)
    assert is_begun(job)


def test_number_of_gpus_does_not_matter_but_the_batch_does(tmp_path):
    """The total batch is 16 on 1 and on 8 GPUs; by hand it is not known."""
    row = find_experiment("table2").select(("07", "cls-in1k"))
    plans = {}
    for gpus, most in ((1, None), (8, None), (1, 2)):
        plans[gpus, most] = Plan(TREE, Launcher(gpus), str(tmp_path), most)
        plans[gpus, most].add(row)
    dump(plans[8, None].jobs[CLS])
    end(plans[8, None].jobs[CLS])
    assert is_finished(plans[1, None].jobs[CLS])
    with pytest.raises(ValueError, match="total_batch: earlier 16, now 2"):
        is_finished(plans[1, 2].jobs[CLS])
    by_hand = TREE.load(CLS)  # on a number of GPUs that is not known
    assert differences(plans[1, None].jobs[CLS].config, by_hand) == [
        "total_batch: earlier 'unknown', now 16"
    ]


def by_hand(job, log=None, stamp="20260101_000000", resume=False, **changes):
    """What ``mim train`` leaves of a config of ours, with a log that says its processes."""
    folder = Path(job.makes).parent
    start = folder / stamp / "vis_data"
    start.mkdir(parents=True)
    config = TREE.load(Path(job.config.filename).stem, changes)
    extra = {"resume": resume, "launcher": "none", "work_dir": str(folder)}
    config.merge_from_dict(extra | ({"load_from": None} if resume else {}))
    config.dump(start / "config.py")
    config.dump(folder / Path(job.config.filename).name)
    (start / "scalars.json").write_text('{"loss": 1.0, "step": 50}\n')
    if log:
        lines = f"Runtime environment:\n    seed: 1\n    GPU number: {log}\n----\n"
        (folder / stamp / f"{stamp}.log").write_text(lines)
    end(job)


@pytest.mark.parametrize(
    ("processes", "batch", "total"),
    [(8, 2, None), (1, 16, None), (None, 16, None), (1, 2, 2), (4, 2, 8), (None, 2, 2)],
)
def test_total_batch_by_hand_is_images_of_a_gpu_times_processes(plan, processes, batch, total):
    """16 in the paper; one process where the launcher is none and no log is there."""
    by_hand(plan.jobs[CLS], processes, **{"train_dataloader.batch_size": batch})
    if total is None:
        assert is_finished(plan.jobs[CLS])
    else:
        with pytest.raises(ValueError, match=f"total_batch: earlier {total}, now 16"):
            is_finished(plan.jobs[CLS])


def test_unknown_total_batch_is_not_equal(plan):
    by_hand(plan.jobs[CLS], launcher="pytorch")
    config = Path(plan.jobs[CLS].makes).parent / "20260101_000000" / "vis_data" / "config.py"
    text, changes = re.subn("launcher ?= ?'none'", "launcher = 'pytorch'", config.read_text())
    assert changes == 1
    config.write_text(text)
    with pytest.raises(ValueError, match="total_batch: earlier 'unknown', now 16"):
        is_finished(plan.jobs[CLS])


def test_log_counts_more_than_what_the_config_says_of_the_batch(plan):
    """A command of the tool for 8 GPUs that was run by hand on one."""
    by_hand(plan.jobs[CLS], 1, total_batch=16)
    with pytest.raises(ValueError, match="total_batch: earlier 2, now 16"):
        is_finished(plan.jobs[CLS])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"custom_hooks": [{"type": "EMAHook"}]},
            r"custom_hooks\.0\.type: earlier 'EMAHook', now None",
        ),
        ({"default_hooks.ema": {"type": "mmdet.EMAHook"}}, r"default_hooks\.ema\.type"),
        ({"model.data_preprocessor.mean": [0, 0, 0]}, r"model\.data_preprocessor\.mean"),
    ],
)
def test_what_else_makes_another_training(plan, changes, named):
    by_hand(plan.jobs[CLS], 8, **changes)
    with pytest.raises(ValueError, match=named):
        is_finished(plan.jobs[CLS])


def test_hooks_that_change_no_weight_do_not_matter(plan):
    hooks = [{"type": "mmdet.MemoryProfilerHook"}, {"type": "dap.ValidationPicturesHook"}]
    interval = {"default_hooks.checkpoint.interval": 7, "default_hooks.logger.interval": 1}
    by_hand(plan.jobs[CLS], 8, custom_hooks=hooks, **interval)
    assert is_finished(plan.jobs[CLS])


def test_preprocessing_at_the_top_of_a_config_is_the_models(tmp_path):
    """mmpretrain's configs have it there; MMEngine hands it to the model."""
    name = "cls_resnet50_64xb128_in14m"
    config = TREE.load(name)
    assert "data_preprocessor" not in config.model
    other = TREE.load(name, {"data_preprocessor.mean": [1.0, 2.0, 3.0]})
    (found,) = differences(config, other)
    assert found.startswith("model.data_preprocessor.mean: earlier [1.0, 2.0, 3.0]")
    merged = TREE.load(name)
    merged.model.data_preprocessor = merged.data_preprocessor
    assert differences(config, merged) == []


def test_every_start_that_led_to_the_weights_counts(plan):
    """A training with another LR that was resumed with the right one is another training."""
    job = plan.jobs[CLS]
    by_hand(job, 8, "20260101_000000", **{"optim_wrapper.optimizer.lr": 0.02})
    by_hand(job, 8, "20260102_000000")  # begun anew: the first does not count
    assert is_finished(job)
    by_hand(job, 8, "20260103_000000", resume=True)
    assert is_finished(job)
    by_hand(job, 8, "20260104_000000", resume=True, **{"optim_wrapper.optimizer.lr": 0.02})
    with pytest.raises(ValueError, match=r"optimizer\.lr: earlier 0\.02, now 0\.01"):
        is_finished(job)


def test_test_in_the_work_directory_of_a_training_does_not_hide_it(plan):
    """``mim test`` writes its config there too, with the checkpoint as ``load_from``."""
    job = plan.jobs[CLS]
    by_hand(job, 8)
    config = TREE.load(CLS, {"load_from": job.makes, "launcher": "none"})
    config.dump(Path(job.makes).parent / f"{CLS}.py")
    assert is_finished(job)


def test_first_start_says_what_a_resumed_training_was_loaded_from(tmp_path):
    name = "faster-rcnn_r50-cls-in1k_fpn_2e_voc07-pseudo12"
    plan = Plan(TREE, root=str(tmp_path))
    plan.add(find_experiment("table9").select(("cls-in1k", "self-training")))
    job = plan.jobs[name]
    moved = {
        "load_from": job.config.load_from,
        "train_dataloader.dataset": job.config.train_dataloader.dataset,
    }
    by_hand(job, 8, **moved)
    by_hand(job, 8, "20260102_000000", resume=True, **moved)
    assert is_finished(job)
    shutil.rmtree(Path(job.makes).parent / "20260101_000000")
    with pytest.raises(ValueError, match="load_from: earlier 'unknown'"):
        is_finished(job)


def test_training_of_mmpretrain(tmp_path):
    """mmpretrain's train.py adds to the loaders what is no setting of the result."""
    plan = Plan(TREE, root=str(tmp_path))
    plan.add(find_experiment("step1").select(("r50",)))
    job = plan.jobs["cls_resnet50_64xb128_in14m"]
    added = {"pin_memory": True, "persistent_workers": True, "collate_fn": {"type": "x"}}
    dump(job, **{f"train_dataloader.{key}": value for key, value in added.items()})
    end(job)
    assert is_finished(job)


def test_begun_training_is_resumed(plan):
    job = plan.jobs[CLS]
    folder = dump(job)
    (folder / "last_checkpoint").write_text(str(folder / "epoch_3.pth"))
    assert not is_finished(job)
    assert is_begun(job)
    assert "--resume" in job.resumed
    assert "--resume" not in job.command


def test_resumed_training_has_no_load_from():
    """mmdet's ``--resume`` empties it in the config that is written."""
    name = "faster-rcnn_r50-cls-in1k_fpn_2e_voc07-pseudo12"
    resumed = TREE.load(name, {"resume": True, "load_from": None})
    assert differences(TREE.load(name), resumed) == []
    assert differences(TREE.load(name), TREE.load(name, {"load_from": "other.pth"}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optim_wrapper.optimizer.lr": 0.02}, r"optimizer\.lr: earlier 0\.02, now 0\.01"),
        ({"randomness": {"seed": 3}}, r"randomness\.seed: earlier 3, now None"),
        (
            {"model.init_cfg": {"type": "Pretrained", "checkpoint": "x"}},
            "model.init_cfg.checkpoint",
        ),
    ],
)
def test_another_training_is_refused(plan, changes, named):
    job = plan.jobs[CLS]
    folder = dump(job, **changes)
    end(job)
    with pytest.raises(ValueError, match=rf"{re.escape(str(folder))}.*other settings.*{named}"):
        is_finished(job)


def test_checkpoints_of_unknown_origin_are_refused(plan):
    job = plan.jobs[CLS]
    Path(job.makes).parent.mkdir(parents=True)
    Path(job.makes).touch()
    with pytest.raises(ValueError, match="their origin is not known"):
        is_finished(job)


def test_dumped_config_is_the_same_as_it_was(plan):
    """Numbers, tuples and None survive MMEngine's writing and reading."""
    job = plan.jobs[CLS]
    folder = dump(job)
    read = Config.fromfile(folder / f"{CLS}.py", import_custom_modules=False)
    assert differences(job.config, read) == []


@pytest.fixture
def tested(plan):
    """A finished training and its test."""
    train, test = plan.jobs[CLS], plan.jobs[f"{CLS}/test"]
    folder = dump(train)
    end(train)
    result = folder / "test" / "20260101_000000" / "20260101_000000.json"
    result.parent.mkdir(parents=True)
    test.config.dump(folder / "test" / f"{CLS}.py")
    result.write_text("{}")
    return test, result


def test_test_is_repeated_with_other_settings(tested):
    test, _ = tested
    dumped = Path(test.makes).parents[1] / f"{CLS}.py"
    test.config.copy().dump(dumped)
    text = dumped.read_text()
    assert "max_per_img=100" in text
    dumped.write_text(text.replace("max_per_img=100", "max_per_img=300"))
    assert not is_finished(test)


def test_data_of_the_user_may_be_newer(plan, tmp_path, monkeypatch):
    """Data that was copied after a training does not make it void."""
    monkeypatch.chdir(tmp_path)
    job = plan.jobs[CLS]
    dump(job)
    end(job)
    os.utime(job.makes, (1e9,) * 2)
    listing = tmp_path / "data/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt"
    listing.parent.mkdir(parents=True)
    listing.touch()
    assert is_finished(job)


def test_boxes_of_other_settings_are_refused(tmp_path):
    plan = Plan(TREE, root=str(tmp_path))
    plan.add(find_experiment("step2").select(("r101", "in1k")))
    job = plan.jobs["boxes_resnet101_in1k"]
    folder = Path(job.makes).parent
    assert job.makes == str(folder / "manifest.json")
    writer = begin_store(folder, job.settings)
    assert not is_finished(job)  # killed in the middle: the tool goes on, or refuses it
    writer.finish()
    assert is_finished(job)
    (folder / "summary.json").unlink()
    assert not is_finished(job)  # killed before its end
    shutil.rmtree(folder)
    begin_store(folder, replace(job.settings, rule="release")).finish()
    with pytest.raises(ValueError, match=r"earlier .*'rule': 'release'.* now"):
        is_finished(job)


def begin_store(folder, settings):
    """What Step 2 leaves when it is ended behind the last shard; here there is none."""
    described = {
        "settings": settings.as_json(),
        "image_list": {"count": 0},
        "shard_size": 64,
        "categories": [],
    }
    writer = StoreWriter(folder, described)
    assert writer.begin() == []
    return writer


def test_missing_data_is_what_no_job_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan(TREE)
    plan.add(find_experiment("table9").rows)
    missing = missing_inputs(list(plan.jobs.values()))
    assert set(missing) == {
        "data/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
        "data/VOCdevkit/VOC2007/ImageSets/Main/test.txt",
        "data/VOCdevkit/VOC2007",
        "data/VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
        "data/VOCdevkit/VOC2012/JPEGImages",
        "data/imagenet/train",
    }
    (tmp_path / "data" / "imagenet" / "train").mkdir(parents=True)
    assert "data/imagenet/train" not in missing_inputs(list(plan.jobs.values()))
