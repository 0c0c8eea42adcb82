"""Judging a few images before all others are computed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np

from dap.ranks import Ranks
from dap.store.writer import StoreWriter

from .execution import Execution
from .store_run import Computed, Record, RecordSource
from .verdict import log_verdict, verdict_on_records

EARLY = 200  # images


def early_verdict(
    ranks: Ranks,
    writer: StoreWriter,
    source: RecordSource,
    missing: list[int],
    execution: Execution,
) -> Mapping[int, Computed]:
    """Compute images that are evenly spread over the missing shards, and judge their boxes.

    The first images of a data set would all be of one class, since class folders are listed one
    after the other. All processes share the work.

    Args:
        ranks: The processes.
        writer: Writer of the store.
        source: Computes images.
        missing: Numbers of the missing shards. If they have fewer than ``EARLY`` images, nothing
            is judged.
        execution: Whether to continue in any case.

    Returns:
        Index of an image → the image, which need not be computed again. Empty if images are
        computed in batches: the bits of an image then depend on its batch.

    Raises:
        RuntimeError: In all processes, if the boxes are worthless.
    """
    if writer.images_of(missing) < EARLY:
        return {}
    indices = np.fromiter(chain.from_iterable(map(writer.indices, missing)), np.int64)
    chosen = indices[np.linspace(0, len(indices) - 1, EARLY).astype(int)].tolist()
    share = chosen[ranks.rank :: ranks.size]
    computed = list(zip(share, source.records([share]), strict=True))
    images = dict(sorted(chain.from_iterable(ranks.gather(computed)), key=lambda item: item[0]))
    records = [image.record for image in images.values()]
    ranks.on_first_rank(lambda: _judge(writer, records, execution))
    return images if source.one_by_one else {}


def _judge(writer: StoreWriter, records: list[Record], execution: Execution) -> None:
    classes, settings = len(writer.described["categories"]), writer.described["settings"]
    judged = verdict_on_records(records, settings["thresholds"], classes, settings.get("rule"))
    log_verdict(judged, f" on {len(records)} images spread over the data set")
    if judged.hopeless and not execution.keep_going:
        raise RuntimeError(
            f"stopped after {len(records)} images: {judged.hopeless}. Nothing is written yet. "
            "Use --keep-going to continue in any case"
        )
