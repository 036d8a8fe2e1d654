#!/bin/bash
# A whole session on a machine with a GPU and no network. It works in the background while the pieces of the models come,
# one call after the other, so that the card waits for none of them:
#   session.sh start          with KIT/code and KIT/first: keep what has come, begin, return at once
#   session.sh take           with one more folder of KIT/small or KIT/pieces: keep it, show the state
#   session.sh wait SECONDS   show the state after so many seconds, or when all has ended; pack the results in OUT
#   session.sh all            with the whole kit: begin, and stay until the end
# What it does, in this order, each part in its log in TMP_DIR/logs:
#   probe      a tiny run with the kit's transformers; if that fails, the machine's own one is used
#   imitation  policy and judge of sentences.py, from START, while the larger model comes (IMITATION seconds)
#   genrm      genrm.py with nothing beside it (GENRM seconds for both runs)
#   policy     policy.py with the judge of genrm (POLICY seconds); CHANCE=no leaves it out if J of the judge is not above 0
#   sentences  the ARMS of sentences.py, in the rest of the time
# SESSION is the length of all of it, in seconds. TINY=1: a dry run. A part without seconds (GENRM=0) is left out.
set -o pipefail
SESSION=${SESSION:-760} IMITATION=${IMITATION:-70} GENRM=${GENRM:-260} POLICY=${POLICY:-165}
CHANCE=${CHANCE:-yes} START=${START:-weak} ARMS=${ARMS:-fapo first_error fapo2}
. "$(dirname "$0")/setup.sh"
begun=$(cat "$TMP/begun" 2>/dev/null || date +%s)
passed() { echo $(( $(date +%s) - begun )); }
left() { echo $(( SESSION - $(passed) )); }
say() { echo "[$(passed)] $*" >>"$TMP/logs/session.log"; }
run() { # NAME MODULE [OPTIONS]: a part, to its log
    local name=$1; shift
    say "$name begins, $(left) s left"
    OMP_NUM_THREADS=${THREADS:-2} $PY -m "experiments.gpu.$1" --out "$TMP/out" "${@:2}" ${TINY:+--tiny} >"$TMP/logs/$name.log" 2>&1
    say "$name has ended: $?"
}
until_come() { # NAME: wait for all pieces; fail when there is no time left
    until come "$1"; do [ "$(left)" -gt 60 ] || return 1; sleep 0.5; done
}
probe() { # a tiny run with the kit's transformers decides which one is used
    $PY -m experiments.gpu.common --stand-in "$TMP/stand-in"
    $PY -m experiments.gpu.genrm --out "$TMP/probe" --work "$TMP/probe/work" --base "$TMP/stand-in" --tiny --seconds "${PROBE:-120}" \
        --runs genrm_step --data "$TMP/code/fapo/data/miniature/base/critic-test.jsonl"
    grep -q '"comparisons": \[' "$TMP/probe/genrm.json" && ! grep -q '"exit_code": [^0]' "$TMP/probe/genrm.json"
}
direct() {
    mkdir -p "$TMP/out"; cd "$TMP" || exit 1
    install_kit >"$TMP/logs/install.log" 2>&1 || { say "nothing installed"; exit 1; }
    use own; extend_memory 2>>"$TMP/logs/install.log"; say installed
    ( until_come small && small_model "$TMP/smollm2"; say "SmolLM2: $?" ) &
    ( until_come pieces && large_model "$TMP/large"; say "larger model: $?" ) &
    use newer
    probe >"$TMP/logs/probe.log" 2>&1 || { use own; say "the kit's transformers does not work here"; }
    say "transformers $($PY -c 'from importlib.metadata import version; print(version("transformers"))')"
    shared=(--work "$TMP/sentences" --base "$TMP/smollm2" --start "$START" --sets validation --warm-up "$IMITATION" --skip judge_rl)
    run judge sentences judge "${shared[@]}" --seconds "$(left)" &
    judging=$!
    run imitation sentences policy "${shared[@]}" --seconds "$(left)"
    wait $judging
    if [ -e "$TMP/pieces.expected" ] && [ "$GENRM" -gt 0 ]; then
        until [ -d "$TMP/large" ] || [ "$(left)" -lt 60 ]; do sleep 0.5; done
        data=("$TMP"/data/processbench_*.jsonl)
        run genrm genrm --work "$TMP/genrm" --base "$TMP/large" --data "${data[@]}" --seconds "$GENRM"
        if [ "$CHANCE" = no ] && ! grep -q '"judge_is_better_than_chance": true' "$TMP/out/genrm.json"; then
            say "policy is left out: its judge is no better than chance"
        elif [ -e "$TMP/genrm/judge" ] && [ "$POLICY" -gt 0 ]; then
            questions=($(ls "$TMP"/data/*.jsonl | grep -v processbench_))
            run policy policy --work "$TMP/policy" --base "$TMP/large" --judge "$TMP/genrm/judge" --data "${questions[@]}" --seconds "$POLICY"
        fi
    fi
    # the imitation is done: only the runs are left
    [ "$(left)" -lt 40 ] || run sentences sentences all "${shared[@]}" --skip policy judge judge_rl --arms $ARMS --seconds $(( $(left) - 5 ))
    say "all has ended"; touch "$TMP/ended"
}
pack() { # results, logs, settings, metrics and validations of the runs
    ( cd "$TMP" || exit 1
      for run in genrm/genrm_* policy/{grpo,fapo,first_error,fapo2}; do
          [ ! -e "$run/rollouts.jsonl" ] || { mkdir -p "back/$run"; cp "$run"/{metrics.jsonl,config.json} "back/$run/"; grep -v '"split": "train"' "$run/rollouts.jsonl" >"back/$run/validations.jsonl"; }
      done
      mkdir -p back; tar -czf "$OUT/session.tar.gz" out logs back
      [ ! -e genrm/judge ] || tar -czh --exclude=optimizer.pt -C genrm judge | split -d -b 15000000 - "$OUT/judge.tar.gz." )
}
state() { ls "$TMP/small" "$TMP/pieces" | tr '\n' ' '; echo; tail -n 12 "$TMP/logs/session.log" 2>/dev/null; for f in genrm policy sentences; do tail -n 3 "$TMP/logs/$f.log" "$TMP/$f"/log-*.txt 2>/dev/null | cut -c1-250; done; tail -n 20 "$TMP"/out/genrm.txt 2>/dev/null | cut -c1-400; }
case $1 in
start | all)
    take; date +%s >"$TMP/begun"; begun=$(cat "$TMP/begun"); rm -f "$TMP/ended"
    if [ "$1" = all ]; then direct; pack; state; else
        setsid nohup bash "$TMP/code/experiments/gpu/session.sh" direct >"$TMP/logs/direct.log" 2>&1 </dev/null &
        sleep 1; state
    fi ;;
direct) direct ;;
take) take_pieces; state ;; # no code: it is in use
wait)
    for ((i = 0; i < ${2:-0}; i++)); do [ ! -e "$TMP/ended" ] || break; sleep 1; done
    pack; state; ls -la "$OUT" ;;
*) sed -n '2,14p' "$0"; exit 2 ;;
esac
