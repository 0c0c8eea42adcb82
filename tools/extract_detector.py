"""Write a detector's weights without its category-dependent layers (DAP, Step 3 to Step 4).

    python tools/extract_detector.py work_dirs/dap/epoch_1.pth weights/
    python tools/extract_detector.py epoch_1.pth weights/dap-r50.safetensors --config CONFIG
    python tools/extract_detector.py epoch_1.pth weights/ --exclude roi_head.bbox_head

The file has no optimizer state. Its printed name contains the start of its sha256. Use it
in a config as load_from, or as the checkpoint of dap.PretrainedDetector.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.transfer import extract_detector


def main() -> None:
    """Write the file and print its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint of the detector: file or URL")
    add("out", help="folder, or file name with the suffix .pth or .safetensors")
    add("--config", help="config of the detector, if the checkpoint contains none")
    add("--parts", nargs="+", metavar="MODULE", help="write only these modules")
    add("--exclude", nargs="+", metavar="MODULE", default=(), help="also leave out these modules")
    args = parser.parse_args()
    try:
        path = extract_detector(args.checkpoint, args.out, args.config, args.parts, args.exclude)
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"error: {error}")
    print(path)


if __name__ == "__main__":
    main()
