"""The steps of the quick start: their commands, their order, and their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from steps import Step, python

HERE = Path(__file__).resolve().parent
CONFIGS = HERE / "configs"
TRUE_BOXES = (  # a COCO file in place of the pseudo boxes
    "train_dataloader.dataset.type=dap.CheckedCocoDataset",
    "train_dataloader.dataset.ann_file=data/true_boxes.json",
    "train_dataloader.dataset.metainfo.classes=()",  # all categories of the file
)


class Size(NamedTuple):
    """Sizes of data and trainings.

    Attributes:
        data: Images per class of the classification set, training images per class and test
            images of the detection set.
        lengths: Iterations of classifier, pre-training and fine-tuning.
        options: Config options of each of the three trainings.
        seconds: Typical duration of each step on two cores, in seconds, to estimate the
            remaining time.
    """

    data: tuple[int, int, int]
    lengths: tuple[int, int, int]
    options: Mapping[str, tuple[str, ...]]
    seconds: Mapping[str, float]


def shortened(iterations: int, warm_up: int, *more: str) -> tuple[str, ...]:
    """Return config options that shorten a training for a test of all steps."""
    return (
        f"train_cfg.max_iters={iterations}",
        f"default_hooks.checkpoint.interval={iterations}",
        "default_hooks.logger.interval=4",
        f"param_scheduler.0.end={warm_up}",
        *more,
    )


SIZES = {
    "full": Size(
        (100, 3, 160), (400, 600, 120), {},
        {"data": 8, "classifier": 40, "pretrain_dap": 85, "dap": 43, "cls": 43,
         "pretrain_control": 85, "control": 35, "report": 9},
    ),
    "tiny": Size(
        (6, 2, 16), (24, 24, 12),
        {
            "classifier": shortened(
                24, 8, "param_scheduler.1.begin=8", "param_scheduler.1.end=24",
                "custom_hooks.0.keep_going=True",
            ),
            "pretrain": shortened(24, 8, "param_scheduler.1.begin=8", "param_scheduler.1.end=24"),
            "finetune": shortened(
                12, 4, "param_scheduler.1.milestones=[10]", "train_cfg.val_interval=6"
            ),
        },
        {"data": 4, "classifier": 12, "pretrain_dap": 11, "dap": 13, "cls": 13,
         "pretrain_control": 11, "control": 12, "report": 11},
    ),
}  # fmt: skip


class Chain(NamedTuple):
    """The steps in stages; steps of the same stage run at the same time, on one core each.

    Attributes:
        seed: Seed of the data and of the initialisation.
        size: Sizes of data and trainings.
    """

    seed: int
    size: Size

    def stages(self, control: bool) -> list[list[Step]]:
        """Return all steps, in stages."""
        data = Step(
            "data",
            "make the two data sets",
            python(HERE / "shapes.py", self.seed, *self.size.data),
            "data",
        )
        classifier = self._training(
            "classifier",
            "Steps 1 and 2: train a classifier; its hook writes pseudo boxes",
            "classifier.py",
            *self.size.options.get("classifier", ()),
        )
        twin = self._training(
            "cls",
            "Step 4: fine-tune from the classifier, for comparison (cls)",
            "finetune_cls.py",
            *self._start("backbone.init_cfg", "classifier", self.size.lengths[0]),
            *self.size.options.get("finetune", ()),
        )
        controls = [[self._pretraining("control")], [self._finetuning("control")]]
        tiny = ("--tiny",) if self.size is SIZES["tiny"] else ()
        report = Step(
            "report",
            "table, and the page on boxes and curves",
            python(HERE / "report.py", "--seed", self.seed, *tiny),
            "report",
        )
        return [
            [data],
            [classifier],
            [self._pretraining("dap")],
            [self._finetuning("dap"), twin],
            *(controls if control else []),
            [report],
        ]

    def _pretraining(self, name: str) -> Step:
        boxes = "pseudo boxes" if name == "dap" else "true boxes"
        return self._training(
            f"pretrain_{name}",
            f"Step 3: pre-train the whole detector on the {boxes}",
            "pretrain_detector.py",
            *self._start("backbone.init_cfg", "classifier", self.size.lengths[0]),
            *self.size.options.get("pretrain", ()),
            *(TRUE_BOXES if name == "control" else ()),
        )

    def _finetuning(self, name: str) -> Step:
        return self._training(
            name,
            f"Step 4: fine-tune from the pre-trained detector ({name})",
            "finetune_dap.py",
            *self._start("init_cfg", f"pretrain_{name}", self.size.lengths[1]),
            *self.size.options.get("finetune", ()),
        )

    @staticmethod
    def _start(part: str, folder: str, iterations: int) -> tuple[str, ...]:
        return (f"model.{part}.checkpoint=work_dirs/{folder}/iter_{iterations}.pth",)

    def _training(self, name: str, title: str, config: str, *options: str) -> Step:
        """Return a step that trains as ``mim train`` does, which first starts the tool with -h."""
        long = config in ("classifier.py", "pretrain_detector.py")
        package = "mmpretrain" if config == "classifier.py" else "mmdet"
        command = python(
            "-m", "dap.launch", package, "train", CONFIGS / config,
            "--work-dir", f"work_dirs/{name}",
            *(["--resume"] if long else []),
            "--cfg-options", f"randomness.seed={self.seed}", *options,
        )  # fmt: skip
        return Step(name, title, command, f"work_dirs/{name}", long, threads=2 if long else 1)


def chosen_stages(chain: Chain, control: bool, names: Iterable[str] | None) -> list[list[Step]]:
    """Return the stages of the chain, with only the chosen steps.

    Raises:
        ValueError: If there is no such step.
    """
    stages = chain.stages(control)
    known = [step.name for stage in stages for step in stage]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"no such step: {', '.join(unknown)}; the steps are {', '.join(known)}")
    chosen = [[step for step in stage if step.name in (names or known)] for stage in stages]
    return [stage for stage in chosen if stage]


def names_after(chain: Chain, name: str) -> list[str]:
    """Return the names of all steps in later stages than a step."""
    stages = [[step.name for step in stage] for stage in chain.stages(control=True)]
    number = next(i for i, stage in enumerate(stages) if name in stage)
    return [later for stage in stages[number + 1 :] for later in stage]
