"""A COCO file as mmdet's training set, its categories compared with the config's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from dap.registry import DATASETS


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``, which stops where that one drops boxes without a word.

    ``CocoDataset`` finds categories by name, skips the boxes of all others, and numbers the
    classes as the file does. Here a category of the file that ``metainfo.classes`` does not list,
    a class that the file does not have, or another order is an error. With
    ``metainfo=dict(classes=())`` all categories are taken, in the order of the file, and their
    names become the data set's classes.

    Args:
        allow_unused: Accept categories in the file that the config does not list.
        **kwargs: Those of ``CocoDataset``.

    Raises:
        ValueError: If the names differ, or no box is left.
    """

    def __init__(self, *args: Any, allow_unused: bool = False, **kwargs: Any) -> None:
        self.allow_unused = allow_unused
        super().__init__(*args, **kwargs)

    def COCOAPI(self, path: str) -> COCO:
        """Read the file; compare names while it is at hand."""
        coco = COCO(path)
        names = [category["name"] for category in coco.dataset["categories"]]
        if not self.metainfo.get("classes"):
            self._metainfo["classes"] = tuple(names)
        check_categories(
            self.ann_file,
            names,
            self._metainfo["classes"],
            self.allow_unused,
            leave_out="to leave some out on purpose: allow_unused=True",
        )
        return coco

    def load_data_list(self) -> list[dict[str, Any]]:
        """Load the images; there must be at least one box."""
        data_list: list[dict[str, Any]] = super().load_data_list()
        if not self.test_mode and not any(image["instances"] for image in data_list):
            raise no_box_to_train_on(self.ann_file, len(data_list))
        return data_list


def check_categories(
    path: str,
    names: Sequence[str],
    classes: Sequence[str],
    allow_unused: bool = False,
    leave_out: str = "",
) -> None:
    """Compare the categories of a file with the classes of a config.

    Args:
        path: The file, for the messages.
        names: Names of its categories, in its order.
        classes: ``metainfo.classes`` of the config.
        allow_unused: Whether there may be categories that the config does not list.
        leave_out: What to do for that, for the messages.

    Raises:
        ValueError: If names or their order differ.
    """
    listed, there = set(classes), set(names)
    unknown = [name for name in names if name not in listed]
    absent = [name for name in classes if name not in there]
    in_file = [name for name in names if name in listed]
    if absent or (unknown and not allow_unused):
        raise ValueError(
            f"{path} and the config disagree about the categories: "
            f"{len(unknown)} in the file are not in the config ({_few(unknown)}), "
            f"{len(absent)} in the config are not in the file ({_few(absent)}). List the "
            "file's names in dataset.metainfo.classes, or take all of them with "
            f"metainfo=dict(classes=()); {leave_out}"
        )
    if in_file != list(classes):
        raise ValueError(
            f"{path} has the categories in the order {_few(in_file)}, the config in "
            f"the order {_few(classes)}. mmdet numbers them as the file does, so that boxes "
            "would carry other names. List dataset.metainfo.classes in the order of the file"
        )


def no_box_to_train_on(path: str, images: int) -> ValueError:
    """What to raise for a training set without a box."""
    return ValueError(
        f"{path}: none of {images} images has a box to train on. Expected annotations with bbox "
        "at least one pixel wide and high"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "none"
