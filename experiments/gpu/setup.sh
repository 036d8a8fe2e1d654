# Sourced by run.sh and session.sh on a machine with a GPU: keep what has come of the kit, install it, set the environment.
# KIT holds parts of the kit (see kit.sh); what an earlier call has brought stays in TMP_DIR. OUT gets the results.
KIT=${KIT:-.gpu}; OUT=${OUT:-/tmp/gpu-out}; TMP=${TMP_DIR:-/tmp/gpu}; PY=${PY:-python3}
mkdir -p "$OUT" "$TMP/small" "$TMP/pieces" "$TMP/logs"; OUT=$(cd "$OUT" && pwd); TMP=$(cd "$TMP" && pwd)
take() { # keep what has come
    [ ! -d "$KIT/code" ] || { rm -rf "$TMP/code"; cp -r "$KIT/code" "$TMP/"; }
    [ ! -d "$KIT/first" ] || cp -r "$KIT/first/." "$TMP/"
    take_pieces
}
take_pieces() { # keep new pieces; one appears when it is complete
    local piece kind
    for kind in small pieces; do
        for piece in "$KIT/$kind"/*/part.*; do
            [ ! -e "$piece" ] || [ -e "$TMP/$kind/$(basename "$piece")" ] \
                || { cp "$piece" "$TMP/$kind/coming" && mv "$TMP/$kind/coming" "$TMP/$kind/$(basename "$piece")"; }
        done
    done
}
install_kit() { # install what is not there yet
    local pip=($PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade)
    [ -d "$TMP/site/trl" ] || "${pip[@]}" --target "$TMP/site" "$TMP"/wheels/*.whl || return 1
    [ -d "$TMP/site-newer" ] || ! compgen -G "$TMP/newer/*.whl" >/dev/null \
        || "${pip[@]}" --target "$TMP/site-newer" "$TMP"/newer/*.whl || return 1
    tar -xJf "$TMP/base.tar.xz" -C "$TMP/code/fapo/data/miniature"
}
use() { # newer | own: the transformers of the kit, or that of the machine
    PYTHONPATH=$TMP/site:$TMP/code
    [ "$1" = own ] || [ ! -d "$TMP/site-newer" ] || PYTHONPATH=$TMP/site-newer:$PYTHONPATH
    export PYTHONPATH
}
come() { # small | pieces: whether all pieces have come
    [ -e "$TMP/$1.expected" ] && [ "$(find "$TMP/$1" -name 'part.*' | wc -l)" -ge "$(cat "$TMP/$1.expected")" ]
}
small_model() { # write SmolLM2 to $1, unless it is there
    $PY -m experiments.gpu.common $(ls "$TMP"/small/part.* | sort) "$1" >"$TMP/logs/small.log" 2>&1
}
large_model() { # write the larger model to $1, unless it is there
    [ -d "$1" ] && return
    cat "$TMP"/pieces/part.* >"$TMP/model.gguf"
    $PY -m experiments.real_model.from_gguf "$TMP/model.gguf" "$1" --dtype bfloat16 >"$TMP/logs/large.log" 2>&1
}
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false CUDA_MODULE_LOADING=LAZY
export USE_JAX=0 USE_TF=0 XLA_PYTHON_CLIENT_PREALLOCATE=false TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
export HF_DATASETS_CACHE=$TMP/datasets OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
extend_memory() { # the cache of generate() grows in pieces of memory that can be extended; some drivers have none
    export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
    $PY -c 'import torch; torch.zeros(1 << 26, device="cuda" if torch.cuda.is_available() else "cpu")' || unset PYTORCH_CUDA_ALLOC_CONF
}
