#!/bin/sh
# Checks and times everything that a GPU does, in parts of under 8 minutes each; builds nothing.
#
#   check    every kernel against the reference; ids of the golden models, drawn ones too, and states against those of the CPU
#            recorded steps against the same launched kernel by kernel
#   race     compute-sanitizer: racecheck of every kernel, memcheck of generate, gradients and every kernel
#   start    a 7B file in bf16, in the page cache: the time from start to the end of one token, and of sending the weights
#   decode   one sequence, token by token: bf16, Q8_0, Q4_K, INT4_G128 (beside the card's measured limits)
#   batch    16, 64 and 256 sequences, token by token: bf16, Q4_K
#   prefill  512, 2048 and 8192 tokens: bf16, Q4_K
#   kernels  every kernel alone: time, GB/s or TFLOP/s
#   train    the tales shape, 130M, and 8 layers of the 7B shape; needs TEXT and TOKENIZER
#   profile  where a token's time goes, kernel by kernel (Nsight Compute)
#
# usage: bench/gpu.sh PART...
#        OUT: folder for gpu.log and gpu.csv (default: .)      WORK: folder for models (default: /tmp)
#        FMAMBA, KERNELCHECK, STEPCHECK: the programs          TYPES: other types than those of a part
#        TEXT, TOKENIZER: a text to train with and a tokenizer's folder
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
fmamba=${FMAMBA:-$here/build-cuda/fmamba}
kernelcheck=${KERNELCHECK:-$here/build-cuda/bin/kernelcheck}
stepcheck=${STEPCHECK:-$here/build-cuda/bin/stepcheck}
out=${OUT:-.}
work=${WORK:-/tmp}/fmamba-gpu
failed=0
mkdir -p "$out" "$work"
log=$out/gpu.log
csv=$out/gpu.csv

say() { echo "$*" | tee -a "$log"; }
fail() {
    failed=1
    say "FAILED: $*"
}

# run WHAT COMMAND...: its last lines are shown, all go to the log
run() {
    what=$1
    shift
    "$@" >"$work/last" 2>&1 && rc=0 || rc=$?
    { echo "--- $*" && tr '\r' '\n' <"$work/last"; } >>"$log"
    tr '\r' '\n' <"$work/last" | tail -n "${LINES_SHOWN:-4}"
    [ $rc -eq 0 ] || fail "$what (exit code $rc)"
}

# The model is made once and stays for the next part.
model() {
    file=$work/7b-$1.gguf
    [ -f "$file" ] || run "synth $1" "$fmamba" synth --shape falcon-mamba-7b --type "$1" -o "$file"
}

bench() {
    what=$1
    shift
    say "$what"
    "$fmamba" bench -m "$file" --device cuda --roofline -r 3 --csv "$@" >"$work/rows" 2>"$work/notes" || fail "bench $what"
    cat "$work/notes" >>"$log"
    sed -n 's/.*note: \(memory of\)/\1/p' "$work/notes" # predicted, and in use
    [ -s "$csv" ] || echo "card,$(head -n 1 "$work/rows")" >"$csv"
    sed -n "2,\$s/^/$card,/p" "$work/rows" | tee -a "$csv" | cut -d, -f 1,3,6,7,8,11,13
}

# ---- Parts ----

there="--device cuda --activations f32"

# same_ids MODEL OPTION...: without a device and on it
same_ids() {
    "$fmamba" generate -m "$@" --ids 3,5,7,9,11,2,40,33,21 -n 40 --ignore-eos --seed 1 >"$work/cpu" 2>>"$log"
    "$fmamba" generate -m "$@" --ids 3,5,7,9,11,2,40,33,21 -n 40 --ignore-eos --seed 1 $there >"$work/gpu" 2>>"$log"
    if cmp -s "$work/cpu" "$work/gpu"; then say "same ids: $*"; else fail "other ids than the CPU's: $*"; fi
}

# A state saved on either goes on on either, to the same ids.
same_states() {
    for from in "" "$there"; do
        "$fmamba" generate -m "$1" --ids 3,5,7,9,11 -n 20 --ignore-eos --temp 0 --save-state "$work/state" $from >>"$log" 2>&1
        for to in "" "$there"; do
            "$fmamba" generate -m "$1" --state "$work/state" -n 20 --ignore-eos --temp 0 $to 2>>"$log"
        done
    done | sort | uniq >"$work/ids"
    if [ "$(wc -l <"$work/ids")" -eq 1 ]; then say "same states: $1"; else fail "other ids after a state: $1"; fi
}

part_check() {
    golden=$here/tests/data/golden
    LINES_SHOWN=16 run kernelcheck "$kernelcheck" --device cuda
    LINES_SHOWN=16 run "kernelcheck in f32" "$kernelcheck" --device cuda --activations f32
    for model in "$golden"/*/; do
        same_ids "$model" --temp 0
        same_ids "$model" --temp 0.8 --top-p 0.95
        same_ids "$model" --temp 1.5 --top-k 40 --top-p 0.9 --min-p 0.01
        same_states "$model"
    done
    for type in bf16 q8_0; do
        small=$work/130m-$type.gguf
        [ -f "$small" ] || run "synth $type" "$fmamba" synth --shape mamba-130m --type $type -o "$small"
    done
    run stepcheck "$stepcheck" "$golden"/*/ "$work"/130m-*.gguf
}

