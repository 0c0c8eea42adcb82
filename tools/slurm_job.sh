#!/usr/bin/env bash
# A batch job of `tools/reproduce.py --submit`: tools/slurm_job.sh COMMAND
# Slurm sends USR1 shortly before the time is over: the job is queued again, and its command, which goes
# on where it was, begins anew. RESTARTS (50): how often at most.
set -uo pipefail

queue_again() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${RESTARTS:-50}" ]; then
        echo "slurm_job.sh: queued again ${SLURM_RESTART_COUNT} times; it ends with its time" >&2
        return
    fi
    echo "slurm_job.sh: the time is nearly over; the job is queued again" >&2
    scontrol requeue "$SLURM_JOB_ID"
}
trap queue_again USR1
"$@" &
child=$!
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends wait, not the command
    wait "$child"
    code=$?
done
exit "$code"
