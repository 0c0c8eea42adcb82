"""Work directories of trainings, written by hand, and parts of a report that compares them."""

import copy
import json

CLS = {
    "model": {
        "type": "FasterRCNN",
        "backbone": {
            "frozen_stages": 1,
            "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"},
        },
    },
    "train_dataloader": {"batch_size": 2, "num_workers": 2, "dataset": {"ann_file": "train.json"}},
    "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.02}},
    "val_evaluator": {"type": "CocoMetric", "ann_file": "val.json"},
    "test_evaluator": {"type": "CocoMetric", "ann_file": "test.json"},
    "default_hooks": {"logger": {"type": "LoggerHook", "interval": 25}},
}

PRETRAINED = {"type": "dap.PretrainedDetector", "checkpoint": "detector/iter_900-0b58d999.pth"}


def changed(config, **values):
    """A config with other values, whose keys have ``__`` for dots."""
    config = copy.deepcopy(config)
    for key, value in values.items():
        *path, last = key.split("__")
        part = config
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    return config


DAP = changed(CLS, model__init_cfg=PRETRAINED, model__backbone__init_cfg=None)


def shot(config, k, seed=0):
    """A config on k images per class."""
    file = f"data/few_shot/voc0712_{k}shot_seed{seed}/annotations.json"
    return changed(config, train_dataloader__dataset__ann_file=file)


def write_run(folder, ap50, config=CLS, seed=0, started="20260101_000000", key="coco/bbox_mAP_50"):
    """Write the work directory of a finished run.

    ``ap50`` has the AP50 of each validation in percent by iteration, or all of its figures.
    """
    place = folder / started / "vis_data"
    place.mkdir(parents=True)
    lines = []
    for iteration, value in ap50.items():
        results = value if isinstance(value, dict) else {key: value / 100}
        lines += [{"loss": 1.0, "lr": 0.02, "iter": iteration, "step": iteration}]
        lines += [{**results, "time": 0.1, "step": iteration}]
    (place / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config is not None:
        write_config(place / "config.py", config, seed)
    return str(folder)


def write_config(path, config, seed=0):
    whole = changed(config, work_dir=str(path), randomness={"seed": seed})
    if seed is None:
        del whole["randomness"]
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in whole.items()))


def rows(report):
    """The lines of all tables of a report."""
    return [line for line in report.splitlines() if line.startswith("|")]


def warnings(report):
    _, _, after = report.partition("## Warnings\n\n")
    return after.partition("\n\n##")[0].splitlines()
