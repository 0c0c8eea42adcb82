#!/usr/bin/env bash
# Run train or test of MMDetection as a Slurm job, one process a GPU:
#   tools/slurm.sh TOOL PARTITION JOB_NAME CONFIG [ARGUMENTS]
# GPUS (8 in all), GPUS_PER_NODE (8, or GPUS if that is less), CPUS_PER_TASK (5), SRUN_ARGS (more
# options for srun). A second run on the same machines: PORT. For a classifier: PACKAGE=mmpretrain.
# Another interpreter: PYTHON.
# Pseudo boxes need no script of their own:
#   srun -p PARTITION --gres=gpu:8 --ntasks=8 --ntasks-per-node=8 --cpus-per-task=5 \
#     --kill-on-bad-exit=1 \
#     python -u tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --out DIR --launcher slurm
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: tools/slurm.sh TOOL PARTITION JOB_NAME CONFIG [ARGUMENTS]" >&2
    exit 2
fi
gpus="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
export MASTER_PORT="${PORT:-${MASTER_PORT:-29500}}" # MMEngine looks for it; the host it asks Slurm
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
    "${PYTHON:-python}" -u -m dap.launch "${PACKAGE:-mmdet}" "$1" "${@:4}" --launcher slurm
