"""Step 3 on random pseudo boxes: time per iteration, memory, and whether the loss decreases."""

import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_rows import Options, Report, Row, peak_memory, wait
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import dap  # noqa: F401  (its registries)
from dap.store.shard import NO_THRESHOLD
from dap.store.writer import StoreWriter
from dap.testing import COLOURS_BGR, draw_image, random_box, write_image

CONFIG = Path(__file__).parents[2] / "configs/pretrain/faster-rcnn_r50_fpn_40k_in1k-boxes.py"
CATEGORIES = 1000
SMALL: dict[str, Any] = {
    "model.backbone.depth": 18,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.neck.in_channels": [8, 16, 32, 64],
    "model.neck.out_channels": 8,
    "model.rpn_head.in_channels": 8,
    "model.rpn_head.feat_channels": 8,
    "model.roi_head.bbox_roi_extractor.out_channels": 8,
    "model.roi_head.bbox_head.in_channels": 8,
    "model.roi_head.bbox_head.fc_out_channels": 16,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_dataloader.dataset.pipeline.2.scales": [(160, 96)],
}


class Recorder(Hook):
    """Records the time and the loss of each iteration."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[Any] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Record them; the loss is not copied to the CPU, to avoid waiting for the GPU."""
        self.times.append(time.perf_counter())
        self.losses.append(outputs["loss"].detach())

    def after_train(self, runner: Runner) -> None:
        """Correct the time of the last iteration, which ends when the GPU has finished it."""
        wait()
        self.times[-1] = time.perf_counter()


def training(options: Options, report: Report, amp: bool = False) -> None:
    """Train Faster R-CNN R50-FPN with the config of Step 3."""
    if amp and options.device == "cpu":
        report(Row("AMP", "MMEngine has none on a CPU", "skipped"))
        return
    iterations, batch = (6, 2) if options.quick else (100, 16)
    with tempfile.TemporaryDirectory() as folder:
        config = training_config(Path(folder), options.quick, iterations, batch, amp)
        recorder = Recorder()
        runner = Runner.from_cfg(config)
        runner.register_hook(recorder)
        runner.train()
    losses = [float(loss) for loss in recorder.losses]
    warm, part = iterations // 5, max(1, iterations // 5)
    seconds = (recorder.times[-1] - recorder.times[warm]) / (iterations - 1 - warm)
    first, last = statistics.mean(losses[:part]), statistics.mean(losses[-part:])
    name = f"batch {batch}, {'AMP' if amp else 'without AMP'}"
    rate = f"{seconds:.3f} s per iteration, {batch / seconds:.0f} images/s, {peak_memory()}"
    report(Row(f"speed, {name}", rate))
    finite = all(map(math.isfinite, losses))
    # With --quick there are too few iterations for the loss to decrease.
    good = finite and (last < first or options.quick)
    report(Row(f"loss, {name}", f"{first:.3f} in the first {part} iterations, {last:.3f} in the "
               f"last; {'all' if finite else 'NOT all'} of {iterations} finite",
               "ok" if good else "failed"))  # fmt: skip


def training_config(folder: Path, quick: bool, iterations: int, batch: int, amp: bool) -> Config:
    """Make the config of Step 3 with random images and a warm-up of 10 iterations."""
    store = random_store(folder, 8 if quick else 128, (96, 128) if quick else (375, 500))
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(
        {
            "work_dir": str(folder / "work"),
            "log_level": "WARNING",
            "randomness": {"seed": 0},
            "model.backbone.init_cfg": None,
            "train_dataloader.batch_size": batch,
            "train_dataloader.num_workers": 8,
            "train_dataloader.dataset.ann_file": str(store / "manifest.json"),
            "train_dataloader.dataset.data_prefix.img": str(folder / "images"),
            "train_cfg.max_iters": iterations,
            "auto_scale_lr.enable": False,
            "optim_wrapper.type": "AmpOptimWrapper" if amp else "OptimWrapper",
            **dict.fromkeys(("val_cfg", "val_dataloader", "val_evaluator")),
            "default_hooks.checkpoint.save_last": False,
            **(SMALL if quick else {}),
        }
    )
    config.optim_wrapper.optimizer.lr = 0.002 if batch > 2 else 0.001
    config.param_scheduler[0].end = 10
    return config


def random_store(folder: Path, count: int, size_hw: tuple[int, int]) -> Path:
    """Write images with one rectangle each, and a store with their boxes."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        box, colour = random_box(rng, size_hw), list(COLOURS_BGR)[number % 3]
        name = f"{number}.jpg"
        write_image(folder / "images" / name, draw_image(size_hw, [box], [colour]))
        rows = [[*box, number % 3, NO_THRESHOLD]]
        height, width = size_hw
        records.append({"file_name": name, "height": height, "width": width, "boxes": rows})
    described = {
        "settings": {},
        "classifier": {},
        "image_list": {"count": count},
        "shard_size": count,
        "categories": [{"id": i + 1, "name": f"n{i:08d}"} for i in range(CATEGORIES)],
    }
    writer = StoreWriter(folder / "store", described)
    writer.begin()
    writer.write(0, records)
    writer.finish(coco=False)
    return folder / "store"
