#!/usr/bin/env bash
# Say how a job of Slurm stands, in the words that Snakemake's generic executor knows. A controller that is too busy to
# answer does not make a job fail: it would be submitted again beside itself.
answer=$(squeue --noheader --states=all --jobs="$1" --format=%T 2>&1)
case "$answer" in
  COMPLETED) echo success ;;
  BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | PREEMPTED | TIMEOUT) echo failed ;;
  "" | *"Invalid job id"*) echo failed ;; # forgotten by now
  *) echo running ;;
esac
