#!/usr/bin/env bash
# What jaxclust does on this machine's GPU, within so many minutes, kept in a folder.
#
#   launch/gpu_check.sh                      # 15 minutes, into gpu_check
#   launch/gpu_check.sh 120 gpu_check        # what was not done yet, and training goes on from where it was
#   launch/gpu_check.sh 15 gpu_check --config.data.dir=DATA     # what follows goes to all that has a config
#
# Two thirds of the time are for steps and the comparison with PyTorch, the rest is for training. Each part writes NAME.log
# as it goes, and NAME.done when it is whole; one that is cut off is tried again by the same command.
if [[ ! ${1-15} =~ ^[1-9][0-9]*$ || ${2-} == -* ]]; then
  echo "usage: launch/gpu_check.sh [MINUTES [FOLDER [--config.SETTING=VALUE ...]]]" >&2
  exit 2
fi
seconds=$((60 * ${1-15}))
folder=${2-gpu_check}
shift $(($# < 2 ? $# : 2))
methods=(cc tcc mmdc anchor)

gpus=$(python -c 'import jax; print(*(d.device_kind for d in jax.devices() if d.platform == "gpu"), sep=", ")') || exit
if [[ ! $gpus ]]; then
  echo "gpu_check: JAX sees no GPU here; if nvidia-smi shows one: pip install 'jaxclust[cuda13]', or cuda12 for an older driver" >&2
  exit 2
fi
echo "$gpus"
mkdir -p "$folder" || exit
{ date -u && nvidia-smi && python -m pip freeze; } > "$folder/machine.txt" 2>&1
trap 'exit 130' INT
trap 'exit 143' TERM

# limited NAME SECONDS COMMAND...: its output goes to NAME.log. SIGTERM ends it, on which training saves.
limited() {
  local name=$1 limit=$2
  shift 2
  if ((limit <= 0)); then
    echo "$name: no time left"
    return 1
  fi
  echo "$name: $limit s at most"
  timeout --foreground --kill-after=60 "$limit" "$@" >> "$folder/$name.log" 2>&1
  local code=$?
  case $code in
    0) ;;
    124) echo "$name: cut off" ;;
    *) echo "$name: ended with code $code, see $folder/$name.log" ;;
  esac
  return "$code"
}

# part NAME SECONDS COMMAND...: the same, unless it was whole before.
part() {
  if [[ -e $folder/$1.done ]]; then
    echo "$1: done before"
  else
    limited "$@" && touch "$folder/$1.done"
  fi
}

for method in "${methods[@]}"; do
  for dtype in bfloat16 float32; do
    name=steps_${method}_$dtype
    part "$name" $((seconds * 2 / 3 - SECONDS)) python -m jaxclust.main --mode=bench --steps \
      --config="configs/cifar10_$method.py" "$@" --config.net.dtype=$dtype --json="$folder/$name.json"
  done
done

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  part against_torch $((seconds * 2 / 3 - SECONDS)) \
    python -m jaxclust.main --mode=bench --against=torch --json="$folder/against_torch.json"
else
  echo "against_torch: left out, PyTorch with CUDA is not installed"
fi

# Each gets its share of what is left, but no less than three minutes; a fifth of it is for scores.
left=${#methods[@]}
for method in "${methods[@]}"; do
  rest=$((seconds - SECONDS))
  share=$((rest / left > 180 ? rest / left : rest < 180 ? rest : 180))
  until=$((SECONDS + share))
  part "train_$method" $((share * 4 / 5)) python -m jaxclust.main \
    --config="configs/cifar10_$method.py" "$@" --workdir="$folder/$method" ||
    limited "scores_$method" $((until - SECONDS)) python -m jaxclust.main --mode=evaluate --workdir="$folder/$method"
  left=$((left - 1))
done
echo "kept in $folder; the same command does what is missing there"
