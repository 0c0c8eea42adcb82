#!/usr/bin/env bash
# Train a detector in several processes, see dist.sh: tools/dist_train.sh CONFIG GPUS [ARGUMENTS]
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh CONFIG GPUS [ARGUMENTS of MMDetection's train.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/dist.sh" train "$2" "$1" "${@:3}"
