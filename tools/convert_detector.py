"""Convert a Faster R-CNN of maskrcnn-benchmark or torchvision to a checkpoint of mmdet.

    python tools/convert_detector.py model_final.pth dap-r50-in1k.pth
    python tools/convert_detector.py model_final.pth dap-r50-in22k.pth --style pytorch --pixels rgb

The first command is for detectors of the official release that were trained on ImageNet-1k, the
second for those of ImageNet-22k. The tool prints the config options that the weights require. The
file works with load_from and with dap.PretrainedDetector. The defaults of --style and --pixels
depend on the code base.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.transfer.convert_detector import PIXELS, STYLES, convert_detector


def main() -> None:
    """Write the file and print the config options for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", help="weights of the detector: file or URL")
    add("out", help="file to write, ….pth")
    add("--style", choices=STYLES, help="stride in the 1x1 (caffe) or the 3x3 (pytorch) layer")
    add("--pixels", choices=PIXELS, help="bgr in 0-255, or rgb normalised as in torchvision")
    add("--background", choices=("first", "last"), default="first", help="default: %(default)s")
    add("--ratios", nargs=3, type=float, help="height / width of the anchors, in order")
    add(
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
    print(f"{done.path}: Faster R-CNN with {classes} classes. Use it with --cfg-options")
    for key, value in done.options.items():
        print(f"    {key}={str(value).replace(' ', '')}")


if __name__ == "__main__":
    main()
