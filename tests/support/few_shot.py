"""Small VOC and COCO sets without image files, and what a few-shot subset of them holds."""

import json

from dap.testing import write_voc_annotation

BOX = (10, 10, 40, 50)


def write_voc(root, images, split="trainval"):
    """Write {id: class names} in VOC layout, without image files."""
    for stem, names in images.items():
        path = root / "Annotations" / f"{stem}.xml"
        write_voc_annotation(path, (96, 128), [BOX] * len(names), names)
    write_list(root, split, images)
    return root


def write_list(root, split, ids):
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{stem}\n" for stem in ids))


def edit_xml(root, stem, old, new):
    path = root / "Annotations" / f"{stem}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def coco_content(images, categories=("cat", "dog")):
    """Build {image id: [class name or dict of an annotation]}; category ids are 3, 7, …."""
    ids = {name: 3 + 4 * i for i, name in enumerate(categories)}
    annotations = []
    for image, items in images.items():
        for item in items:
            given = item if isinstance(item, dict) else {"name": item}
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "bbox": [10, 10, 30, 40],
                "area": 1200,
                "iscrowd": 0,
                **given,
            }
            annotation["category_id"] = ids[annotation.pop("name")]
            annotations.append(annotation)
    return {
        "info": {"year": 2024},
        "licenses": [{"id": 1}],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "images": [
            {"id": image, "file_name": f"{image:06d}.jpg", "width": 128, "height": 96}
            for image in images
        ],
        "annotations": annotations,
    }


def write_coco(path, images, categories=("cat", "dog")):
    path.write_text(json.dumps(coco_content(images, categories)))
    return path


def read(path):
    return json.loads(path.read_text())


def image_ids(folder):
    return {image["id"] for image in read(folder / "annotations.json")["images"]}
