#!/bin/bash
# One call on a machine with a GPU and no network, which has a kit (see kit.sh) or parts of it:
# run.sh first | smoke [SECONDS] | PART [SECONDS] [OPTIONS]; PART is check, miniature, sentences, genrm or policy
#   first       keep what has come (also a piece of a model), install it, nothing else
#   smoke       every part at tiny size on the card: a wrong import, dtype or kernel shows within a minute
#   check       check.py; OPTIONS are its own
#   miniature   miniature.py
#   sentences   sentences.py, with nothing beside it; OPTIONS are its own
#   genrm       genrm.py with the larger model, with nothing beside it; OPTIONS: --data and its own
#   policy      policy.py with the larger model; OPTIONS: --data, --judge and its own
# TRANSFORMERS=own takes the transformers of the machine in place of the kit's.
set -o pipefail
begun=$(date +%s)
. "$(dirname "$0")/setup.sh"
take; install_kit || exit 1
use "${TRANSFORMERS:-newer}"
cd "$TMP" || exit 1
extend_memory
nvidia-smi --query-gpu=name,memory.used,memory.total,driver_version --format=csv,noheader 2>/dev/null

what=$1; shift
seconds=560
[[ "$1" =~ ^[0-9]+$ ]] && { seconds=$1; shift; }
left() { echo $(( seconds - ($(date +%s) - begun) )); }
base=${BASE:-$TMP/smollm2}
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
    tail -n 40 "$TMP/check.log" | cut -c1-700; tail -n 12 "$TMP/mini.log" | cut -c1-300
    cp "$OUT"/*.* "$kept/smoke"; OUT=$kept/smoke ;;
check) # what needs the model waits for it
    small_model "$base" & run check --base "$base" --seconds $(( $(left) - 15 )) "$@"; tail -n 1 "$TMP/logs/small.log" ;;
miniature)
    run miniature --work "$TMP/miniature" --seconds $(( $(left) - 6 )) "$@" ;;
sentences)
    small_model "$base" & OMP_NUM_THREADS=2 run sentences all --work "$TMP/sentences" --base "$base" --seconds $(( $(left) - 6 )) "$@"
    tail -n 1 "$TMP/logs/small.log" ;;
genrm | policy)
    large_model "$TMP/large" || exit 1
    OMP_NUM_THREADS=2 run "$what" --work "$TMP/$what" --base "$TMP/large" --seconds $(( $(left) - 6 )) "$@" ;;
*) sed -n '2,11p' "$0"; exit 2 ;;
esac
ls -la "$OUT"
echo "$what: $(( $(date +%s) - begun )) s"
