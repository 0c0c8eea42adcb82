#!/usr/bin/env bash
# A batch job of `tools/reproduce.py --submit`: tools/slurm_job.sh COMMAND
# Slurm sends USR1 shortly before the time is over: the job is queued again, and its command, which goes
# on where it was, begins anew. So is a job that is preempted. RESTARTS (50): how often at most.
set -uo pipefail

queue_again() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${RESTARTS:-50}" ]; then
        echo "slurm_job.sh: queued again ${SLURM_RESTART_COUNT} times; it ends with its time" >&2
        return
    fi
    echo "slurm_job.sh: its time is nearly over, or it is preempted; the job is queued again" >&2
    scontrol requeue "$SLURM_JOB_ID"
}

is_preempted() {
    scontrol show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=[0-9]'
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
# With a grace time, Slurm ends the steps of a preempted job first, and only later the job.
if [ "$code" -ne 0 ] && is_preempted; then
    queue_again
    sleep 600 # Slurm ends this script, too
fi
exit "$code"
