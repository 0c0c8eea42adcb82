"""Reproduce a table or figure of the paper: boxes → pre-train → extract → fine-tune → test.

    python tools/reproduce.py list
    python tools/reproduce.py table2 --only 07 dap-in1k --dry-run
    python tools/reproduce.py table2 --gpus 8 --seeds 0 1 2
    python tools/reproduce.py table1 --launcher slurm --partition gpu --gpus 64

Data is expected where the configs say: data/imagenet, data/VOCdevkit, data/coco, … The same call
again goes on where it stopped; steps that other tables share are run once.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.experiments import (
    ConfigTree,
    Launcher,
    Plan,
    find_experiment,
    list_experiments,
    report,
    reproduce,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="list, table1 … table10, tableA1, figure3, …")
    parser.add_argument("--only", nargs="+", default=[], help="rows with all these words")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="default: one, unseeded")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    parser.add_argument("--report", action="store_true", help="print the table so far, run nothing")
    parser.add_argument("--gpus", type=int, default=1, help="in all")
    parser.add_argument(
        "--batch-per-gpu", type=int, help="at most; default: 32, of a classifier 256"
    )
    parser.add_argument("--launcher", choices=("pytorch", "slurm"), default="pytorch")
    parser.add_argument("--partition", default="", help="of Slurm")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="of Slurm")
    parser.add_argument("--iterations", type=int, help="of k-shot fine-tunings")
    parser.add_argument("--work-dir", default="work_dirs", help="folder of all results")
    parser.add_argument(
        "--configs", help="folder with configs of one's own in place of those of DAP"
    )
    return parser.parse_args()


def main() -> None:
    """List the experiments, or run one."""
    args = parse_args()
    try:
        configs = ConfigTree(args.configs)
        if args.name == "list":
            print(list_experiments(configs))
            return
        launcher = Launcher(args.gpus, args.launcher, args.partition, args.gpus_per_node)
        plan = Plan(configs, launcher, args.work_dir, args.batch_per_gpu, args.iterations)
        experiment = find_experiment(args.name)
        if args.report:
            text = report(experiment, experiment.select(args.only), plan, args.seeds or [None])
        else:
            text = reproduce(experiment, plan, args.only, args.seeds, args.dry_run)
        print(text, end="\n" if text else "")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
