#!/usr/bin/env bash
# Test a detector in several processes, see dist.sh: tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS of MMDetection's test.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/dist.sh" test "$3" "$1" "$2" "${@:4}"
