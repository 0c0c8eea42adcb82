"""Turn a detector's confident predictions into labels (DAP, self-training).

    python tools/pseudo_labels.py images.json predictions.bbox.json --out labels.json

IMAGES_JSON is from tools/unlabelled_images.py, PREDICTIONS_JSON from mmdet's
CocoMetric(format_only=True). A detection stays if its score is at least --score or the best of
its image. A file that is there is not written over.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.self_training import write_pseudo_labels


def main() -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images_json", help="COCO file of images without labels")
    parser.add_argument("predictions_json", help="what the detector found in them: ….bbox.json")
    parser.add_argument("--out", required=True, help="COCO file to write")
    parser.add_argument("--score", type=float, default=0.6, help="default: 0.6, as in the paper")
    args = parser.parse_args()
    try:
        info = write_pseudo_labels(args.images_json, args.predictions_json, args.out, args.score)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{args.out}: {info['images']} images; {info['kept_by_score']} labels by score >= "
        f"{args.score}, {info['kept_as_best']} more as the best of their image; "
        f"{info['dropped_below_one_pixel']} predictions below one pixel, "
        f"{info['images_without_labels']} images without labels"
    )


if __name__ == "__main__":
    main()
