"""Reading the COCO file of a store line by line.

ijson, which streams JSON of any layout, is not used: it refuses image names that are not UTF-8,
which Step 2 accepts, and its errors have neither line nor offset. json.load is not used: it needs
3.5 GB for a file of the size of ImageNet-1k. To read 100,000 images with three boxes each, ijson
takes 1.4 times the CPU time of this module, json.load 1.3 (tools/benchmarks/coco_readers.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

LINE_LIMIT = 1 << 24  # characters; the longest line holds the categories


class CocoReader:
    """Reads a file that :func:`dap.store.coco.export_coco` wrote, from start to end.

    One line is in memory at a time: the file of ImageNet-1k has millions of lines.

    Args:
        file: The open file, at its start.

    Attributes:
        info: Description of the run.
        categories: COCO categories.

    Raises:
        ValueError: If the layout of the file is another one. The iterators raise it too.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._number = file, 0
        self.info: dict[str, Any] = self._value('{"info": ')
        self.categories: list[dict[str, Any]] = self._value('"categories": ')

    def images(self) -> Iterator[dict[str, Any]]:
        """Iterate over the images; to be called once, before :meth:`annotations`."""
        return self._items('"images": [', "],")

    def annotations(self) -> Iterator[dict[str, Any]]:
        """Iterate over the annotations; to be called when all images have been read."""
        yield from self._items('"annotations": [', "]}")
        self._number += 1
        try:
            rest = self._file.read(LINE_LIMIT).strip()
        except UnicodeDecodeError:
            rest = "bytes that are no text"
        if rest:
            self._refuse(rest, "the end of the file")

    def skip_images(self) -> None:
        """Skip the images; to be called instead of :meth:`images`."""
        for _ in self._lines('"images": [', "],"):
            pass

    def _items(self, first: str, last: str) -> Iterator[dict[str, Any]]:
        return (self._parsed(line, line.removesuffix(",")) for line in self._lines(first, last))

    def _lines(self, first: str, last: str) -> Iterator[str]:
        self._expect(first)
        more = True
        while more:
            line = self._line()
            more = line.endswith(",")
            if line:  # a list without items has an empty line
                yield line
        self._expect(last)

    def _value(self, start: str) -> Any:
        line = self._line()
        if not (line.startswith(start) and line.endswith(",")):
            self._refuse(line, f"{start} …,")
        return self._parsed(line, line[len(start) : -1])

    def _expect(self, expected: str) -> None:
        if (line := self._line()) != expected:
            self._refuse(line, expected)

    def _parsed(self, line: str, text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            self._refuse(line, "one JSON object")

    def _line(self) -> str:
        self._number += 1
        try:
            line = self._file.readline(LINE_LIMIT)
        except UnicodeDecodeError:
            self._refuse("bytes that are no text", "text")
        if not line.endswith("\n") and line != "]}":  # the last line
            self._refuse(line, "a line that ends")
        return line.removesuffix("\n")

    def _refuse(self, text: str, expected: str) -> NoReturn:
        raise ValueError(
            f"{self._file.name}, line {self._number}: expected {expected!r}, found "
            f"{text[:40]!r}. The file is not as Step 2 wrote it: have it written again"
        )
