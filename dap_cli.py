"""The command ``dap``, which runs the programs in tools/ and MMDetection's training.

It is a module outside the package ``dap``, so that ``dap --help`` is fast, and so that
``dap doctor`` works where ``import dap`` fails.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

# Verb → program in tools/ (none for the two verbs that train), and description.
VERBS = {
    "boxes": ("generate_pseudo_boxes", "Step 2: boxes from a classifier and its images"),
    "look": ("inspect_boxes", "page to inspect the boxes before training"),
    "new-config": ("new_config", "configs of Steps 3 and 4 for any detector of MMDetection"),
    "pretrain": ("", "Step 3: train a config with MMDetection"),
    "finetune": ("", "Step 4: train configs one after the other, and compare them"),
    "compare": ("compare", "tables and curves of trainings"),
    "reproduce": ("reproduce", "a table or figure of the paper"),
    "doctor": ("doctor", "check the installation"),
    "relabel": ("relabel_boxes", "a second round: boxes from the pre-trained detector"),
    "evaluate": ("evaluate_boxes", "compare boxes with ground truth"),
    "calibrate": ("calibrate_boxes", "thresholds for a classifier, from some true boxes"),
    "select": ("select_boxes", "boxes for other thresholds and NMS from the same run"),
    "convert": ("convert_annotations", "convert boxes and detection sets between formats"),
    "few-shot": ("few_shot", "k images per class of a detection set"),
    "extract": ("extract_detector", "a detector's weights without category-dependent layers"),
    "convert-detector": ("convert_detector", "convert a detector of another code base"),
    "xml-to-coco": ("xml_to_coco", "a tree of VOC-style XML files as a COCO file"),
    "unlabelled": ("unlabelled_images", "a COCO file of images without labels"),
    "pseudo-labels": ("pseudo_labels", "labels from a detector's predictions"),
}
STEPS = ("boxes", "look", "new-config", "pretrain", "finetune", "compare")
_TRAINING = """usage: dap {verb} CONFIG {more}[--gpus N] [options of mmdet's train.py]

Trains with MMDetection's own tools/train.py, N processes on N GPUs with --gpus. Its options include
--resume, --amp, --work-dir DIR and --cfg-options KEY=VALUE …{end}"""
# MMEngine 0.10 causes this warning in every process.
_WARNING = "pkg_resources is deprecated as an API"
_SEVERAL = """
Several configs are trained one after the other, and then compared (dap compare)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: Arguments; defaults to those of the command line.

    Returns:
        The exit status.
    """
    verb, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(usage())
        return 0
    if verb not in VERBS:
        matches = difflib.get_close_matches(verb, VERBS, n=3)
        hint = f"; did you mean {', '.join(matches)}?" if matches else ""
        print(f"dap: no verb {verb!r}{hint} `dap --help` lists all", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", _WARNING)
    status = train(verb, rest) if not VERBS[verb][0] else run_tool(verb, rest)
    is_help = not {"-h", "--help"}.isdisjoint(rest)
    if status == 0 and not is_help and (step := next_step(verb, rest)):
        print(f"\nnext: {step}")
    return status


def usage() -> str:
    """Format the list of verbs."""
    lines = ["usage: dap VERB [ARGUMENTS]; dap VERB --help for details", "", "The steps:"]
    lines += [f"  {verb:17} {VERBS[verb][1]}" for verb in STEPS]
    lines += ["", "Others:"]
    lines += [f"  {verb:17} {text}" for verb, (_, text) in VERBS.items() if verb not in STEPS]
    return "\n".join(lines)


def tools_folder() -> Path:
    """Find the folder of the programs, in the clone or in the installed package.

    Raises:
        SystemExit: If ``dap`` is not installed.
    """
    spec = importlib.util.find_spec("dap")
    if spec is None or spec.origin is None:
        sys.exit(f"error: {sys.executable} has no package dap; install it there")
    package = Path(spec.origin).parent
    in_clone = (package.parent / "pyproject.toml").is_file()
    return package.parent / "tools" if in_clone else package / ".mim" / "tools"


def run_tool(verb: str, arguments: Sequence[str]) -> int:
    """Run a program of tools/ in this process, with the verb as program name in its messages.

    runpy cannot be used, because it sets ``sys.argv[0]`` to the path of the program.
    """
    path = tools_folder() / f"{VERBS[verb][0]}.py"
    previous, sys.argv = sys.argv, [f"dap {verb}", *arguments]
    try:
        code = compile(path.read_text(encoding="utf-8"), path, "exec")
        exec(code, {"__name__": "__main__", "__file__": str(path)})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    finally:
        sys.argv = previous
    return 0


def train(verb: str, arguments: Sequence[str]) -> int:
    """Train configs with MMDetection, one after the other; compare them if there are several."""
    configs, options, gpus = split_arguments(arguments)
    if not configs or not {"-h", "--help"}.isdisjoint(options):
        several = verb == "finetune"
        more, end = ("[CONFIG …] ", _SEVERAL) if several else ("", "")
        print(_TRAINING.format(verb=verb, more=more, end=end))
        return 0 if configs or options else 2
    if len(configs) > 1 and (verb == "pretrain" or _value(options, "--work-dir")):
        print(f"dap {verb}: {len(configs)} configs with one work directory; expected one config, "
              "or no --work-dir", file=sys.stderr)  # fmt: skip
        return 2
    for config in configs:
        print(f"training {config}", flush=True)
        filters = filter(None, [os.environ.get("PYTHONWARNINGS"), f"ignore:{_WARNING}"])
        environment = {**os.environ, "PYTHON": sys.executable, "PYTHONWARNINGS": ",".join(filters)}
        command = training_command(config, resume_options(config, options), gpus)
        status = subprocess.run(command, env=environment).returncode
        if status:
            return status
    if len(configs) > 1:
        return run_tool("compare", [work_dir(config, options) for config in configs])
    return 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Split the arguments of a training into configs, options of train.py, and GPUs.

    Configs come first, up to the first option.

    Raises:
        SystemExit: If ``--gpus`` has no number.
    """
    words = list(arguments)
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    configs, options, gpus = words[:first], words[first:], "1"
    if "--gpus" in options:
        index = options.index("--gpus")
        gpus = "".join(options[index + 1 : index + 2])
        del options[index : index + 2]
    if not gpus.isdigit() or int(gpus) < 1:
        sys.exit(f"error: --gpus: found {gpus!r}, expected a number from 1")
    return configs, options, int(gpus)


def resume_options(config: str, options: Sequence[str]) -> list[str]:
    """Remove ``--resume`` if a training that starts from ``load_from`` has not begun.

    With ``--resume``, MMEngine ignores ``load_from`` even if there is nothing to resume.
    """
    options = list(options)
    if "--resume" not in options:
        return options
    index = options.index("--resume")
    following = options[index + 1 :]
    if following and not following[0].startswith("-"):  # a checkpoint
        return options
    from mmengine.config import Config  # takes seconds

    settings = dict(word.split("=", 1) for word in options if "=" in word)
    read = Config.fromfile(config)
    folder = _value(options, "--work-dir") or settings.get("work_dir") or read.get("work_dir")
    folder = folder or f"work_dirs/{Path(config).stem}"
    starts = settings.get("load_from") or read.get("load_from")
    if not starts or (Path(folder) / "last_checkpoint").exists():
        return options
    print(f"{folder} has no checkpoint to resume: the training starts from {starts}", flush=True)
    return [*options[:index], *following]


def training_command(config: str, options: Sequence[str], gpus: int) -> list[str]:
    """Build the command that trains a config, in one process or several."""
    if gpus > 1:
        script = str(tools_folder() / "dist.sh")
        return ["bash", script, "train", str(gpus), config, *options]
    return [sys.executable, "-m", "dap.launch", "mmdet", "train", config, *options]


def work_dir(config: str, options: Sequence[str] = ()) -> str:
    """Work directory of a training: from its options, its config, or the name of the config."""
    if given := _value(options, "--work-dir"):
        return given
    path = Path(config)
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            target = statement.targets[0]
            if isinstance(target, ast.Name) and target.id == "work_dir":
                return str(statement.value.value)
    return f"work_dirs/{path.stem}"


def next_step(verb: str, arguments: Sequence[str]) -> str:
    """Command, or two in separate lines, that usually follows a verb; empty if there is none."""
    first = next((word for word in arguments if not word.startswith("-")), "")
    if verb == "boxes":
        out = _value(arguments, "--out")
        classifier = arguments[:2]  # CONFIG CHECKPOINT, unless options come first
        is_known = len(classifier) == 2 and not any(word.startswith("-") for word in classifier)
        maps = ["--maps", *classifier] if is_known else []
        return (
            f"{shlex.join(['dap', 'look', out, *maps])}\nthen: {_new_config_command(out)}"
            if out
            else ""
        )
    if verb == "look":
        return _new_config_command(first)
    if verb == "doctor":
        return "dap boxes CONFIG CHECKPOINT --images FOLDER --out work_dirs/boxes"
    if verb == "pretrain":
        name = Path(first).name.removeprefix("pretrain_").removesuffix(".py")
        pair = [Path(first).with_name(f"finetune_{name}_{kind}.py") for kind in ("cls", "dap")]
        return f"dap finetune {shlex.join(map(str, pair))}" if all(map(Path.is_file, pair)) else ""
    return ""


def _new_config_command(boxes: str) -> str:
    return f"dap new-config DETECTOR {shlex.quote(boxes)} --finetune DATA"


def _value(arguments: Sequence[str], option: str) -> str:
    """Value of an option, as the next argument or after an equals sign."""
    for number, word in enumerate(arguments):
        if word == option:
            return "".join(arguments[number + 1 : number + 2])
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


if __name__ == "__main__":
    sys.exit(main())
