#!/usr/bin/env bash
# Run train or test of MMDetection, or pseudo boxes, in several processes, one a GPU (or on CPUs, if
# there is none):
#   tools/dist.sh train|test|boxes PROCESSES CONFIG [ARGUMENTS]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT. On one machine the port is a free one, unless
# PORT names one.
# For a classifier: PACKAGE=mmpretrain. Another interpreter: PYTHON.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: tools/dist.sh TOOL PROCESSES CONFIG [ARGUMENTS]" >&2
    exit 2
fi
program=(-m dap.launch "${PACKAGE:-mmdet}" "$1")
if [ "$1" = boxes ]; then program=("$(dirname "$0")/generate_pseudo_boxes.py"); fi
rendezvous=(--rdzv-backend=c10d --rdzv-endpoint=localhost:0 --local-addr=localhost)
if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
    rendezvous=(--node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}"
        --master-port="${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    "${rendezvous[@]}" \
    --nproc-per-node="$2" \
    "${program[@]}" "${@:3}" --launcher pytorch
