"""The page of the results of ``detectors.py``."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from detector_cases import CASES


def write_page(args: argparse.Namespace) -> None:
    """Write the page of the results."""
    import mmdet
    import torch

    lines = Path(args.results).read_text().splitlines()
    results = {result["name"]: result for result in map(json.loads, lines)}
    rows = [_row(results[name]) for name in CASES if name in results]
    page = PAGE.format(mmdet=mmdet.__version__, torch=torch.__version__, rows="\n".join(rows))
    Path(args.out).write_text(page)


PAGE = """# Detectors

`tools/new_config.py` writes the configs of Steps 3 and 4 for a detector of MMDetection, or for a
config of your own. The detectors below were tested in both steps: configured by the tool,
pre-trained for two iterations on boxes of 3 classes, extracted, and fine-tuned for two iterations
on 2 classes as DAP and as CLS, with validation, on a CPU with MMDetection {mmdet} and torch
{torch}. The models have their full size, but images are small and weights are random: the test
shows that the steps run and which layers are transferred, not how much the pre-training helps.
The page is written by `tools/benchmarks/detectors.py`.

"Transferred" is the number of parameters and buffers of each module that the fine-tuning loads from
the pre-training. "New" are the layers that it does not load: layers whose shape depends on the
number of categories (`dap.transfer.category_dependent_parameters`), and layers that cannot be
pre-trained on boxes, such as mask heads if the boxes have no masks.

| detector | config | transferred | new |
| --- | --- | --- | --- |
{rows}
"""


def _row(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"| {result['name']} | | failed: {result['error'][:200]} | |"
    moves = ", ".join(f"{part} {count}" for part, count in result["parts"].items())
    new = ", ".join(f"`{layer}`" for layer in new_layers(result)) or "nothing"
    return f"| {result['name']} | `{result['config']}` | {moves} | {new} |"


def new_layers(result: dict[str, Any]) -> list[str]:
    """List the layers that are not transferred; a mask head without pre-training is one entry."""
    heads = {name.split(".mask_head.")[0] for name in result["missing"] if ".mask_head." in name}
    whole = {f"{head}.mask_head" for head in heads}
    layers = []
    for name in (*result["new"], *result["missing"]):
        head = name.split(".mask_head.")[0] + ".mask_head"
        layers.append(head if head in whole else layer_of(name))
    return list(dict.fromkeys(layers))


def layer_of(name: str) -> str:
    """Name of a layer, with N instead of numbers."""
    return re.sub(r"\.\d+(?=\.|$)", ".N", re.sub(r"\.(weight|bias)$", "", name))
