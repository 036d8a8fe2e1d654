#!/bin/bash
# Build the kit: one folder with all that a machine without network needs, in parts that can travel one at a time.
# kit.sh KIT WEIGHTS.xz [FIRST_BYTES] [MODEL.gguf]
#   KIT            folder to write; an earlier kit in it keeps its wheels
#   WEIGHTS.xz     the compressed GGUF file of SmolLM2 (README.md says how to make it)
#   FIRST_BYTES    bytes of the weights that travel with the first part (39000000)
#   MODEL.gguf     a larger model, for genrm.py and policy.py; it travels in pieces, each of which can go alone
# Written: KIT/code (fapo without the miniature's base models, and experiments), KIT/first (wheels, base models, part of
# the weights), KIT/second (the rest of the weights), KIT/pieces/NN (one folder for each piece of the larger model).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9p' "$0"; exit 2; }
KIT=$1 WEIGHTS=$2 FIRST_BYTES=${3:-39000000} MODEL=${4:-}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
BASE=src/fapo/data/miniature/base
# packages that a machine with torch, transformers and accelerate may lack, and its Python
PACKAGES=${PACKAGES:-"math-verify latex2sympy2-extended antlr4-python3-runtime pydantic pydantic-core annotated-types
    typing-inspection typing-extensions tyro typeguard docstring-parser pebble trl peft datasets dill multiprocess gguf"}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
rm -rf "$KIT/code" "$KIT/second" "$KIT/pieces"
mkdir -p "$KIT/code/experiments" "$KIT/first/wheels" "$KIT/second"
cp -r "$ROOT/src/fapo" "$KIT/code/"
rm -rf "$KIT/code/fapo/data/miniature/base"
cp "$ROOT/experiments/__init__.py" "$KIT/code/experiments/"
for folder in base_models real_model gpu; do cp -r "$ROOT/experiments/$folder" "$KIT/code/experiments/"; done
rm -rf "$KIT/code/experiments/gpu/results"
find "$KIT/code" -name __pycache__ -prune -exec rm -rf {} +
tar -cJf "$KIT/first/base.tar.xz" -C "$ROOT/$(dirname $BASE)" base
head -c "$FIRST_BYTES" "$WEIGHTS" >"$KIT/first/weights.part1"
tail -c +$((FIRST_BYTES + 1)) "$WEIGHTS" >"$KIT/second/weights.part2"
if [ -n "$MODEL" ]; then
    mkdir "$KIT/pieces"
    split -b "${PIECE_BYTES:-60000000}" -d "$MODEL" "$KIT/pieces/model."
    for piece in "$KIT/pieces"/model.*; do mkdir "$KIT/pieces/${piece##*.}"; mv "$piece" "$KIT/pieces/${piece##*.}/"; done
fi
if [ -z "$(ls "$KIT/first/wheels")" ]; then
    # shellcheck disable=SC2086  # a list
    "${PY:-python3}" -m pip download -q --no-deps --only-binary :all: --python-version "$PYTHON_VERSION" \
        --platform manylinux2014_x86_64 -c "$ROOT/requirements/constraints.txt" -d "$KIT/first/wheels" $PACKAGES
fi
du -sh "$KIT"/*
