#!/usr/bin/env bash
# Run train or test of MMDetection, or pseudo boxes, in several processes, one a GPU (or on CPUs, if
# there is none):
#   tools/dist.sh train|test|boxes PROCESSES CONFIG [ARGUMENTS]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT. A second run on one machine: PORT.
# For a classifier: PACKAGE=mmpretrain. Another interpreter: PYTHON.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: tools/dist.sh TOOL PROCESSES CONFIG [ARGUMENTS]" >&2
    exit 2
fi
program=(-m dap.launch "${PACKAGE:-mmdet}" "$1")
if [ "$1" = boxes ]; then program=("$(dirname "$0")/generate_pseudo_boxes.py"); fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "${program[@]}" "${@:3}" --launcher pytorch
