"""Class folders whose images are empty files, and what a data set makes of them."""

from dap.images.categories import coco_categories
from dap.images.labelled_images import LabelledImages


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def folders(root, *names):
    return touch(root, *(f"{name}/1.jpg" for name in names))


def labels(dataset):
    """Label of each class folder that holds images."""
    return {name.split("/")[0]: label for name, label in dataset.samples()}


def names_file(tmp_path, *lines):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def names_of(dataset, num_classes):
    return [c["name"] for c in coco_categories(LabelledImages(dataset), num_classes)]
