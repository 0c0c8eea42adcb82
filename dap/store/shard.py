"""A shard: the boxes of a fixed range of images as one Apache Arrow IPC file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

DECIMALS = 2  # of box coordinates in pixels
NO_THRESHOLD = 255  # index of a box without threshold, such as one of another tool
_BOX = [
    pa.field("bbox", pa.list_(pa.float32(), 4), nullable=False),
    pa.field("label", pa.int32(), nullable=False),
    pa.field("threshold", pa.uint8(), nullable=False),
]
_MASK = pa.field("mask", pa.binary(), nullable=False)  # counts of COCO's RLE


def _schema(box: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("file_name", pa.binary(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("boxes", pa.list_(pa.struct(box)), nullable=False),
            pa.field("reason", pa.string()),
        ]
    )


SCHEMA, SCHEMA_WITH_MASKS = _schema(_BOX), _schema([*_BOX, _MASK])
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # os.fsencode's


def encode_shard(
    records: Sequence[Mapping[str, Any]], metadata: dict[str, Any], with_masks: bool = False
) -> bytes:
    """Encode the records of a shard as an Arrow file; the same records give the same bytes.

    Args:
        records: One dict per image with ``id`` and ``file_name``. If the image could be used, also
            ``height`` and ``width`` (pixels), ``boxes`` (rows of x1, y1, x2, y2 in pixels, label,
            index of the threshold) and, with masks, ``masks`` of the boxes (see
            :func:`dap.store.masks.encode_mask`). If it has no boxes, ``reason``.
        metadata: JSON to store in the file; :attr:`Shard.right` is ``statistics.right`` in it.
        with_masks: Whether each box has a mask.

    Raises:
        ValueError: If an image has a different number of masks and boxes.
    """
    boxes = [row for record in records for row in record.get("boxes", ())]
    flat = np.array(boxes, np.float64).reshape(-1, 6)
    schema = SCHEMA_WITH_MASKS if with_masks else SCHEMA
    fields = list(schema.field("boxes").type.value_type)
    corners = np.ascontiguousarray(flat[:, :4], np.float32).reshape(-1)
    structs = pa.StructArray.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(pa.array(corners), type=fields[0].type),
            pa.array(flat[:, 4].astype(np.int32)),
            pa.array(flat[:, 5].astype(np.uint8)),
            *([_mask_column(records)] if with_masks else []),
        ],
        fields=fields,
    )
    counts = [len(record.get("boxes", ())) for record in records]
    offsets = np.cumsum([0, *counts], dtype=np.int32)
    columns = [
        pa.array([record["id"] for record in records], pa.int64()),
        pa.array([os.fsencode(record["file_name"]) for record in records], pa.binary()),
        pa.array([record.get("height", 0) for record in records], pa.int32()),
        pa.array([record.get("width", 0) for record in records], pa.int32()),
        pa.ListArray.from_arrays(pa.array(offsets), structs, type=schema.field("boxes").type),
        pa.array([record.get("reason") for record in records], pa.string()),
    ]
    schema = schema.with_metadata({"dap": json.dumps(metadata)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _mask_column(records: Sequence[Mapping[str, Any]]) -> pa.Array:
    for record in records:
        boxes, masks = len(record.get("boxes", ())), len(record.get("masks", ()))
        if boxes != masks:
            raise ValueError(f"{record['file_name']}: {masks} masks for {boxes} boxes")
    counts = (mask.encode("ascii") for record in records for mask in record.get("masks", ()))
    return pa.array(list(counts), pa.binary())


class Shard:
    """A shard, memory-mapped: the operating system reads only what is used.

    Args:
        path: The Arrow file.
        content: Content of the file, if it is not on the disk; ``path`` is then only used in
            messages.

    Attributes:
        metadata: JSON that was stored with the images.
        ids: COCO ids, int64, shape (N,).
        sizes_hw: Heights and widths in pixels, int32, each of shape (N,); 0 where an image could
            not be used.
        starts: Index of the first box of each image, int32, shape (N + 1,).
        bboxes: Boxes of all images, xyxy, half-open, in pixels, float32, shape (M, 4).
        labels: Labels of the boxes, int32, shape (M,).
        thresholds: Index of the threshold of each box, or 255 for none, uint8, shape (M,).
        has_masks: Whether each box has a mask.

    Raises:
        ValueError: If the file is not a shard.
    """

    def __init__(self, path: str | os.PathLike[str], content: bytes | None = None) -> None:
        self.path = os.fspath(path)
        try:
            batch = _only_batch(_mapped(self.path) if content is None else pa.py_buffer(content))
        except (pa.ArrowInvalid, pa.ArrowKeyError, RuntimeError) as error:
            raise ValueError(f"{self.path} is not a shard of pseudo boxes: {error}") from error
        self.metadata: dict[str, Any] = json.loads(batch.schema.metadata[b"dap"])
        self._batch = batch
        count = len(batch)
        self.ids = _numbers(batch.column("id"), np.int64, count)
        self.sizes_hw = tuple(
            _numbers(batch.column(name), np.int32, count) for name in ("height", "width")
        )
        names = batch.column("file_name").buffers()
        self._name_ends = memoryview(names[1]).cast("i")[: count + 1]
        self._names = memoryview(names[2] or b"")
        lists = batch.column("boxes")
        self.starts = np.frombuffer(lists.buffers()[1], np.int32)[: count + 1]
        boxes = lists.values
        corners = boxes.field("bbox").values
        self.bboxes = _numbers(corners, np.float32, len(corners)).reshape(-1, 4)
        self.labels = _numbers(boxes.field("label"), np.int32, len(boxes))
        self.thresholds = _numbers(boxes.field("threshold"), np.uint8, len(boxes))
        self.has_masks = boxes.type.num_fields > len(_BOX)
        if self.has_masks:
            masks = boxes.field(_MASK.name).buffers()
            self._mask_ends = memoryview(masks[1] or bytes(4)).cast("i")
            self._masks = memoryview(masks[2] or b"")

    def __len__(self) -> int:
        return len(self.ids)

    def file_name(self, row: int) -> str:
        """Path of an image relative to the root of the images."""
        name = self._names[self._name_ends[row] : self._name_ends[row + 1]]
        return str(name, _ENCODING, _ERRORS)

    @property
    def all_names(self) -> memoryview:
        """The bytes of all file names, concatenated."""
        return self._names[: self._name_ends[-1]]

    @property
    def name_lengths(self) -> np.ndarray:
        """Number of bytes of each file name, shape (N,)."""
        return np.diff(self._name_ends)

    @property
    def failed(self) -> int:
        """Number of images that could not be used."""
        return int((self.sizes_hw[0] == 0).sum())

    @property
    def right(self) -> int | None:
        """Number of images whose top class is right; None if that is not known of all."""
        right: int | None = self.metadata["statistics"]["right"]
        return right

    def reasons(self) -> Iterator[tuple[int, str]]:
        """Iterate over the images without boxes: row and reason."""
        column = self._batch.column("reason")
        if column.null_count < len(column):
            reasons = enumerate(column.to_pylist())
            yield from ((row, reason) for row, reason in reasons if reason is not None)

    def boxes_of(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (n, 4), float64 as they were written, labels and thresholds of an image."""
        boxes = slice(self.starts[row], self.starts[row + 1])
        return exact(self.bboxes[boxes]), self.labels[boxes], self.thresholds[boxes]

    def mask(self, box: int) -> str:
        """Return the mask of a box by its index in :attr:`bboxes`; see :meth:`masks_of`."""
        return str(self._masks[self._mask_ends[box] : self._mask_ends[box + 1]], "ascii")

    def masks_of(self, row: int) -> list[str]:
        """Return the masks of the boxes of an image, see :func:`dap.store.masks.decode_mask`."""
        return [self.mask(box) for box in range(self.starts[row], self.starts[row + 1])]

    def records(self) -> Iterator[dict[str, Any]]:
        """Iterate over the images as :func:`encode_shard` takes them."""
        reasons = dict(self.reasons())
        heights, widths = (side.tolist() for side in self.sizes_hw)
        for row, (height, width) in enumerate(zip(heights, widths, strict=True)):
            record: dict[str, Any] = {"id": int(self.ids[row]), "file_name": self.file_name(row)}
            if height:
                columns = (values.tolist() for values in self.boxes_of(row))
                boxes = [[*box, label, tau] for box, label, tau in zip(*columns, strict=True)]
                record |= {"height": height, "width": width, "boxes": boxes}
                if self.has_masks:
                    record["masks"] = self.masks_of(row)
            if row in reasons:
                record["reason"] = reasons[row]
            yield record


