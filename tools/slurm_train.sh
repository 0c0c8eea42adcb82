#!/usr/bin/env bash
# Train a detector as a Slurm job, see slurm.sh: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS of MMDetection's train.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/slurm.sh" train "$@"
