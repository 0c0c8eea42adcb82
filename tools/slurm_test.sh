#!/usr/bin/env bash
# Test a detector as a Slurm job, see slurm.sh: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS]
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS of MMDetection's test.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/slurm.sh" test "$@"
