#!/usr/bin/env bash
# A run on SLURM that goes on by itself after a preemption and after its time limit.
#
#   sbatch launch/slurm.sh --config=configs/cifar10_anchor.py --workdir=runs/mine
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 launch/slurm.sh --config=... --workdir=...
#   sbatch --gpus-per-node=0 --ntasks-per-node=2 --cpus-per-task=8 launch/slurm.sh ...    # a cluster without GPUs
#
# What is given before the script wins over the lines below, and what is given after it goes to jaxclust. Submit with
# jaxclust's environment activated, and give a workdir (and a JAXCLUST_CACHE) that all nodes see.
#
# A task is a process, and drives all GPUs of its node. Several tasks on a node share its GPUs out among them.
#SBATCH --job-name=jaxclust
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# To the tasks, not to this shell, this long before the time limit; SLURM may be 60 s early.
#SBATCH --signal=USR1@120

# SLURM sends this shell a SIGTERM only when it ends the job itself: scancel, or a requeue that it sees to. The trap keeps
# the shell alive until the tasks have saved, and runs then.
trap 'slurm_ends_it=yes' TERM

echo "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, restarts: ${SLURM_RESTART_COUNT:-0}"
# srun does not inherit the processors of a task. A task that ends must not take the others with it: they are saving
# too, or find out by themselves that it failed.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 python -m jaxclust.main "$@"
code=$?

# 75: asked to stop, and saved. 138 and 143: the same signals, USR1 and TERM, before there was anything to save. It
# goes back into the queue, and starts again when there is room; not within two minutes, by SLURM's own rule.
if [[ $code =~ ^(75|138|143)$ && -z ${slurm_ends_it-} ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
