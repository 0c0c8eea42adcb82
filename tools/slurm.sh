#!/usr/bin/env bash
# Run train or test of MMDetection, or pseudo boxes, as a Slurm job, one process a GPU:
#   tools/slurm.sh train|test|boxes PARTITION JOB_NAME CONFIG [ARGUMENTS]
# GPUS (8 in all), GPUS_PER_NODE (8, or GPUS if that is less), CPUS_PER_TASK (5), SRUN_ARGS (more
# options for srun), PORT (by default one that follows from the ID of the Slurm job). For a classifier:
# PACKAGE=mmpretrain. Another interpreter: PYTHON. Within a job (sbatch, salloc) it is a step of that job.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: tools/slurm.sh TOOL PARTITION JOB_NAME CONFIG [ARGUMENTS]" >&2
    exit 2
fi
program=(-m dap.launch "${PACKAGE:-mmdet}" "$1")
if [ "$1" = boxes ]; then program=("$(dirname "$0")/generate_pseudo_boxes.py"); fi
gpus="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
if [ -n "${PORT:-}" ]; then export MASTER_PORT="$PORT"; fi # MMEngine looks for it
# shellcheck disable=SC2086  # SRUN_ARGS are several words
exec srun \
    --partition="$2" \
    --job-name="$3" \
    --gres="gpu:$per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "${program[@]}" "${@:4}" --launcher slurm