def exact(coordinates: np.ndarray) -> np.ndarray:
    """Round stored float32 coordinates to hundredths of a pixel, in float64.

    Coordinates up to 131,072 pixels get the values that they had before they were stored.
    """
    return np.round(coordinates.astype(np.float64), DECIMALS)


def _mapped(path: str) -> pa.Buffer:
    """Memory-map a file by torch, which keeps no file open, unlike Arrow."""
    mapped = torch.from_file(path, shared=False, size=os.path.getsize(path), dtype=torch.uint8)
    return pa.py_buffer(mapped.numpy())


def _only_batch(content: pa.Buffer) -> pa.RecordBatch:
    reader = pa.ipc.open_file(content)
    known = any(reader.schema.equals(schema) for schema in (SCHEMA, SCHEMA_WITH_MASKS))
    if not known or reader.num_record_batches != 1:
        raise pa.ArrowInvalid(f"it has other columns: {reader.schema.names}")
    if b"dap" not in (reader.schema.metadata or {}):
        raise pa.ArrowInvalid("it lacks the metadata of DAP")
    return reader.get_batch(0)


def _numbers(column: pa.Array, dtype: type, count: int) -> np.ndarray:
    """A column as numpy, without a copy and without pandas."""
    buffer = column.buffers()[-1]
    return np.frombuffer(buffer, dtype)[:count] if buffer is not None else np.zeros(0, dtype)
