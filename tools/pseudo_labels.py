"""Convert confident predictions of a detector to labels (DAP, self-training).

    python tools/pseudo_labels.py images.json predictions.bbox.json --out labels.json

IMAGES_JSON is written by tools/unlabelled_images.py, PREDICTIONS_JSON by mmdet's
CocoMetric(format_only=True). A detection is kept if its score is at least --score, or if it is the
best of its image. Existing files are never overwritten.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.self_training import write_pseudo_labels


def main() -> None:
    """Write the file and print a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("images_json", help="COCO file of images without labels")
    add("predictions_json", help="predictions of the detector: ….bbox.json")
    add("--out", required=True, help="COCO file to write")
    add("--score", type=float, default=0.6, help="minimum score; default: 0.6, as in the paper")
    args = parser.parse_args()
    try:
        info = write_pseudo_labels(args.images_json, args.predictions_json, args.out, args.score)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{args.out}: images: {info['images']}, without labels: {info['images_without_labels']}; "
        f"labels by score >= {args.score}: {info['kept_by_score']}, as the best of their image: "
        f"{info['kept_as_best']}; predictions below one pixel: {info['dropped_below_one_pixel']}"
    )


if __name__ == "__main__":
    main()
