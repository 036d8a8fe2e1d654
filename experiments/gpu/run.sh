#!/bin/bash
# One call on a machine with a GPU and no network, which has a kit (see kit.sh) or parts of it:
# run.sh first | smoke [SECONDS] | PART [SECONDS] [OPTIONS]; PART is check, miniature, sentences, genrm or policy
#   first       keep what has come (also a piece of the larger model), install it, nothing else
#   smoke       every part at tiny size on the card: a wrong import, dtype or kernel shows within a minute
#   check       check.py; OPTIONS are its own
#   miniature   miniature.py
#   sentences   sentences.py, with nothing beside it; OPTIONS are its own
#   genrm       genrm.py with the larger model, with nothing beside it; OPTIONS: --data and its own
#   policy      policy.py with the larger model; OPTIONS: --data, --judge and its own
# KIT holds code/, first/ and second/, or the parts that travel this time: what an earlier call has brought stays in
# TMP_DIR. OUT gets the results.
set -o pipefail
begun=$(date +%s)
KIT=${KIT:-.gpu}; OUT=${OUT:-/tmp/gpu-out}; TMP=${TMP_DIR:-/tmp/gpu}; PY=${PY:-python3}
mkdir -p "$OUT" "$TMP/pieces"; OUT=$(cd "$OUT" && pwd); TMP=$(cd "$TMP" && pwd)
[ ! -d "$KIT/first" ] || { cp "$KIT/first/weights.part1" "$TMP/pieces/"; cp -r "$KIT/first/wheels" "$KIT/first/base.tar.xz" "$TMP/"; }
[ ! -d "$KIT/second" ] || cp "$KIT/second/weights.part2" "$TMP/pieces/"
[ ! -d "$KIT/pieces" ] || { mkdir -p "$TMP/model"; cp "$KIT"/pieces/*/model.* "$TMP/model/"; }
[ -d "$TMP/site/trl" ] || $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$TMP/site" "$TMP"/wheels/*.whl || exit 1
rm -rf "$TMP/code"; cp -r "$KIT/code" "$TMP/" || exit 1
tar -xJf "$TMP/base.tar.xz" -C "$TMP/code/fapo/data/miniature" || exit 1
export PYTHONPATH=$TMP/site:$TMP/code PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export CUDA_MODULE_LOADING=LAZY USE_JAX=0 USE_TF=0 XLA_PYTHON_CLIENT_PREALLOCATE=false
export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 HF_DATASETS_CACHE=$TMP/datasets OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
cd "$TMP" || exit 1
# the cache of generate() grows in pieces of memory that can be extended; some drivers have none
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
$PY -c 'import torch; torch.zeros(1 << 26, device="cuda" if torch.cuda.is_available() else "cpu")' || unset PYTORCH_CUDA_ALLOC_CONF
nvidia-smi --query-gpu=name,memory.used,memory.total,driver_version --format=csv,noheader 2>/dev/null

what=$1; shift
seconds=560
[[ "$1" =~ ^[0-9]+$ ]] && { seconds=$1; shift; }
left() { echo $(( seconds - ($(date +%s) - begun) )); }
base=${BASE:-$TMP/smollm2}
model() { # in the background: what needs the model waits for it
    $PY -m experiments.gpu.common $(ls "$TMP"/pieces/* | sort) "$base" >"$TMP/weights.log" 2>&1 &
}
run() { $PY -m "experiments.gpu.$1" --out "$OUT" "${@:2}" 2>&1 | grep --line-buffered -v "Loading weights" | cut -c1-2000; }

case $what in
first) ;;
smoke)
    $PY -m experiments.gpu.common --stand-in "$TMP/stand-in" || exit 1
    kept=$OUT; OUT=$TMP/smoke; mkdir -p "$OUT" "$kept/smoke"; tiny=(--tiny --seconds "$(left)")
    run check --base "$TMP/stand-in" "${tiny[@]}" >"$TMP/check.log" &
    run miniature --work "$OUT/miniature" "${tiny[@]}" >"$TMP/mini.log" &
    run sentences all --work "$OUT/work" --base "$TMP/stand-in" "${tiny[@]}"
    wait
    tail -40 "$TMP/check.log" | cut -c1-700; tail -12 "$TMP/mini.log" | cut -c1-300
    cp "$OUT"/*.* "$kept/smoke"; OUT=$kept/smoke ;;
check)
    model; run check --base "$base" --seconds $(( $(left) - 15 )) "$@"; tail -1 "$TMP/weights.log" ;;
miniature)
    run miniature --work "$TMP/miniature" --seconds $(( $(left) - 6 )) "$@" ;;
sentences)
    model; OMP_NUM_THREADS=2 run sentences all --work "$TMP/sentences" --base "$base" --seconds $(( $(left) - 6 )) "$@"
    tail -1 "$TMP/weights.log" ;;
genrm | policy)
    large=$TMP/large
    [ -d "$large" ] || { cat "$TMP"/model/model.* >"$TMP/model.gguf"; $PY -m experiments.real_model.from_gguf "$TMP/model.gguf" "$large" --dtype bfloat16 || exit 1; }
    OMP_NUM_THREADS=2 run "$what" --work "$TMP/$what" --base "$large" --seconds $(( $(left) - 6 )) "$@" ;;
*) sed -n '2,13p' "$0"; exit 2 ;;
esac
ls -la "$OUT"
echo "$what: $(( $(date +%s) - begun )) s"
