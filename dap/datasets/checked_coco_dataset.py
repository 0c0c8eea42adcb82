"""A COCO file as mmdet's training set, with its categories checked against the config."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine.dataset import Compose
from mmengine.logging import print_log

from dap.coco_boxes import left_out_boxes
from dap.coco_file import LISTS, read_coco_file
from dap.registry import DATASETS


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset`` for COCO files of any origin, which reports everything it drops.

    The file is read by :func:`dap.coco_file.read_coco_file`, which repairs unambiguous entries and
    rejects invalid ones. Boxes and images that mmdet leaves out of training are counted and named
    in a warning.

    ``CocoDataset`` matches categories by name, skips the boxes of all others, and numbers the
    classes in the order of the file. Here it is an error if ``metainfo.classes`` and the file do
    not have the same names. In training, classes are numbered in the order of
    ``metainfo.classes``. In testing, another order in the file is an error, since mmdet's
    ``CocoMetric`` uses the order of the file. With ``metainfo=dict(classes=())``, all categories
    of the file are used, in its order.

    Args:
        allow_unused: Accept categories in the file that the config does not list.
        **kwargs: Arguments of ``CocoDataset``.

    Raises:
        ValueError: If the file is malformed, the names differ, or no box is left.
    """

    def __init__(self, *args: Any, allow_unused: bool = False, **kwargs: Any) -> None:
        self.allow_unused = allow_unused
        if kwargs.pop("part", None) is not None:
            raise ValueError(
                "CheckedCocoDataset: part, as the configs of Step 3 have it, holds out images of a "
                "store, and this is a COCO file. Make a store of it (tools/convert_annotations.py) "
                "for dap.PseudoBoxDataset, or set part=None and no validation (val_cfg, "
                "val_dataloader and val_evaluator None)"
            )
        kwargs.pop("held_out", None)  # has no effect without part
        super().__init__(*args, **kwargs)

    def COCOAPI(self, path: str) -> COCO:
        """Read and check the file; compare its names with the config's."""
        lists = ("images", "categories") if self.test_mode else LISTS
        content = read_coco_file(path, lists).content
        names = [category["name"] for category in content["categories"]]
        if not self.metainfo.get("classes"):
            self._metainfo["classes"] = tuple(names)
        classes = self._metainfo["classes"]
        check_categories(
            self.ann_file,
            names,
            classes,
            self.allow_unused,
            leave_out="to leave some out on purpose: allow_unused=True",
            any_order=not self.test_mode,
        )
        if not self.test_mode:
            label_of = {name: label for label, name in enumerate(classes)}
            content["categories"].sort(key=lambda item: label_of.get(item["name"], len(label_of)))
            self._left_out = left_out_boxes(self.ann_file, content)
            self._left_out.report()
        return _indexed(content)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Load the images; in training, raise ``ValueError`` if there is no box."""
        data_list: list[dict[str, Any]] = super().load_data_list()
        if not self.test_mode and not any(image["instances"] for image in data_list):
            raise no_box_to_train_on(self.ann_file, len(data_list), self._left_out.message())
        self._check_masks(data_list)
        return data_list

    def _check_masks(self, data_list: list[dict[str, Any]]) -> None:
        if any(getattr(step, "with_mask", False) for step in self.pipeline.transforms):
            objects = [each for image in data_list for each in image["instances"]]
            as_rle = any(isinstance(o.get("mask"), dict) and not o["ignore_flag"] for o in objects)
            all_have = all("mask" in each for each in objects)
            check_mask_loading(self.ann_file, self.pipeline, all_have, as_rle)

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter images as ``CocoDataset`` does, and log how many are dropped and why."""
        kept: list[dict[str, Any]] = super().filter_data()
        ids = {image["img_id"] for image in kept}
        dropped = [image for image in self.data_list if image["img_id"] not in ids]
        if dropped:
            min_size = self.filter_cfg.get("min_size", 0)
            small = [image for image in dropped if min(image["width"], image["height"]) < min_size]
            reasons = [f"{len(dropped) - len(small)} have no box (filter_cfg.filter_empty_gt)"]
            if small:
                reasons.append(
                    f"{len(small)} have a side below {min_size} px (filter_cfg.min_size), such as "
                    f"{small[0]['img_path']}"
                )
            print_log(
                f"{self.ann_file}: {len(dropped)} of {len(self.data_list)} images are left out of "
                f"training: {'; '.join(reasons)}",
                "current",
                logging.WARNING if small else logging.INFO,
            )
        return kept


