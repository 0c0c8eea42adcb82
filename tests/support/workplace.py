"""A folder with tiny data where users have the real sets, and commands run in it."""

import contextlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmdet.datasets import CocoDataset

from dap.launch import installed_tool
from dap.store.shard import NO_THRESHOLD
from dap.store.writer import StoreWriter
from dap.testing import make_class_folders, make_coco, make_voc, write_voc_annotation
from tests.support import forked

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FOLDERS = {"n00000001": "blue", "n00000002": "green", "n00000003": "red"}
VOC_CLASSES = ("aeroplane", "bicycle", "bird")  # of VOC's twenty
SMALL_RESNET = [
    "model.backbone.depth=18",
    "model.backbone.base_channels=8",
    "model.backbone.stem_channels=8",
]
SMALL_LOADER = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
SMALL_NECK = [
    *SMALL_RESNET,
    *SMALL_LOADER,
    "model.neck.in_channels=[8,16,32,64]",
    "model.neck.out_channels=8",
]
SMALL_FASTER_RCNN = [
    *SMALL_NECK,
    "model.rpn_head.in_channels=8",
    "model.rpn_head.feat_channels=8",
    "model.roi_head.bbox_roi_extractor.out_channels=8",
    "model.roi_head.bbox_head.in_channels=8",
    "model.roi_head.bbox_head.fc_out_channels=16",
]
SMALL_RETINANET = [
    *SMALL_NECK,
    "model.bbox_head.in_channels=8",
    "model.bbox_head.feat_channels=8",
    "model.bbox_head.stacked_convs=1",
]
CLASSIFIER_OPTIONS = [
    *SMALL_RESNET,
    *SMALL_LOADER,
    "model.head.in_channels=64",
    "model.head.num_classes=3",
    "model.head.topk=(1,)",
    "train_dataloader.dataset.split=''",
    "train_dataloader.dataset.data_prefix=train",
    "train_dataloader.dataset.metainfo.classes=('blue','green','red')",
]
SMALL_VALIDATION = [
    "val_dataloader.dataset.pipeline.1.scale=(96,64)",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
]
SMALL_STEP_3 = [
    *SMALL_VALIDATION,
    "train_dataloader.dataset.pipeline.2.scales=[(160,48),(160,64)]",
]
VOC_OPTIONS = [
    *SMALL_VALIDATION,
    "train_dataloader.dataset.pipeline.2.scale=(96,64)",
    "train_cfg.max_epochs=1",
]
TWO_STEPS = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]


def from_classifier(checkpoint):
    """Options for a backbone that starts from one's own classifier."""
    prefix = "model.backbone.init_cfg"
    return [f"{prefix}.checkpoint={checkpoint}", f"{prefix}.prefix=backbone."]


def from_detector(checkpoint):
    return [f"model.init_cfg.checkpoint={checkpoint}"]


class Place:
    """A folder and commands that run in it."""

    def __init__(self, folder):
        self.folder = folder

    def environment(self):
        return {**os.environ, "PYTHON": sys.executable}

    def run(self, *command):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=300,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        return output

    def tool(self, name, *arguments):
        """Run a tool in this process, which has all its imports."""
        argv, sys.argv = sys.argv, [name, *map(str, arguments)]
        try:
            with contextlib.chdir(self.folder):
                runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        finally:
            sys.argv = argv

    def mim_train(self, package, config, name, *options):
        program = [sys.executable, "-W", "ignore", "-m", "mim", "train", package, config]
        return self.run(*program, "--work-dir", f"work_dirs/{name}", "--cfg-options", *options)

    def train(self, config, name, *options):
        """What ``mim train mmdet`` runs, in a process that has the imports already."""
        return self.fork(
            "train", config, "--work-dir", f"work_dirs/{name}", "--cfg-options", *options
        )

    def test(self, config, checkpoint, name, *options, flags=()):
        """What ``mim test mmdet`` runs, in a process that has the imports already."""
        where = ["--work-dir", f"work_dirs/{name}", *flags]
        return self.fork("test", config, checkpoint, *where, "--cfg-options", *options)

    def fork(self, tool, *arguments):
        """Run a tool of mmdet in a process that has the imports already."""
        command = [sys.executable, installed_tool("mmdet", tool), *arguments]
        done = forked.run(command, self.folder)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def dist_train(self, config, name, *options, flags=()):
        """Train in two processes."""
        script = ["bash", ROOT / "tools" / "dist_train.sh", config, 2]
        where = ["--work-dir", f"work_dirs/{name}", *flags]
        return self.run(*script, *where, "--cfg-options", *options)

    def kill_dist_train(self, config, name, until, *options):
        """Train in two processes until a file is there, then kill all of them."""
        script = ["bash", str(ROOT / "tools" / "dist_train.sh"), str(config), "2"]
        command = [*script, "--work-dir", f"work_dirs/{name}", "--cfg-options", *options]
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=self.environment(),
            )
            deadline = time.monotonic() + 300
            while not until.exists():
                assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-4000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            kill_all(process)


