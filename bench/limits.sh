#!/bin/sh
# Measures what people wait for and pay for besides tokens per second, with tools anyone has, and prints a small table:
#   start to first token   a fresh process, file in the page cache, a prompt of one token: <= 1.3 decode steps + 0.5 s
#   peak memory            a prompt of 512 tokens and 8 more (VmHWM of /usr/bin/time, file pages included): <= file + 250 MiB
#   idle CPU               a chat that has answered once and waits at its prompt: 0 %
# usage: bench/limits.sh MODEL.gguf [option of fmamba ...]       FMAMBA names the program; exits 1 when a bar is missed
set -eu

[ $# -gt 0 ] || { echo "usage: bench/limits.sh MODEL.gguf [option ...]" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
fmamba=${FMAMBA:-$here/build/fmamba}
model=$1
shift
for tool in /usr/bin/time script; do
    command -v $tool >/dev/null || { echo "bench/limits.sh: $tool is missing (Debian packages time, bsdutils)" >&2; exit 2; }
done
folder=$(mktemp -d)
chat=
finish() {
    [ -z "$chat" ] || kill "$chat" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM
missed=0

# name measured bar unit: a line, and whether the bar holds
line() {
    verdict=$(awk "BEGIN { print ($2 <= $3) ? \"holds\" : \"MISSED\" }")
    [ "$verdict" = holds ] || missed=1
    printf '%-22s %10.3f %-3s  bar %10.3f  %s\n' "$1" "$2" "$4" "$3" "$verdict"
}

first_token() { # ENGINE OPTIONS: seconds of the whole process
    /usr/bin/time -f %e -o "$folder/time" "$fmamba" generate -m "$model" "$@" --ids 1 -n 1 --temp 0 --ignore-eos >/dev/null
    cat "$folder/time"
}

# The median of three: the first run brought the file into the page cache.
first_token "$@" >/dev/null
seconds=$(for i in 1 2 3; do first_token "$@"; done | sort -n | sed -n 2p)
rate=$("$fmamba" bench -m "$model" "$@" -p 0 -n 16 -r 3 --csv | tail -n 1 | cut -d , -f 7)
line "start to first token" "$seconds" "$(awk "BEGIN { print 1.3 / $rate + 0.5 }")" s

ids=$(awk 'BEGIN { printf "1"; for (i = 2; i <= 512; i++) printf ",%d", i }')
/usr/bin/time -f %M -o "$folder/time" "$fmamba" generate -m "$model" "$@" --ids "$ids" -n 8 --temp 0 --ignore-eos >/dev/null
line "peak memory" "$(awk '{ print $1 / 1024 }' "$folder/time")" \
    "$(stat -Lc %s "$model" | awk '{ print $1 / 1048576 + 250 }')" MiB

# Clock ticks (hundredths of a second) that process $1 has used.
ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

mkfifo "$folder/keys"
script -qfc "exec '$fmamba' run -m '$model' $* -n 4 -v" "$folder/screen" <"$folder/keys" >/dev/null 2>&1 &
chat=$!
exec 3>"$folder/keys"
echo "Hello" >&3
waited=0
until grep -q 'tok/s' "$folder/screen" 2>/dev/null; do
    sleep 0.2
    waited=$((waited + 1))
    [ $waited -lt 600 ] || { echo "bench/limits.sh: the chat did not answer: see fmamba run -m $model" >&2; exit 1; }
done
sleep 0.5
program=$(cut -d " " -f 1 "/proc/$chat/task/$chat/children")
before=$(ticks "$program")
sleep 5
line "idle CPU, of 5 s" "$(awk "BEGIN { print ($(ticks "$program") - $before) / 5 }")" 0.2 %
exit $missed
