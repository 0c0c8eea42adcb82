"""Matching the names of class folders to the classes of a classifier."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence

from mmengine.logging import print_log

from dap.files import read_bytes, text_lines
from dap.listing import FileListing

CURE = (
    "Name the folders of all classes of the classifier in label order, one per line, with "
    "--classes FILE"
)
_SPLIT = re.compile(
    r"(train(ing|[ _-]?val)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|unlabell?ed)"
    r"([ _-]?(set|split|data|images|\d+))?"
)


def composed(name: str) -> str:
    """Normalise a name to composed letters (Unicode NFC); macOS stores decomposed file names."""
    return unicodedata.normalize("NFC", name)


def read_folder_names(path: str | os.PathLike[str], folders: Collection[str] = ()) -> list[str]:
    """Read the names of class folders in label order, one per line.

    If a line with blanks is the name of a folder, each whole line is a name. Otherwise the first
    word of a line is the name, and the rest, a readable name, is ignored, so ImageNet's
    ``LOC_synset_mapping.txt`` can be used. If several lines start with the same word and no folder
    has that name, each of these whole lines is a name. Text after a tab is always ignored.

    Args:
        path: The file, in UTF-8.
        folders: Names of existing class folders, some or all.

    Returns:
        One name per class, with composed letters (NFC).

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is no text in UTF-8, or two lines give the same name.
    """
    present = set(map(composed, folders))
    lines: dict[int, str] = {}
    for number, text in enumerate(text_lines(read_bytes(path), path), 1):
        line = composed(text)
        if line:
            lines[number] = line if line in present else line.split("\t")[0].strip()
    numbers_by_name = _line_numbers(lines, present)
    for name, numbers in numbers_by_name.items():
        if len(numbers) > 1:
            raise ValueError(
                f"{path}: lines {' and '.join(map(str, numbers))} give the same folder name "
                f"{name!r}. {_cure_of_repeat(name, [lines[number] for number in numbers])}"
            )
    names = {numbers[0]: name for name, numbers in numbers_by_name.items()}
    return [names[number] for number in sorted(names)]


def match_labels(
    root: str,
    folders: Sequence[str],
    num_classes: int,
    folder_names: Sequence[str] | None = None,
    readable_names: Sequence[str] | None = None,
) -> dict[str, int]:
    """Find the label of each class folder.

    Args:
        root: Folder that contains the class folders, for messages.
        folders: Names of the class folders.
        num_classes: Number of classes of the classifier.
        folder_names: Names of the folders of all classes in label order. If None, the folders get
            labels in sorted order, which is logged.
        readable_names: Readable class names in label order, for that log line.

    Returns:
        Folder name → label.

    Raises:
        ValueError: If the folders do not match the classes, or could match them in several ways.
    """
    if not folders:
        raise ValueError(
            f"images: {root} holds no class folders; expected one folder per class, named like the "
            "classifier's classes, with the images in it: the class of each image must be known"
        )
    refuse_splits(root, folders, folder_names or ())
    if folder_names is None:
        return _in_sorted_order(root, sorted(folders), num_classes, readable_names)
    if len(folder_names) != num_classes:
        raise ValueError(
            f"images: {len(folder_names)} class folders are named, the classifier has "
            f"{num_classes} classes. {CURE}"
        )
    labels = defaultdict(list)
    for label, name in enumerate(folder_names):
        labels[composed(name)].append(label)
    foreign = sorted(folder for folder in folders if composed(folder) not in labels)
    if foreign:
        raise ValueError(
            f"images: {root} holds {len(foreign)} folders that are no class of the classifier, "
            f"such as {', '.join(foreign[:3])}; its classes are {', '.join(folder_names[:3])}, … "
            f"{CURE}, or move other folders away"
        )
    for folder in sorted(folders):
        if len(labels[composed(folder)]) > 1:
            raise ValueError(
                f"images: the folder {folder!r} in {root} fits the classes "
                f"{' and '.join(map(str, labels[composed(folder)]))} (labels from 0), which have "
                f"the same name. Give each class a folder name of its own. {CURE}"
            )
    return {folder: labels[composed(folder)][0] for folder in folders}


def refuse_splits(root: str, folders: Collection[str], class_names: Collection[str]) -> None:
    """Refuse folders that are named like splits, such as ``train`` and ``val``, not like classes.

    Raises:
        ValueError: If there is such a folder, unless a class has its name.
    """
    known = set(map(composed, class_names))
    splits = [
        folder
        for folder in sorted(folders, key=lambda name: (not name.lower().startswith("train"), name))
        if _SPLIT.fullmatch(folder.lower()) and composed(folder) not in known
    ]
    if splits:
        raise ValueError(
            f"images: {root} holds {', '.join(map(repr, splits[:3]))}, named like a split of a "
            f"data set and not like a class. Name the folder with the class folders: "
            f"{os.path.join(root, splits[0])}. If it is a class: {CURE[0].lower()}{CURE[1:]}"
        )


def _line_numbers(lines: dict[int, str], present: set[str]) -> dict[str, list[int]]:
    """Return folder names with the numbers of the lines that give them."""
    first_words = {number: line.split()[0] for number, line in lines.items()}
    names: dict[str, list[int]] = defaultdict(list)
    if any(line in present and line != first_words[number] for number, line in lines.items()):
        for number, line in lines.items():
            names[line].append(number)
        return names
    by_word: dict[str, list[int]] = defaultdict(list)
    for number, word in first_words.items():
        by_word[word].append(number)
    for word, numbers in by_word.items():
        for number in numbers:
            is_name = len(numbers) == 1 or word in present
            names[word if is_name else lines[number]].append(number)
    return names


def _cure_of_repeat(name: str, lines: list[str]) -> str:
    other = next((line for line in lines if line != name), None)
    if other is None:
        return "Give each class a folder name of its own"
    return (
        "Give each class a folder name of its own. If the names have blanks, as in "
        f"{other!r}, there must be a folder of such a name, which may be empty"
    )


def _in_sorted_order(
    root: str, folders: list[str], num_classes: int, readable_names: Sequence[str] | None
) -> dict[str, int]:
    """Number the folders in sorted order; refuse if their order is ambiguous."""
    if len(folders) != num_classes:
        listing = FileListing(root, ())
        listing.top()
        dangling = listing.dangling
        links = f" Others may be behind dangling links {dangling}." if dangling.total else ""
        raise ValueError(
            f"images: {root} holds {len(folders)} class folders, the classifier has "
            f"{num_classes} classes, and nothing tells which is which.{links} {CURE}"
        )
    by_number = sorted(folders, key=lambda name: re.sub("[0-9]+", _padded, name))
    if by_number != folders:
        index = next(i for i, name in enumerate(folders) if name != by_number[i])
        raise ValueError(
            f"images: nothing tells the labels of the class folders in {root}, and their names are "
            f"sorted in two ways: label {index} is {folders[index]!r} by text and "
            f"{by_number[index]!r} by number. {CURE}"
        )
    pairs = [
        f"{label} -> {folder!r}" + (f" ({readable_names[label]!r})" if readable_names else "")
        for label, folder in enumerate(folders[:5])
    ]
    print_log(
        f"{root}: no class names tell the labels of the folders, so that they are assumed in "
        f"sorted order: {', '.join(pairs)}{', …' if num_classes > len(pairs) else ''}. If the "
        f"classifier was trained with another order: {CURE[0].lower()}{CURE[1:]}",
        "current",
        logging.WARNING,
    )
    return {folder: label for label, folder in enumerate(folders)}


def _padded(digits: re.Match[str]) -> str:
    return digits.group().zfill(20)