def check_mask_loading(path: str, pipeline: Compose, all_have: bool, as_rle: bool = True) -> None:
    """Reject a pipeline that loads masks which do not exist or which mmdet would ignore.

    ``LoadAnnotations(poly2mask=False)`` reads polygons only: it marks objects with other masks as
    ignored, so that they would not be trained on.

    Args:
        path: File of the annotations, for the message.
        pipeline: Pipeline of the data set.
        all_have: Whether each object has a mask.
        as_rle: Whether some masks are not polygons.

    Raises:
        ValueError: If the pipeline does not fit the masks.
    """
    for step in pipeline.transforms:
        if not getattr(step, "with_mask", False):
            continue
        if not all_have:
            raise ValueError(
                f"{path}: LoadAnnotations has with_mask=True, and not each box has a mask. Make "
                "pseudo boxes with --masks (pseudo_boxes.masks=True), or load boxes alone"
            )
        if as_rle and not getattr(step, "poly2mask", True):
            raise ValueError(
                f"{path}: LoadAnnotations has poly2mask=False, and mmdet then ignores each object "
                "whose mask is run-length encoded, as these are. Set poly2mask=True"
            )


def _indexed(content: dict[str, Any]) -> COCO:
    """Build mmdet's COCO index of content in memory."""
    coco = COCO()
    coco.dataset = content
    with redirect_stdout(None):  # pycocotools prints two lines
        coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


def check_categories(
    path: str,
    names: Sequence[str],
    classes: Sequence[str],
    allow_unused: bool = False,
    leave_out: str = "",
    any_order: bool = False,
) -> None:
    """Compare the categories of a file with the classes of a config.

    Args:
        path: The file, for the messages.
        names: Names of its categories, in its order.
        classes: ``metainfo.classes`` of the config.
        allow_unused: Whether the file may have categories that the config does not list.
        leave_out: How to use fewer categories, for the message.
        any_order: Whether the file may have another order.

    Raises:
        ValueError: If names or their order differ, or two have the same name.
    """
    listed, present = set(classes), set(names)
    unknown = [name for name in names if name not in listed]
    absent = [name for name in classes if name not in present]
    in_file = [name for name in names if name in listed]
    if absent or (unknown and not allow_unused):
        raise ValueError(
            f"{path} and the config disagree about the categories: "
            f"{len(unknown)} in the file are not in the config ({_few(unknown)}), "
            f"{len(absent)} in the config are not in the file ({_few(absent)}). List the "
            "file's names in dataset.metainfo.classes, or take all of them with "
            f"metainfo=dict(classes=()); {leave_out}"
        )
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates:
        raise ValueError(
            f"{path} has {len(duplicates)} category names twice, such as {duplicates[0]!r}; "
            "expected different names, such as WordNet ids"
        )
    if in_file != list(classes) and not any_order:
        raise ValueError(
            f"{path} has the categories in the order {_few(in_file)}, the config in "
            f"the order {_few(classes)}. mmdet numbers them as the file does, so that boxes "
            "would get wrong names. List dataset.metainfo.classes in the order of the file"
        )


def no_box_to_train_on(path: str, images: int, left_out: str = "") -> ValueError:
    """Make the error for a training set without boxes; ``left_out`` says why boxes are dropped."""
    return ValueError(
        f"{path}: none of {images} images has a box to train on. Expected annotations with bbox "
        f"at least one pixel wide and high. {left_out}".strip()
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "none"