part_race() {
    golden=$here/tests/data/golden
    check="compute-sanitizer --error-exitcode 9 --tool"
    command -v compute-sanitizer >/dev/null || { say "compute-sanitizer: not found, left out" && return; }
    for how in "--temp 0" "--temp 1 --top-k 20 --top-p 0.9 --min-p 0.01"; do
        run "memcheck of generate" $check memcheck "$fmamba" generate -m "$golden/falcon-small" --ids 3,5,7,9 -n 8 $how \
            --ignore-eos --device cuda
    done
    run "memcheck of gradients" $check memcheck "$fmamba" gradients -m "$golden/falcon-small" --ids 1,5,9,22,17,3,8,44,51,2 \
        -o "$work/g.safetensors" --device cuda
    run "memcheck of kernelcheck" $check memcheck "$kernelcheck" --device cuda --quick
    race_all
}

# Each kernel in a process of its own, all at the same time: one after the other they take longer than a part may.  Of cuBLASLt's
# kernels, nvjet_..., the tool reports what their copy engine writes; leaving them out by name breaks the run.
race_all() {
    for op in rmsnorm conv scan softmax rows many mix sample narrow; do
        compute-sanitizer --tool racecheck "$kernelcheck" --device cuda --quick --only $op >"$work/race-$op" 2>&1 &
    done
    wait
    for op in rmsnorm conv scan softmax rows many mix sample narrow; do
        cat "$work/race-$op" >>"$log"
        ours=$(grep -E "Race reported|and (Read|Write) access" "$work/race-$op" | grep -vc nvjet_)
        say "racecheck of $op: $ours hazards of ours; $(grep SUMMARY "$work/race-$op")"
        if [ "$ours" -ne 0 ] || ! grep -q "SUMMARY.*(" "$work/race-$op" || ! grep -q passed "$work/race-$op"; then
            fail "racecheck of $op: $(grep -v "^=====" "$work/race-$op" | tail -n 1)"
        fi
    done
}

part_start() {
    model bf16
    cat "$file" >/dev/null
    for round in 1 2 3; do
        begun=$(date +%s.%N)
        "$fmamba" generate -v -m "$file" --ids 3,5,7 -n 1 --temp 0 --ignore-eos --device cuda >>"$log" 2>"$work/notes" ||
            fail "start"
        say "start to the end of one token: $(echo "$(date +%s.%N) $begun" | awk '{ printf "%.2f s", $1 - $2 }')"
        grep "weights went" "$work/notes" | tee -a "$log"
    done
}

part_decode() {
    for type in ${TYPES:-bf16 q8_0 q4_k int4_g128}; do
        model $type && bench "decode $type" -p 0 -n 64
    done
}

part_batch() {
    for type in ${TYPES:-bf16 q4_k}; do
        model $type && bench "batches $type" -p 0 -n 16 --batch 16,64,256
    done
}

part_prefill() {
    for type in ${TYPES:-bf16 q4_k}; do
        model $type && bench "prefill $type" -p 512,2048,8192 -n 0 -b 8192
    done
}

part_kernels() {
    LINES_SHOWN=80 run "kernelcheck --bench" "$kernelcheck" --device cuda --bench
}

train() {
    what=$1
    shift
    say "train $what"
    "$fmamba" train "$work/train.yaml" --device cuda --set "run.out=$work/run" "$@" >"$work/last" 2>&1 || fail "train $what"
    rm -rf "$work/run"
    tr '\r' '\n' <"$work/last" >>"$log"
    tr '\r' '\n' <"$work/last" | grep "tok/s" | tail -n 2
}

part_train() {
    [ -n "${TEXT:-}" ] && [ -n "${TOKENIZER:-}" ] || { fail "train: set TEXT and TOKENIZER" && return; }
    cat >"$work/train.yaml" <<Y
model: {shape: tales, tokenizer: $TOKENIZER}
data: {train: [$TEXT], length: 512}
batch: {size: 32, micro: 32}
optimizer: {rate: 1e-3, clip: 1}
schedule: {tokens: 3M, warmup: 100k, decay_tokens: 100k}
run: {out: $work/run}
Y
    train "tales, 32 x 512"
    train "130M, 16 x 2048" --set model.shape=mamba-130m --set data.length=2048 --set batch.size=16 --set batch.micro=16
    train "8 layers of 7B, 4 x 2048" --set model.shape=falcon-mamba-7b --set model.n_layer=8 --set data.length=2048 \
        --set batch.size=4 --set batch.micro=4 --set schedule.tokens=400k
}

# Kernels one after the other: their sum is more than the step takes, where they overlap.
profile() {
    what=$1 skip=$2 count=$3
    shift 3
    say "$what: us in all, launches, us each, blocks, kernel"
    ncu --metrics gpu__time_duration.sum --clock-control none --cache-control none --launch-skip "$skip" --launch-count "$count" \
        --csv "$fmamba" bench -m "$file" --device cuda -r 1 "$@" >"$work/ncu" 2>>"$log" || fail "ncu"
    cat "$work/ncu" >>"$log"
    awk -F'","' '/gpu__time_duration/ { t = $NF; gsub(/[",]/, "", t); k = $5; sub(/\(.*/, "", k); k = $9 " " substr(k, 1, 70)
        n[k]++; sum[k] += t / 1000 }
        END { for (k in n) printf "%9.1f %4d %8.2f %s\n", sum[k], n[k], sum[k] / n[k], k }' "$work/ncu" | sort -rn | head -14
}

part_profile() {
    model bf16
    profile "one token" 2000 516 -p 0 -n 8
    profile "2048 tokens" 1300 600 -p 2048 -n 0 -b 2048
}

# ---- All of them ----

[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2; }
card=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
say "$card, $("$fmamba" version | head -n 1)"
for part in "$@"; do
    case $part in
    check | race | start | decode | batch | prefill | kernels | train | profile) "part_$part" ;;
    *) fail "no part is called $part: run it without any to see them" ;;
    esac
done
exit $failed
