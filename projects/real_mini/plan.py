"""What the benchmark runs: data, pseudo boxes, pre-trainings, fine-tunings and tests as jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dap.experiments import ConfigTree
from dap.experiments.schedule import last_checkpoint, length_options
from dap.jobs import Jobs, Launcher, tool_command
from dap.pseudo_boxes import settings_from_config

HERE = Path(__file__).resolve().parent
CONFIGS = ConfigTree(HERE / "configs")
LITE0, CLASSES = "work_dirs/lite0.pth", "work_dirs/lite0_classes.txt"  # made together
BOXES = "work_dirs/boxes/manifest.json"
ROUND2 = "work_dirs/boxes_round2"
FROZEN = {"model.backbone.frozen": ("timm_model",)}
MOVED = ("backbone", "neck", "rpn_head")  # before the box head
SPECIFIC = {"model.roi_head.bbox_head.reg_class_agnostic": False}


class Arm(NamedTuple):
    """A way to come to a fine-tuned detector.

    Attributes:
        name: In tables and folders.
        detector: ``'faster-rcnn'`` or ``'rtmdet-tiny'``.
        boxes: ``'pseudo'``, ``'paper'`` (those of the paper's rule), ``'round2'`` (those of DAP's
            own detector, merged with them), ``'truth'`` (labelled by people), a kind of
            ``replace_boxes.py``, or None for no pre-training (CLS).
        length: Of the pre-training, in shares of the usual one.
        finetuning: Length of the fine-tuning, in shares of the usual one.
        pretrained: Name of the arm whose pre-trained detector it takes; None for its own.
        moved: Parts of that detector to start from, the others being fresh; empty for all but the
            layers that depend on the categories.
        pretraining: Options of the pre-training.
        model: Options of the model in both steps.
    """

    name: str
    detector: str = "faster-rcnn"
    boxes: str | None = "pseudo"
    length: float = 1.0
    finetuning: float = 1.0
    pretrained: str | None = None
    moved: tuple[str, ...] = ()
    pretraining: Mapping[str, object] = {}
    model: Mapping[str, object] = {}


CLS, DAP = Arm("CLS", boxes=None), Arm("DAP")
TO_RPN = Arm("DAP-to-RPN", pretrained="DAP", moved=MOVED)
AT_ALL_K = {"shots": (CLS, DAP), "head": (CLS, DAP, TO_RPN)}  # all other arms at some k
PARTS: dict[str, tuple[Arm, ...]] = {
    "shots": (CLS, DAP),
    "controls": tuple(Arm(kind, boxes=kind) for kind in ("centre", "whole")),
    "foreign": (Arm("foreign", boxes="foreign"),),
    "paper": (Arm("DAP-paper-rule", boxes="paper"),),
    "truth": (Arm("true-boxes", boxes="truth"),),
    "length": (Arm("DAP-third", length=1 / 3), Arm("DAP-double", length=2.0)),
    "schedule": (
        Arm("CLS-long", boxes=None, finetuning=3.0),
        Arm("DAP-long", finetuning=3.0, pretrained="DAP"),
    ),
    "layers": (
        Arm("DAP-backbone", pretrained="DAP", moved=MOVED[:1]),
        Arm("DAP-to-FPN", pretrained="DAP", moved=MOVED[:2]),
        TO_RPN,
    ),
    "head": (
        TO_RPN,
        *(
            Arm(f"{kind}-to-RPN", boxes=kind, pretrained=kind, moved=MOVED)
            for kind in ("centre", "whole")
        ),
    ),
    "frozen": (Arm("DAP-frozen", pretraining=FROZEN),),
    "round2": (Arm("DAP-round2", boxes="round2"),),
    "largest": (Arm("DAP-largest", boxes="largest"),),
    "regression": (
        Arm("CLS-specific", boxes=None, model=SPECIFIC),
        Arm("DAP-specific", model=SPECIFIC),
    ),
    "rtmdet": (
        Arm("CLS-RTMDet", "rtmdet-tiny", boxes=None),
        Arm("DAP-RTMDet", "rtmdet-tiny"),
    ),
}
CORE = ("shots", "controls")

# Sizes of images and batches beside those of the configs, which are of scale 'cpu'.
PRETRAINING: dict[str, dict[str, object]] = {
    "small": {  # two thirds of the height, a third of the time: for large objects
        "train_dataloader.dataset.pipeline.0.img_scale": (112, 112),
        "train_dataloader.dataset.pipeline.1.scales": [(s, s) for s in (96, 112, 128, 144, 160)],
    },
    "cpu": {},
    "gpu": {  # what it has room for: images twice as large, four times as many of them
        "train_dataloader.batch_size": 16,
        "train_dataloader.num_workers": 3,
        "train_dataloader.dataset.pipeline.0.img_scale": (320, 320),
        "train_dataloader.dataset.pipeline.1.scales": [(s, s) for s in (256, 320, 384, 448)],
    },
}
FINETUNING: dict[str, dict[str, object]] = {
    "small": {
        "train_dataloader.dataset.pipeline.2.scales": [(256, s) for s in (112, 120, 128, 136)],
        "val_dataloader.dataset.pipeline.1.scale": (256, 128),
    },
    "cpu": {},
    "gpu": {
        "train_dataloader.batch_size": 8,
        "train_dataloader.num_workers": 2,
        "train_dataloader.dataset.pipeline.2.scales": [(768, s) for s in (320, 352, 384, 416)],
        "val_dataloader.dataset.pipeline.1.scale": (768, 384),
    },
}


def coco_options(file: str) -> dict[str, object]:
    """Options of a pre-training on a COCO file in place of a store."""
    return {
        "train_dataloader.dataset.dataset.type": "dap.CheckedCocoDataset",
        "train_dataloader.dataset.dataset.ann_file": file,
        "train_dataloader.dataset.dataset.metainfo.classes": (),
    }


@dataclass
class Target:
    """The detection set to fine-tune on.

    Attributes:
        name: In names of files and folders.
        train: COCO file to draw from and to train on.
        test: COCO file to evaluate on.
        train_images: Folder of its images.
        test_images: Folder of its images.
        jobs: Make the two files, if they are not there.
    """

    name: str
    train: str
    test: str
    train_images: str
    test_images: str
    jobs: Jobs = field(default_factory=Jobs)

    @classmethod
    def from_voc(
        cls, name: str, folder: Path, train: str, test: str, classes: str | None = None
    ) -> Target:
        """Plan the conversion of a folder in VOC layout.

        Args:
            name: In folders.
            folder: With ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
            train: List to draw from.
            test: List to evaluate on.
            classes: File that names the classes to keep, one per line; None for all. Objects of
                other classes are background.
        """
        images, annotations = str(folder / "JPEGImages"), str(folder / "Annotations")
        jobs, made = Jobs(), []
        for split in (train, test):  # which may lack a class
            listed = str(folder / "ImageSets" / "Main" / f"{split}.txt")
            out = f"data/{name}_{split}.json"
            named = made[0] if made else classes
            command = tool_command(
                "xml_to_coco", annotations, images, "--one-based", "--list", listed,
                *(("--classes", named) if named else ()), "--out", out,
            )  # fmt: skip
            inputs = (listed, *made, *((classes,) if classes else ()))
            made.append(jobs.add(f"data_{name}_{split}", "files", command, out, inputs=inputs))
        return cls(name, *made, images, images, jobs)

    @property
    def folder(self) -> str:
        """Folder of its fine-tunings below the work directory; pre-trainings serve all targets."""
        return f"finetune_{self.name}"

    @cached_property
    def num_classes(self) -> int:
        """Number of categories, which both files must have alike.

        Raises:
            ValueError: If they differ.
        """
        names = [
            [category["name"] for category in json.loads(Path(path).read_text())["categories"]]
            for path in (self.train, self.test)
        ]
        if names[0] != names[1]:
            raise ValueError(
                f"{self.train} and {self.test} have other categories: {names[0]}, {names[1]}; "
                "expected the same names in the same order"
            )
        return len(names[0])


@dataclass
class Benchmark:
    """The jobs of some parts, in an order in which they can run.

    Attributes:
        images: Folder of class folders, the photographs.
        target: The detection set; its files must be there.
        shots: Images per class; None for all images.
        seeds: Of draws and fine-tunings. Pre-trainings have seed 0.
        scale: ``'small'``, ``'cpu'`` or ``'gpu'``.
        processes: Of Step 2 on a CPU.
        length: Of all trainings, in shares of the configs'.
        finetuning: Of the fine-tunings, in shares of the config's, beside ``length``.
        at: Images per class at which all arms are compared; by default the second number of
            ``shots``.
        repeated: Kinds of boxes, as in :class:`Arm`, whose pre-training has the fine-tuning's seed.
        short_sides: Of the views of Step 2 in pixels; None for its default.
        truth: COCO file with true boxes of ``images``, for the arm that is trained on them.
        jobs: Name → job; filled by :meth:`add`.
        arms: Arm → last checkpoints of its fine-tunings by k, None for all images.
        proposals: Row of the table on proposals → folders of its tests.
    """

    images: Path
    target: Target
    shots: Sequence[int | None]
    seeds: Sequence[int]
    scale: str
    processes: int
    length: float = 1.0
    finetuning: float = 1.0
    at: Sequence[int] = ()
    repeated: Sequence[str] = ()
    short_sides: Sequence[int] | None = None
    truth: str | None = None
    jobs: Jobs = field(default_factory=Jobs)
    arms: dict[str, dict[int | None, list[str]]] = field(default_factory=dict)
    proposals: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = sorted(k for k in self.shots if k is not None)
        if not numbers:
            raise ValueError("--shots all: expected a number of images per class too")
        if not self.at:
            self.at = [numbers[min(1, len(numbers) - 1)]]
        if unknown := sorted(set(self.at) - set(numbers)):
            raise ValueError(f"--at {unknown}: expected some of --shots {numbers}")
        self.shots = [*numbers, *([None] if None in self.shots else [])]

    @property
    def one_k(self) -> int:
        """The largest number of images per class at which all arms are compared."""
        return max(self.at)

    def add(self, parts: Iterable[str]) -> None:
        """Plan parts: names of ``PARTS``, ``'core'`` or ``'all'``; CLS and DAP to compare with."""
        named = set(parts)
        chosen = [
            part for part in PARTS
            if part in named
            or ("all" in named and (part != "truth" or self.truth))
            or ("core" in named and part in CORE)
        ]  # fmt: skip
        named_arms = {arm.name: arm for part in ("shots", *chosen) for arm in PARTS[part]}
        arms = list(named_arms.values())
        whole = {arm.name for part in chosen for arm in AT_ALL_K.get(part, ())}
        for seed in self.seeds:  # so that whatever ends early has all arms
            checkpoints = {arm.name: self._pretrained(arm, seed) for arm in arms if arm.boxes}
            for k in self.shots:
                for arm in arms:
                    if arm.name in whole or k in self.at:
                        self._finetuned(arm, checkpoints.get(arm.name), k, seed)
        for arm in arms:
            if arm.detector == "faster-rcnn":
                seeds = self.seeds[:1] if arm.boxes else ()
                self._proposals(arm, [self._pretrained(arm, seed) for seed in seeds])

    def _boxes(self, name: str = "boxes", rule: Mapping[str, object] | None = None) -> str:
        """Plan a run of Step 2; return its manifest.

        Args:
            name: Its folder.
            rule: Settings that differ from the default.
        """
        config = "efficientnet-lite0_in1k"
        command = ("python", str(HERE / "convert_lite0.py"), LITE0)
        self.jobs.add("lite0", "files", command, LITE0)
        launcher = Launcher(1 if self.scale == "gpu" else self.processes)
        fields = {
            **(rule or {}),
            **({"short_sides": list(self.short_sides)} if self.short_sides else {}),
        }
        options = {f"pseudo_boxes.{key}": value for key, value in fields.items()}
        folder = f"work_dirs/{name}"
        command = tuple(launcher.boxes(CONFIGS.path(config), LITE0, folder, options))
        settings = settings_from_config(CONFIGS.load(config, options))
        images = str(self.images)
        command = (*command, "--images", images, "--classes", CLASSES)
        makes = f"{folder}/manifest.json"
        return self.jobs.add(
            name, "boxes", command, makes, settings=settings, inputs=(images, LITE0)
        )

    def _pretrained(self, arm: Arm, seed: int) -> str:
        """Plan a pre-training; return its checkpoint.

        Args:
            arm: Whose.
            seed: Of the fine-tuning; 0 is taken where the pre-training is not repeated.
        """
        if arm.boxes not in self.repeated:
            seed = 0
        made = self._boxes()
        options = {
            "train_dataloader.dataset.dataset.data_prefix.img": f"{self.images}/",
            **({"randomness.seed": seed} if seed else {}),
            **arm.pretraining,
            **arm.model,
            **PRETRAINING[self.scale],
        }
        if arm.boxes == "round2":
            made = self._relabelled(made)
            options["train_dataloader.dataset.dataset.ann_file"] = ROUND2
        elif arm.boxes == "paper":
            made = self._boxes("boxes_paper", {"rule": "paper"})
            options["train_dataloader.dataset.dataset.ann_file"] = made
        elif arm.boxes == "truth":
            if not self.truth:
                raise ValueError("--parts truth: expected --truth, a COCO file of the photographs")
            made = self.truth
            options |= coco_options(made)
        elif arm.boxes != "pseudo":
            out = f"work_dirs/{arm.boxes}.json"
            command = ("python", str(HERE / "replace_boxes.py"), str(Path(made).parent),
                       str(arm.boxes), out)  # fmt: skip
            made = self.jobs.add(f"boxes_{arm.boxes}", "files", command, out, inputs=(made,))
            options |= coco_options(out)
        config = f"pretrain_{arm.detector}"
        name = f"pretrain_{arm.pretrained or arm.name}" + (f"_seed{seed}" if seed else "")
        return self._train(name, config, options, (LITE0, made), arm.length)

    def _relabelled(self, boxes: str) -> str:
        """Plan the second round: DAP's pre-trained detector labels the photographs again."""
        checkpoint = self._pretrained(DAP, 0)
        path = CONFIGS.path("pretrain_faster-rcnn")
        images = str(self.images)
        command = tool_command(
            "relabel_boxes", path, checkpoint, str(Path(boxes).parent), "--images", images,
            "--out", ROUND2,
        )  # fmt: skip
        makes = f"{ROUND2}/summary.json"  # its last file
        inputs = (checkpoint, boxes)
        return self.jobs.add("boxes_round2", "files", command, makes, inputs=inputs)

    def _finetuned(self, arm: Arm, checkpoint: str | None, k: int | None, seed: int) -> None:
        """Plan a fine-tuning on k images a class, or on all."""
        read = checkpoint or LITE0
        if checkpoint is None:
            self._boxes()  # for its classifier
        drawn = self.target.train if k is None else self._drawn(k, seed)
        head = "roi_head.bbox_head" if arm.detector == "faster-rcnn" else "bbox_head"
        test = {"ann_file": self.target.test, "data_prefix.img": f"{self.target.test_images}/"}
        options: dict[str, object] = {
            f"model.{head}.num_classes": self.target.num_classes,
            **arm.model,
            "randomness.seed": seed,
            "train_dataloader.dataset.ann_file": drawn,
            "train_dataloader.dataset.data_prefix.img": f"{self.target.train_images}/",
            **{f"val_dataloader.dataset.{key}": value for key, value in test.items()},
            **{f"val_evaluator.{i}.ann_file": self.target.test for i in (0, 1)},
            **FINETUNING[self.scale],
        }
        kind = "cls"
        for part in arm.moved:
            options |= {
                f"model.{part}.init_cfg.type": "Pretrained",
                f"model.{part}.init_cfg.checkpoint": checkpoint,
                f"model.{part}.init_cfg.prefix": f"{part}.",
            }
        if checkpoint and not arm.moved:
            kind, options["model.init_cfg.checkpoint"] = "dap", checkpoint
        shots = "all" if k is None else f"{k}shot"
        name = f"{self.target.folder}/{arm.name}_{shots}_seed{seed}"
        config = f"finetune_{arm.detector}_{kind}"
        length = arm.finetuning * self.finetuning
        made = self._train(name, config, options, (read, drawn), length)
        self.arms.setdefault(arm.name, {}).setdefault(k, []).append(made)

    def _proposals(self, arm: Arm, checkpoints: list[str]) -> None:
        """Plan tests of the RPN before and after the fine-tunings at one k."""
        tests = {f"{arm.name} before": [] if arm.pretrained else checkpoints}
        tests[f"{arm.name} after"] = self.arms[arm.name][self.one_k]
        options = {
            "test_dataloader.dataset.ann_file": self.target.test,
            "test_dataloader.dataset.data_prefix.img": f"{self.target.test_images}/",
            "test_evaluator.ann_file": self.target.test,
        }
        if scale := FINETUNING[self.scale].get("val_dataloader.dataset.pipeline.1.scale"):
            options["test_dataloader.dataset.pipeline.1.scale"] = scale
        path = CONFIGS.path("rpn_faster-rcnn")
        config = CONFIGS.load("rpn_faster-rcnn", options)
        for row, tested in tests.items():
            for weights in tested:
                name = f"{self.target.folder}/{Path(weights).parent.name}/rpn"
                out = f"work_dirs/{name}"
                command = Launcher().test("mmdet", path, weights, out, options)
                inputs = (weights, self.target.test)
                self.jobs.add(
                    name, "test", command, f"{out}/*/*.json", config=config, inputs=inputs
                )
                self.proposals.setdefault(row, []).append(out)

    def _drawn(self, k: int, seed: int) -> str:
        """Plan the draw of k images a class, in all k of a seed at once."""
        makes = f"data/few_shot/{self.target.name}_{k}shot_seed{seed}/annotations.json"
        given = ("--shots", k, "--seeds", seed, "--name", self.target.name)
        command = tool_command(
            "few_shot", "--coco", self.target.train, *given, "--out", "data/few_shot"
        )
        inputs = (self.target.train,)
        name = f"draw_{self.target.name}_{k}shot_seed{seed}"
        return self.jobs.add(name, "files", command, makes, inputs=inputs)

    def _train(
        self,
        name: str,
        config: str,
        options: dict[str, Any],
        read: tuple[str, ...],
        length: float = 1.0,
    ) -> str:
        path = CONFIGS.path(config)
        if length * self.length != 1:
            factor = length * self.length
            options |= length_options(CONFIGS.load(config), factor, warm_up=True)
        loaded = CONFIGS.load(config, options)
        command = Launcher().train("mmdet", path, f"work_dirs/{name}", options)
        makes = f"work_dirs/{name}/{last_checkpoint(loaded)}"
        batch = loaded.train_dataloader.batch_size
        more = {"config": loaded, "inputs": read, "batch": batch}
        return self.jobs.add(name, "train", command, makes, **more)
