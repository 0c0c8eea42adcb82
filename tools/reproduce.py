"""Reproduce a table or figure of the paper: boxes → pre-train → extract → fine-tune → test.

    python tools/reproduce.py list
    python tools/reproduce.py table2 --only 07 dap-in1k --dry-run
    python tools/reproduce.py table2 --gpus 8 --seeds 0 1 2
    python tools/reproduce.py table1 --launcher slurm --partition gpu --gpus 64
    python tools/reproduce.py table1 --submit --partition gpu --gpus 16 --time 1-0 --seeds 0 1 2

Data is expected in the folders of the configs: data/imagenet, data/VOCdevkit, data/coco, … The same
command resumes an interrupted run; steps that several tables share are run once. With --submit,
each step becomes a job in Slurm's queue that depends on earlier ones, and the command ends.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.experiments import (
    ConfigTree,
    Plan,
    find_experiment,
    list_experiments,
    report,
    reproduce,
    run_one,
)
from dap.jobs import Launcher, Submission, training_options


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", help="list, table1 … table10, tableA1, figure3, …")
    add("--only", nargs="+", default=[], help="run only the rows with all these words")
    add("--seeds", nargs="+", type=int, default=[], help="default: one run without a seed")
    add("--dry-run", action="store_true", help="only print the commands")
    add("--report", action="store_true", help="only print the table of the finished steps")
    add("--gpus", type=int, default=1, help="total number; with --submit: per job")
    add(
        "--gpus-per-job",
        type=int,
        help="maximum per step; steps run in parallel if they fit; default: all",
    )
    add("--batch-per-gpu", type=int, help="maximum; default: 32, for classifiers 256")
    add("--amp", action="store_true", help="mixed precision in all trainings")
    add("--cfg-options", nargs="+", default=[], help="KEY=VALUE … for all trainings")
    add("--vis-backends", nargs="+", default=[], metavar="TYPE", help="visualization backends "
        "of all trainings, for example TensorboardVisBackend, WandbVisBackend")  # fmt: skip
    add("--launcher", choices=("pytorch", "slurm"), default="pytorch")
    add("--partition", default="", help="partition of Slurm")
    add("--gpus-per-node", type=int, default=8, help="with Slurm; default: 8")
    add("--submit", action="store_true", help="submit the steps to Slurm's queue")
    add("--time", default="", help="with --submit: time limit of a job; a second job resumes it")
    add("--sbatch-args", default="", help="with --submit: more options, '--account=a --mem=64G'")
    add("--job", help="run only the step with this name")
    add("--iterations", type=int, help="iterations of k-shot fine-tunings")
    add("--work-dir", default="work_dirs", help="folder of all results")
    add("--configs", help="folder of your own configs, instead of those of DAP")
    return parser


def repeated(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the arguments of this command that a submitted job needs."""
    yield args.name
    for option, value in vars(args).items():
        for_submission = option in ("name", "submit", "time", "sbatch_args", "dry_run", "job")
        if for_submission or value == parser.get_default(option):
            continue
        yield f"--{option.replace('_', '-')}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


def main() -> None:
    """List the experiments, or run one."""
    parser = make_parser()
    args = parser.parse_args()
    if args.submit:
        args.launcher = "slurm"
    try:
        configs = ConfigTree(args.configs)
        if args.name == "list":
            print(list_experiments(configs))
            return
        per_job = min(args.gpus, args.gpus_per_job or args.gpus)
        launcher = Launcher(per_job, args.launcher, args.partition, args.gpus_per_node)
        plan = Plan(
            configs,
            launcher,
            args.work_dir,
            args.batch_per_gpu,
            args.iterations,
            args.amp,
            training_options(args.cfg_options, args.vis_backends),
        )
        experiment = find_experiment(args.name)
        text = ""
        if args.report:
            text = report(experiment, experiment.select(args.only), plan, args.seeds or [None])
        elif args.job:
            run_one(experiment, plan, args.job, args.only, args.seeds)
        else:
            call = (sys.executable, __file__, *repeated(args, parser))
            submission = Submission(call, args.time, tuple(shlex.split(args.sbatch_args)))
            submit = submission if args.submit else None
            text = reproduce(
                experiment, plan, args.only, args.seeds, args.dry_run, args.gpus, submit
            )
        print(text, end="\n" if text else "")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
