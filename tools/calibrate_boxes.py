"""Calibrate the thresholds for a classifier with 25 to 100 images that have true boxes.

    python tools/calibrate_boxes.py BOXES TRUTH CONFIG CHECKPOINT

BOXES is a run of Step 2. TRUTH has true boxes of some of its images, in a format that
tools/evaluate_boxes.py reads. CONFIG and CHECKPOINT are the classifier of the run. The tool
evaluates the thresholds of the run, multiplied by several factors, and prints the thresholds to
use.
"""

import argparse
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.classifiers.libraries import classifier_config
from dap.evaluation.calibration import FACTORS, calibrate
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes import PseudoBoxStore
from dap.pseudo_boxes.stored_maps import StoredMaps


def main() -> None:
    """Print the metrics and the thresholds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("store", metavar="BOXES", help="folder of a finished run")
    add("truth", metavar="TRUTH", help="file or folder with true boxes")
    add("config", metavar="CONFIG", help="config of the classifier")
    add("checkpoint", metavar="CHECKPOINT", help="weights of the classifier")
    add("--images", help="folder of the images; default: that of the run")
    add("--most", type=int, default=100, help="maximum number of images; default: 100")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        store, config = PseudoBoxStore(args.store), classifier_config(args.config, args.checkpoint)
        maps = StoredMaps.from_config(store, config, args.checkpoint, args.images)
        calibration = calibrate(store, read_ground_truth(args.truth), maps.of_images, args.most)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    print("factor  boxes/image  average recall  fitting  both")
    rows = zip(FACTORS, calibration.figures, strict=True)
    for i, (factor, (boxes, recall, fit, both)) in enumerate(rows):
        mark = "  <-" if i == calibration.chosen else ""
        per_image = boxes / calibration.images
        print(f"{factor:6g} {per_image:12.2f} {recall:15.1f} {fit:8.1f} {both:5.1f}{mark}")
    chosen = calibration.chosen
    thresholds = ",".join(f"{value:g}" for value in calibration.thresholds[chosen])
    unchanged = FACTORS[chosen] == 1
    advice = "keep the thresholds of the run" if unchanged else "use these thresholds:"
    print(f"{calibration.images} maps: {advice}")
    if not unchanged:
        print(f"--cfg-options pseudo_boxes.thresholds='({thresholds})'")


if __name__ == "__main__":
    main()
