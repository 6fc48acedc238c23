#!/usr/bin/env bash
# N processes of one run on this machine, each with a GPU of its own where there are GPUs.
#
#   launch/local.sh 2 --config=configs/cifar10_anchor.py --workdir=runs/mine
#
# One process drives all GPUs of a machine, so this is for trying out what several machines do.
if [[ ! ${1-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh N --config=FILE ...    N is the number of processes" >&2
  exit 2
fi
n=$1
shift
((n > 1)) || exec python -m jaxclust.main "$@"

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES-}"

# Job control gives each process a group of its own. Otherwise bash starts them deaf to Ctrl-C.
set -m
for signal in TERM USR1 INT; do
  trap "signalled=yes; kill -$signal \$(jobs -rp) 2>/dev/null" $signal
done
for ((i = 0; i < n; i++)); do
  CUDA_VISIBLE_DEVICES=${gpus[i]-$i} python -m jaxclust.main \
    --coordinator="127.0.0.1:$port" --num_processes="$n" --process_id="$i" "$@" &
done

# The code of the first that failed: the others fail because of it.
code=0
while ((n)); do
  signalled=
  wait -n
  status=$?
  [[ $signalled ]] && continue # a signal came, and no process has ended
  ((--n))
  ((code)) || code=$status
done
exit "$code"
