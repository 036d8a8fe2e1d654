#!/bin/bash
# Build the kit: one folder with all that a machine without network needs, in parts that can travel one at a time.
# kit.sh KIT WEIGHTS.xz [MODEL.gguf]
#   KIT            folder to write; an earlier kit in it keeps its wheels
#   WEIGHTS.xz     the compressed GGUF file of SmolLM2 (README.md says how to make it)
#   MODEL.gguf     a larger model, for genrm.py and policy.py
#   PIECE_BYTES    size of a piece of these two files (46000000)
#   DATA           files of ProcessBench and of questions, for genrm.py and policy.py
# Written: KIT/code (fapo without the miniature's base models, and experiments), KIT/first (wheels, base models, data),
# KIT/small/NN and KIT/pieces/NN (one folder for each piece of WEIGHTS.xz and of MODEL.gguf).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,10p' "$0"; exit 2; }
KIT=$1 WEIGHTS=$2 MODEL=${3:-}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
BASE=src/fapo/data/miniature/base
# packages that a machine with torch, transformers and accelerate may lack, and its Python
PACKAGES=${PACKAGES:-"math-verify latex2sympy2-extended antlr4-python3-runtime pydantic pydantic-core annotated-types
    typing-inspection typing-extensions tyro typeguard docstring-parser pebble trl peft datasets dill multiprocess gguf"}
# the transformers for which fapo's decoding is written; setup.sh installs it apart, since the machine has another one
NEWER=${NEWER:-transformers}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
rm -rf "$KIT/code" "$KIT/small" "$KIT/pieces" "$KIT/first/data"
mkdir -p "$KIT/code/experiments" "$KIT/first/wheels" "$KIT/first/newer" "$KIT/first/data"
cp -r "$ROOT/src/fapo" "$KIT/code/"
rm -rf "$KIT/code/fapo/data/miniature/base"
cp "$ROOT/experiments/__init__.py" "$KIT/code/experiments/"
for folder in base_models real_model gpu; do cp -r "$ROOT/experiments/$folder" "$KIT/code/experiments/"; done
rm -rf "$KIT"/code/experiments/{gpu,real_model}/results
find "$KIT/code" -name __pycache__ -prune -exec rm -rf {} +
tar -cJf "$KIT/first/base.tar.xz" -C "$ROOT/$(dirname $BASE)" base
for file in ${DATA:-}; do cp "$file" "$KIT/first/data/"; done
pieces() { # FILE FOLDER: one folder for each piece
    mkdir -p "$KIT/$2"
    split -b "${PIECE_BYTES:-46000000}" -d "$1" "$KIT/$2/part."
    for piece in "$KIT/$2"/part.*; do mkdir "$KIT/$2/${piece##*.}"; mv "$piece" "$KIT/$2/${piece##*.}/"; done
    find "$KIT/$2" -name 'part.*' | wc -l >"$KIT/first/$2.expected"
}
rm -f "$KIT"/first/*.expected
pieces "$WEIGHTS" small
[ -z "$MODEL" ] || pieces "$MODEL" pieces
download() { # FOLDER PACKAGE ...
    "${PY:-python3}" -m pip download -q --no-deps --only-binary :all: --python-version "$PYTHON_VERSION" \
        --platform manylinux2014_x86_64 -c "$ROOT/requirements/constraints.txt" -d "$KIT/first/$1" "${@:2}"
}
# shellcheck disable=SC2086  # lists
[ -n "$(ls "$KIT/first/wheels")" ] || { download wheels $PACKAGES; download newer $NEWER; }
du -sh "$KIT"/*
