#!/bin/sh
# Builds and times every engine of this folder with trtexec, on the board: sh run.sh
# Written for @BOARD@, TensorRT @VERSION@. Not yet run on hardware.
# Results are in results/: summary.txt, and for each engine its log, its samples and its answers.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p results engines

find_trtexec() {
    if command -v trtexec >/dev/null 2>&1; then
        command -v trtexec
    elif [ -x /usr/src/tensorrt/bin/trtexec ]; then
        echo /usr/src/tensorrt/bin/trtexec
    fi
}

trtexec=$(find_trtexec)
if [ -z "$trtexec" ]; then
    echo "trtexec is neither in PATH nor in /usr/src/tensorrt/bin: install TensorRT with JetPack." >&2
    exit 3
fi
if ! sha256sum -c SHA256SUMS >results/checksums.txt 2>&1; then
    echo "This folder is damaged, copy it again:" >&2
    grep -v ': OK$' results/checksums.txt >&2
    exit 1
fi
code=$("$trtexec" --help 2>&1 | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
if [ -n "$code" ] && [ "$code" != "@CODE@" ]; then
    echo "This bundle was written for TensorRT @VERSION@ (v@CODE@), and the board has v$code: flags may differ." >&2
fi
failures=0
: >results/summary.txt

say() {
    echo "$1"
    echo "$1" >>results/summary.txt
}

# compare EXPECTED ANSWERS: the largest difference between what was expected and what the engine answered.
compare() {
    sed -n 's/.*"values"[^[]*\[\([^]]*\)\].*/\1/p' "$2" | head -n 1 | tr ',' '\n' |
        awk -v expected="$1" '
            BEGIN { while ((getline line < expected) > 0) { wanted[++count] = line + 0 } }
            NF { got = $1 + 0; seen++; off = got - wanted[seen]; if (off < 0) off = -off
                 if (off > largest) largest = off
                 if (seen == 1 || got > best) { best = got; best_at = seen }
                 if (seen == 1 || wanted[seen] > top) { top = wanted[seen]; top_at = seen } }
            END { if (seen != count) printf "answers %d numbers where %d were expected\n", seen, count
                  else printf "same first choice: %s, largest difference %g\n", \
                       (best_at == top_at ? "yes" : "NO"), largest }'
}

# engine NAME MODEL EXPECTED BUILD_FLAGS... -- TIMING_FLAGS...
engine() {
    name=$1 model=$2 expected=$3
    shift 3
    if [ -s "engines/$name.plan" ]; then
        while [ "$1" != "--" ]; do shift; done
    else
        building=
        # The flags up to -- go to the build: none of them has a space in it.
        while [ "$1" != "--" ]; do building="$building $1"; shift; done
        echo "$name: building (minutes)"
        # shellcheck disable=SC2086
        if ! "$trtexec" --onnx="$model" --saveEngine="engines/$name.part" $building \
            >"results/$name.build.log" 2>&1 || [ ! -s "engines/$name.part" ]; then
            say "$name: could not be built, see results/$name.build.log"
            failures=$((failures + 1))
            return
        fi
        mv "engines/$name.part" "engines/$name.plan"
    fi
    shift
    if ! "$trtexec" --loadEngine="engines/$name.plan" --exportTimes="results/$name.times.json" \
        --exportOutput="results/$name.output.json" "$@" >"results/$name.log" 2>&1; then
        say "$name: could not be timed, see results/$name.log"
        failures=$((failures + 1))
        return
    fi
    say "$name: $(sed -n 's/.*\] GPU Compute Time: /GPU compute: /p' "results/$name.log" | tail -n 1)"
    say "$name: $(sed -n 's/.*\] Latency: /with transfers: /p' "results/$name.log" | tail -n 1)"
    if [ "$expected" != "-" ]; then
        say "$name: $(compare "$expected" "results/$name.output.json")"
    fi
}

@ENGINES@

if [ "$failures" -gt 0 ]; then
    echo "$failures of the engines failed." >&2
    exit 5
fi
echo "Done: results/summary.txt"
