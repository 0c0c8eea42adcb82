"""Turn a Faster R-CNN of maskrcnn-benchmark or torchvision into a checkpoint of mmdet.

    python tools/convert_detector.py model_final.pth dap-r50-in1k.pth
    python tools/convert_detector.py model_final.pth dap-r50-in22k.pth --style pytorch --pixels rgb

The first line is for detectors of the official release that were trained on ImageNet-1k, the second
for those of ImageNet-22k. Printed are the options of a config that go with the weights; the file is
for load_from and for dap.PretrainedDetector.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.transfer.convert_detector import PIXELS, STYLES, convert_detector


def main() -> None:
    """Write the file and print what goes with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a detector's weights: file or URL")
    parser.add_argument("out", help="file to write, ….pth")
    parser.add_argument(
        "--style",
        choices=STYLES,
        help="stride in the 1x1 (caffe) or the 3x3 (pytorch); default: that of the code base",
    )
    parser.add_argument(
        "--pixels",
        choices=PIXELS,
        help="bgr, 0-255, or rgb, normalised as torchvision does; default: by the code base",
    )
    parser.add_argument(
        "--background", choices=("first", "last"), default="first", help="default: %(default)s"
    )
    parser.add_argument(
        "--ratios", nargs=3, type=float, help="height / width of the anchors in their order"
    )
    parser.add_argument(
        "--bn-eps",
        type=float,
        help="added to variances; default: 0 for maskrcnn-benchmark, 1e-5 for torchvision "
        "(for torchvision's published COCO weights: 0)",
    )
    args = parser.parse_args()
    try:
        done = convert_detector(**vars(args))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    classes = done.model["roi_head"]["bbox_head"]["num_classes"]
    print(f"{done.path}: Faster R-CNN of {classes} classes. It goes with --cfg-options")
    for key, value in done.options.items():
        print(f"    {key}={str(value).replace(' ', '')}")


if __name__ == "__main__":
    main()
