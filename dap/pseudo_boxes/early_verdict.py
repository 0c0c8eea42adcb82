"""A verdict on a few images before the others are computed for hours."""

from __future__ import annotations

from itertools import chain

import numpy as np

from dap.ranks import Ranks
from dap.store.writer import StoreWriter

from .pipeline import Pipeline, Record
from .settings import Execution
from .verdict import log_verdict, verdict_on_records
from .window import ImageMaps

EARLY = 200  # images
EarlyRecords = dict[int, tuple[ImageMaps, Record]]


def early_verdict(
    ranks: Ranks, writer: StoreWriter, pipeline: Pipeline, missing: list[int], execution: Execution
) -> EarlyRecords:
    """Compute images that are evenly spread over those to do, and judge their boxes.

    The first images of a data set would not do: class folders come one after the other, so that
    they are all of one class. All processes share the work.

    Args:
        ranks: The processes.
        writer: Writer of the store.
        pipeline: Computes images.
        missing: Shards to do. With fewer than ``EARLY`` images in them nothing is judged.
        execution: Whether to go on in any case.

    Returns:
        Index → image and record, to be used as they are; empty where the bits of an image depend
        on the batch it is in, so that these images are computed again.

    Raises:
        RuntimeError: In all processes, if the boxes are worthless.
    """
    if writer.images_of(missing) < EARLY:
        return {}
    indices = np.fromiter(chain.from_iterable(map(writer.indices, missing)), np.int64)
    chosen = indices[np.linspace(0, len(indices) - 1, EARLY).astype(int)].tolist()
    share = chosen[ranks.rank :: ranks.size]
    computed = list(zip(share, pipeline.records([share]), strict=True))
    records = dict(sorted(chain.from_iterable(ranks.gather(computed)), key=lambda item: item[0]))
    ranks.on_first_rank(
        lambda: _judge(writer, [record for _, record in records.values()], execution)
    )
    return records if pipeline.one_by_one else {}


def _judge(writer: StoreWriter, records: list[Record], execution: Execution) -> None:
    classes, rule = len(writer.described["categories"]), writer.described["settings"].get("rule")
    judged = verdict_on_records(records, writer.thresholds, classes, rule)
    log_verdict(judged, f" on {len(records)} images spread over the data set")
    if judged.hopeless and not execution.keep_going:
        raise RuntimeError(
            f"stopped after {len(records)} images: {judged.hopeless}. Nothing is written yet. "
            "--keep-going goes on in any case"
        )