class Workplace(Place):
    """Tiny ImageNet, VOC, COCO and ILSVRC DET in the real layouts below ``folder/data``."""

    def __init__(self, folder):
        super().__init__(folder)
        data = folder / "data"
        make_class_folders(data / "imagenet" / "train", 4, FOLDERS)
        make_class_folders(data / "imagenet" / "val", 2, FOLDERS, seed=1)
        voc = data / "VOCdevkit"
        make_voc(voc / "VOC2007", {"trainval": 4, "test": 3}, VOC_CLASSES)
        make_voc(voc / "VOC2012", {"trainval": 4}, VOC_CLASSES, seed=1)
        make_tiny_coco(data / "coco")
        make_tiny_det(data / "ILSVRC")


def kill_all(process):
    """Kill a process and all that it has started; torchrun's workers outlive their parent."""
    found, waiting = [], [process.pid]
    while waiting:
        found.append(waiting.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):  # of each thread
            waiting += map(int, children.read_text().split())
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def make_tiny_coco(root):
    """The tree of COCO 2017: ``annotations/instances_{train,val}2017.json`` and images."""
    for seed, split in enumerate(("train2017", "val2017")):
        file = make_coco(root / "made", 6, CocoDataset.METAINFO["classes"], seed)
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        shutil.move(file, root / "annotations" / f"instances_{split}.json")
        shutil.move(root / "made" / "images", root / split)


def make_tiny_det(root):
    """The tree of ILSVRC DET: XML below Annotations, JPEG below Data, one folder per class."""
    made = make_class_folders(root / "made", 3, FOLDERS)
    for image in sorted(made.rglob("*.jpg")):
        place = Path("DET") / "train" / "ILSVRC2013_train" / image.parent.name
        target = root / "Data" / place / f"{image.stem}.JPEG"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.rename(target)
        xml = root / "Annotations" / place / f"{image.stem}.xml"
        write_voc_annotation(xml, (96, 96), [(10, 10, 60, 70)], [image.parent.name])


def make_store(annotations, out, categories=None):
    """Write the boxes of a COCO file as a store; ``categories`` raises their number."""
    coco = json.loads(Path(annotations).read_text())
    labels = {category["id"]: label for label, category in enumerate(coco["categories"])}
    records = {image["id"]: {**image, "boxes": []} for image in coco["images"]}
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        box = [x, y, x + w, y + h, labels[annotation["category_id"]], NO_THRESHOLD]
        records[annotation["image_id"]]["boxes"].append(box)
    if categories:
        coco["categories"] = [{"id": i + 1, "name": f"n{i:08d}"} for i in range(categories)]
    described = {
        "settings": {},
        "classifier": {},
        "image_list": {"count": len(records)},
        "shard_size": len(records),
        "categories": coco["categories"],
    }
    writer = StoreWriter(out, described)
    writer.begin()
    writer.write(0, list(records.values()))
    writer.finish()
    return out / "manifest.json"
