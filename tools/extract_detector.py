"""Write a detector's weights without its category-dependent layers (DAP, Step 3 to Step 4).

    python tools/extract_detector.py work_dirs/dap/epoch_1.pth weights/
    python tools/extract_detector.py epoch_1.pth weights/dap-r50.safetensors --config CONFIG
    python tools/extract_detector.py epoch_1.pth weights/ --exclude roi_head.bbox_head

The file has no optimizer state and the first digits of its sha256 in its name, which is printed.
A config takes it as load_from, or as the checkpoint of dap.PretrainedDetector.
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
    parser.add_argument("checkpoint", help="a detector's checkpoint: file or URL")
    parser.add_argument("out", help="folder, or a name that ends with .pth or .safetensors")
    parser.add_argument("--config", help="its config, if the checkpoint has none in it")
    parser.add_argument("--parts", nargs="+", metavar="MODULE", help="write these modules alone")
    parser.add_argument(
        "--exclude", nargs="+", metavar="MODULE", default=(), help="leave these modules out too"
    )
    args = parser.parse_args()
    try:
        path = extract_detector(args.checkpoint, args.out, args.config, args.parts, args.exclude)
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"error: {error}")
    print(path)


if __name__ == "__main__":
    main()
