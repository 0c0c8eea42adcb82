"""Stores of pseudo boxes, written from records made by hand, and runs interrupted as they write."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dap.pseudo_boxes import PseudoBoxSettings, PseudoBoxStore
from dap.store.writer import StoreWriter

CATEGORIES = [
    {"id": 3, "name": "n3", "readable_name": "crane"},
    {"id": 11, "name": "n11", "readable_name": "crane"},
    {"id": 7, "name": "n7", "readable_name": "owl"},
]


def write_store(folder, records, categories, shard_size, settings, image_root=""):
    """Write a finished store, and give its folder.

    Args:
        folder: Where to.
        records: One dict per image, as the writer takes them.
        categories: Dicts with an id and a name; labels count them from 0.
        shard_size: Images per shard.
        settings: What the store says that Step 2 was run with.
        image_root: Folder of the images.
    """
    described = {
        "settings": settings,
        "classifier": {},
        "image_list": {"count": len(records), "root": str(image_root)},
        "shard_size": shard_size,
        "categories": categories,
    }
    writer = StoreWriter(folder, described)
    for shard in writer.begin():
        writer.write(shard, [records[i] for i in writer.indices(shard)])
    writer.finish()
    return folder


def store_of(folder, records, **settings):
    """A store in shards of two images, of :data:`CATEGORIES`, by the paper's rule at two τ."""
    settings = {"thresholds": (0.2, 0.5), "nms_iou": None, "rule": "paper", **settings}
    described = PseudoBoxSettings(**settings).as_json()
    return PseudoBoxStore(write_store(folder, records, CATEGORIES, 2, described))


def image(name, height, width, *boxes):
    """The record of an image: boxes are rows of corners, label, index of τ."""
    reason = {} if boxes else {"reason": "its map is constant"}
    return {"file_name": name, "height": height, "width": width, "boxes": list(boxes), **reason}


def image_record(name, *boxes):
    """An image of 100 x 100 pixels: boxes are corners, label, index of τ."""
    return image(name, 100, 100, *([*box, label, tau] for box, label, tau in boxes))


@contextmanager
def interrupted_writing(shard: int, method: str = "write") -> Iterator[None]:
    """Run what must be interrupted by the user when it writes a shard.

    Args:
        shard: Index of the first shard that is not written.
        method: Method of the writer that is interrupted.
    """
    original = getattr(StoreWriter, method)

    def interrupted(writer, number, *args, **kwargs):
        if number == shard:
            raise KeyboardInterrupt
        original(writer, number, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreWriter, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield
