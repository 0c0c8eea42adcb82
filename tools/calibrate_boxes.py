"""Do the thresholds suit this classifier? Find out by 25 to 100 images with true boxes.

    python tools/calibrate_boxes.py BOXES TRUTH CONFIG CHECKPOINT

BOXES is a run of Step 2 on images some of which have true boxes in TRUTH (what
tools/evaluate_boxes.py reads), CONFIG and CHECKPOINT the classifier of that run. Prints figures of
the run's thresholds times several factors, and the thresholds to use.
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
    """Print the figures and the thresholds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", metavar="BOXES", help="folder of a finished run")
    parser.add_argument("truth", metavar="TRUTH", help="file or folder with true boxes")
    parser.add_argument("config", metavar="CONFIG", help="of the classifier")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="its weights")
    parser.add_argument("--images", help="folder of the images; default: that of the run")
    parser.add_argument("--most", type=int, default=100, help="images to use; default: 100")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        store, config = PseudoBoxStore(args.store), classifier_config(args.config, args.checkpoint)
        maps = StoredMaps.from_config(store, config, args.checkpoint, args.images)
        found = calibrate(store, read_ground_truth(args.truth), maps.of_images, args.most)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    print("factor  boxes/image  average recall  fitting  both")
    rows = zip(FACTORS, found.figures, strict=True)
    for i, (factor, (boxes, recall, fit, both)) in enumerate(rows):
        mark = "  <-" if i == found.chosen else ""
        per_image = boxes / found.images
        print(f"{factor:6g} {per_image:12.2f} {recall:15.1f} {fit:8.1f} {both:5.1f}{mark}")
    thresholds = ",".join(f"{value:g}" for value in found.thresholds[found.chosen])
    same = FACTORS[found.chosen] == 1
    print(f"{found.images} maps: " + ("the run's thresholds stay" if same else "use these:"))
    if not same:
        print(f"--cfg-options pseudo_boxes.thresholds='({thresholds})'")


if __name__ == "__main__":
    main()
