"""Compare the boxes of Grad-CAM and AG-CAM for a transformer with a class token.

    python tools/benchmarks/class_token_maps.py [--seeds 0 1] [--iterations 400]

For each seed, it trains a small vision transformer of mmpretrain on the shapes of the quick start,
and evaluates the boxes of both methods on other images of the same classes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from dap import cam
from dap.pseudo_boxes import CamClassifier, PseudoBoxSettings
from dap.pseudo_boxes.classifier import evaluating

sys.path.insert(0, str(Path(__file__).parents[2] / "projects" / "quickstart"))

from box_rules import FIGURES, counts_of, figures
from shapes import PRETRAIN_NAMES, SIDE, make_classification_set

BATCH = 32
METHODS = ("grad-cam", "ag-cam")
RULES: dict[str, tuple[cam.Rule, tuple[float, ...] | None]] = {
    "paper": ("paper", None),
    "extent": ("extent", None),
    "extent at 1.1 1.4": ("extent", (1.1, 1.4)),  # as in the quick start
}


class Shapes(NamedTuple):
    """Images (N, 3, SIDE, SIDE), BGR, uint8; their classes; their true boxes, xyxy."""

    images: Tensor
    labels: Tensor
    boxes: list[np.ndarray]


def make_shapes(per_class: int, seed: int) -> Shapes:
    """Draw the quick start's classification set."""
    with tempfile.TemporaryDirectory() as folder:
        root, file = Path(folder, "images"), Path(folder, "boxes.json")
        make_classification_set(root, per_class, seed, file)
        coco = json.loads(file.read_text())
        images: list[Any] = [cv2.imread(str(root / entry["file_name"])) for entry in coco["images"]]
    boxes: list[list[list[int]]] = [[] for _ in images]
    labels = torch.zeros(len(images), dtype=torch.long)
    for entry in coco["annotations"]:
        x, y, width, height = entry["bbox"]
        boxes[entry["image_id"] - 1].append([x, y, x + width, y + height])
        labels[entry["image_id"] - 1] = entry["category_id"] - 1
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Shapes(stacked, labels, [np.array(each, float) for each in boxes])


def build() -> Any:
    """Build a vision transformer with a class token, patches of 16 pixels, 4 blocks of 4 heads."""
    arch = {"embed_dims": 96, "num_layers": 4, "num_heads": 4, "feedforward_channels": 192}
    classes = len(PRETRAIN_NAMES)
    model = MODELS.build(
        {
            "type": "ImageClassifier",
            "backbone": {
                "type": "VisionTransformer", "arch": arch, "img_size": SIDE, "patch_size": 16
            },
            "head": {"type": "VisionTransformerClsHead", "num_classes": classes, "in_channels": 96},
            "data_preprocessor": {
                "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True
            },
        }
    )  # fmt: skip
    model.init_weights()
    return model


def train(model: Any, data: Shapes, iterations: int, seed: int) -> None:
    """Train on random crops of .7 to 1 of the side, randomly mirrored."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, iterations, pct_start=0.2)
    for _ in range(iterations):
        chosen = torch.randint(len(data.images), (BATCH,), generator=generator)
        side = int(SIDE * (0.7 + 0.3 * torch.rand(1, generator=generator)))
        top, left = torch.randint(SIDE - side + 1, (2,), generator=generator).tolist()
        images = data.images[chosen, :, top : top + side, left : left + side].float()
        images = nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear")
        if torch.rand(1, generator=generator) < 0.5:
            images = images.flip(-1)
        normalized = model.data_preprocessor({"inputs": images}, training=False)["inputs"]
        logits = model.head(model.extract_feat(normalized, stage="neck"))
        loss = nn.functional.cross_entropy(logits, data.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def evaluate(model: nn.Module, data: Shapes) -> None:
    """Print one row per method and rule."""
    weights = np.ones((1, len(data.images)))
    for method in METHODS:
        classifier = CamClassifier(model, method)
        for name, (rule, thresholds) in RULES.items():
            settings = PseudoBoxSettings(
                short_sides=(192,), rule=rule, thresholds=thresholds or cam.default_thresholds(rule)
            )
            counts = [
                counts_of(boxes_of(classifier, image, label, settings), truth)
                for image, label, truth in zip(data.images, data.labels, data.boxes, strict=True)
            ]
            values = figures(np.array(counts, float), weights)[0]
            print(f"| {method}, {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")


def boxes_of(
    classifier: CamClassifier, image: Tensor, label: Tensor, settings: PseudoBoxSettings
) -> np.ndarray:
    """Compute the boxes of one image and its class."""
    with evaluating(classifier.model):
        merged = classifier.maps(image, label[None], settings)
    values = merged.maps[0].numpy()
    return cam.boxes_from_cam(
        values, settings.thresholds, settings.nms_iou, settings.rule, merged.cell_size, (SIDE, SIDE)
    )[0]


def top1(model: Any, data: Shapes) -> float:
    """Compute the top-1 accuracy in percent."""
    classifier = CamClassifier(model)
    with evaluating(model), torch.no_grad():
        images = classifier.normalize(data.images.float())
        logits = model.head(model.extract_feat(images, stage="neck"))
    return 100 * float((logits.argmax(dim=1) == data.labels).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate, for all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--per-class", type=int, default=60, help="images per class to train on")
    parser.add_argument("--held-out", type=int, default=8, help="images per class to evaluate on")
    args = parser.parse_args(arguments)
    init_default_scope("mmpretrain")
    print("| maps, rule | boxes per image | " + " | ".join(FIGURES) + " |")
    print("|" + "---|" * (2 + len(FIGURES)))
    for seed in args.seeds:
        torch.manual_seed(seed)
        model = build()
        train(model, make_shapes(args.per_class, 100 + seed), args.iterations, seed)
        held_out = make_shapes(args.held_out, 200 + seed)
        count, accuracy = len(held_out.images), top1(model, held_out)
        print(f"seed {seed}: top-1 {accuracy:.1f} of {count} images", flush=True)
        evaluate(model, held_out)


if __name__ == "__main__":
    main()
