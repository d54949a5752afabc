#!/usr/bin/env bash
# A GPU's first hour in ten minutes: whether hbt works on it, how fast it is there, and how fast PyTorch is on the same work.
#
#   benches/gpu.sh pack DIR          where the repository and Rust are: puts all that `run` needs into DIR (with nvcc in the
#                                    PATH, the kernels too: without, NVRTC has to be where DIR goes)
#   DIR/gpu.sh run [--out DIR]       where the GPU is; the folder may have been copied from another machine
#
# `run` needs bash, coreutils and an NVIDIA driver with cuBLASLt, nothing else. With PyTorch beside python3, PyTorch does the
# same work; nvidia-smi says at which clocks. It writes results.json (everything), results.md (tables) and log.txt (what the
# programs printed) into --out (default: gpu-results), anew after each part.
#
# The work is in parts, the most telling first. Each has a time limit; one that fails or hangs is reported, and the next
# begins. All end within ten minutes: what there was no time for is said. The exit code is 1 if a part failed, 2 if the
# command cannot be understood, else 0.
#
#   --out DIR         where the results go
#   --from DIR        where the packed programs are (default: beside this script)
#   --python FILE     the Python that has PyTorch (default: python3)
#   --limit SECONDS   for everything (default 580)
#   --part-limit S    for each part, where that is less than its own limit
#   --tiny            sizes that end at once, PyTorch on the processor: to try this script, also without a GPU, by
#                     tests/simt/run DIR/gpu.sh run --tiny
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)

usage() {
    local line
    while IFS= read -r line && [[ $line == '#'* ]]; do
        [[ $line == '#!'* ]] || printf '%s\n' "${line#\#}" >&2
    done <"$0"
    exit 2
}

fail() {
    printf 'gpu.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# --- pack ---------------------------------------------------------------------------------------------------------------

# executable NAME MESSAGES: where Cargo says that it put a program.
executable() {
    local line
    while IFS= read -r line; do
        if [[ $line == *'"reason":"compiler-artifact"'* && $line == *"\"name\":\"$1\""* && $line =~ \"executable\":\"([^\"]+)\" ]]; then
            printf '%s\n' "${BASH_REMATCH[1]}"
            return
        fi
    done <<<"$2"
    fail "Cargo built no $1"
}

pack() {
    [ $# = 1 ] || usage
    local root messages hbt tests
    root=$(cd "$here/.." && pwd)
    [ -f "$root/Cargo.toml" ] || fail "pack needs hbt's repository, and this script lies in $here"
    if ! mkdir -p "$1/tests" || ! dir=$(cd "$1" && pwd); then fail "cannot make the folder $1"; fi
    messages=$(cd "$root" && cargo test --release --locked --no-run --test integration \
        --message-format=json-render-diagnostics) || fail "the build failed"
    hbt=$(executable hbt "$messages") && tests=$(executable integration "$messages") || exit 1
    for file in hbt integration gpu.sh peer_gpu.py tests/fixtures; do rm -rf "${dir:?}/$file"; done
    if ! { cp "$hbt" "$dir/hbt" && cp "$tests" "$dir/integration" && cp "$here/gpu.sh" "$here/peer_gpu.py" "$dir/" &&
        cp -R "$root/tests/fixtures" "$dir/tests/fixtures"; }; then fail "cannot copy into $dir"; fi
    # Lines of source code in backtraces would be most of what is copied.
    if command -v strip >/dev/null; then strip --strip-debug "$dir/hbt" "$dir/integration"; fi
    git -C "$root" describe --always --dirty 2>/dev/null >"$dir/commit" || printf 'unknown\n' >"$dir/commit"
    "$dir/hbt" info | sed -n 's/^kernels  *\(.*\)/kernels: \1/p'
    printf 'packed %s into %s\n' "$(du -sh "$dir" | cut -f1)" "$dir"
}

# --- run: parts ---------------------------------------------------------------------------------------------------------

# What is known of each part, in their order.
names=() states=() times=() notes=()
# The line of JSON and its place in the tables for each measurement.
rows=()
# The process that is running, to end it with this script.
child=

milliseconds() {
    local now=${EPOCHREALTIME/./}
    printf '%s' "${now%???}"
}

# note NAME STATE TIME TEXT
note() {
    names+=("$1") states+=("$2") times+=("$3") notes+=("$4")
    printf '%-34s %-10s %6.1f s  %s\n' "$1" "$2" "$3" "$4" >&2
    save
}

skip() { note "$1" skipped 0 "$2"; }

# part NAME SECONDS COMMAND...: runs it for at most so long; its output is in $tmp/out and $tmp/err.
part() {
    local name=$1 limit=$2 left=$((total - SECONDS - 3)) start deadline code state=ok text='' line
    shift 2
    : >"$tmp/out" && : >"$tmp/err"
    if ((left < 5)); then
        note "$name" 'no time' 0 "the $total s for everything were over"
        return 1
    fi
    ((limit > part_limit)) && limit=$part_limit
    ((limit > left)) && limit=$left
    start=$(milliseconds) deadline=$((SECONDS + limit + 4))
    timeout --kill-after=2 "$limit" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null &
    child=$!
    # A process that waits for a GPU that never answers cannot be killed: it is left behind.
    while kill -0 "$child" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.1; done
    code=137
    if ! kill -0 "$child" 2>/dev/null; then wait "$child"; code=$?; fi
    child=
    case $code in
        0) ;;
        3) state=skipped text=$(last_line "$tmp/err" 3) ;;
        124 | 137) state='timed out' text="stopped after $limit s" ;;
        *) state=failed text=$(last_line "$tmp/err" "$code") ;;
    esac
    { printf '\n== %s: %s\n' "$name" "$*" && cat "$tmp/out" "$tmp/err"; } >>"$out/log.txt"
    while IFS= read -r line; do
        if [[ $line == '{'*'"op":'*'}' ]]; then rows+=("$line"); fi
    done <"$tmp/out"
    if [ "$name" = 'device tests' ]; then
        text=$(tests_summary "$text")
        if [[ $text == 'ok. 0 passed;'* ]]; then state=failed text='no test has such a name'; fi
    fi
    local took=$(($(milliseconds) - start))
    note "$name" "$state" "$((took / 1000)).$(printf %03d $((took % 1000)))" "$text"
    [ "$state" = ok ]
}

# What a program that failed had to say.
last_line() {
    local line last="exit code $2"
    while IFS= read -r line; do
        if [[ $line =~ [^[:space:]] ]]; then last=$line; fi
    done < <(tail -n 20 "$1")
    printf '%s' "${last:0:300}"
}

# The tests' own summary, or what they had got to when they were stopped; the names of those that failed.
tests_summary() {
    local line summary='' passed=0 failed=()
    while IFS= read -r line; do
        case $line in
            'test result: '*) summary=${line#test result: } ;;
            'test '*' ... ok') passed=$((passed + 1)) ;;
            'test '*' ... FAILED') line=${line#test } && failed+=("${line% ... FAILED}") ;;
        esac
    done <"$tmp/out"
    [ -n "$summary" ] || summary="$passed passed; ${#failed[@]} failed; $1"
    [ ${#failed[@]} = 0 ] || summary+=": ${failed[*]}"
    printf '%s' "$summary"
}

# --- run: results -------------------------------------------------------------------------------------------------------

# What these are to give is left in REPLY: a process for each of a thousand cells would take its time.

# text LINE NAME: a field of a line of JSON that is a string; number LINE NAME: one that is a number. Else nothing, and false.
text() { REPLY='' && [[ $1 =~ \"$2\":\ ?\"([^\"]*)\" ]] && REPLY=${BASH_REMATCH[1]}; }
number() { REPLY='' && [[ $1 =~ \"$2\":\ ?([-+.0-9eE]+)[,}] ]] && REPLY=${BASH_REMATCH[1]}; }

# scaled FORMAT LINE NAME EXPONENT: a number times a power of ten.
scaled() {
    number "$2" "$3" || return 0
    # First without an exponent of its own.
    printf -v REPLY '%.15f' "$REPLY"
    # shellcheck disable=SC2059 # a format
    printf -v REPLY "$1" "${REPLY}e$4"
}

mib() { number "$1" "$2" && REPLY=$(((REPLY + (1 << 20) - 1) >> 20)); }

# ratio A B: A / B of two whole numbers, with two digits.
ratio() {
    REPLY=''
    [ -n "$1" ] && [ "${2:-0}" != 0 ] || return 0
    local hundredths=$((100 * $1 / $2))
    printf -v REPLY '%d.%02d' $((hundredths / 100)) $((hundredths % 100))
}

# found OP SHAPE PEER: the fastest line of that kind in bf16; PEER is hbt or torch.
found() {
    local row best='' least='' peer
    for row in "${rows[@]+"${rows[@]}"}"; do
        peer=hbt
        [[ $row == *'"peer":'* ]] && peer=torch
        [ "$peer" = "$3" ] && text "$row" op && [ "$REPLY" = "$1" ] && text "$row" dtype && [ "$REPLY" = bf16 ] &&
            text "$row" shape && [ "$REPLY" = "$2" ] || continue
        scaled %.0f "$row" seconds 9
        if [ -z "$least" ] || ((REPLY < least)); then least=$REPLY best=$row; fi
    done
    REPLY=$best
}

# comparison OP SHAPE...: hbt beside PyTorch, a row of a table for each shape that was measured.
comparison() {
    local op=$1 shape ours theirs row nanoseconds
    shift
    for shape in "$@"; do
        found "$op" "$shape" hbt && ours=$REPLY
        found "$op" "$shape" torch && theirs=$REPLY
        [ -n "$ours$theirs" ] || continue
        row="| $shape |"
        if [ "$op" = train_step ]; then
            scaled %.0f "$ours" tokens_per_s 0 && row+=" $REPLY |"
            scaled '%.0f %%' "$ours" share 2 && row+=" $REPLY |"
            scaled %.0f "$theirs" tokens_per_s 0 && row+=" $REPLY |"
        else
            scaled %.3f "$ours" seconds 3 && row+=" $REPLY |"
            scaled '%.0f %%' "$ours" share 2 && row+=" $REPLY |"
            scaled %.3f "$theirs" seconds 3 && row+=" $REPLY |"
        fi
        scaled %.0f "$ours" seconds 9 && nanoseconds=$REPLY
        scaled %.0f "$theirs" seconds 9 && ratio "$REPLY" "$nanoseconds" && row+=" $REPLY |"
        mib "$ours" peak_bytes
        row+=" $REPLY |"
        mib "$ours" planned_bytes
        row+=" $REPLY |"
        mib "$theirs" peak_bytes
        row+=" $REPLY |"
        text "$theirs" attention || text "$theirs" loss
        printf '%s %s |\n' "$row" "$REPLY"
    done
}

operations() {
    local row line
    for row in "${rows[@]+"${rows[@]}"}"; do
        [[ $row == *'"peer":'* ]] && continue
        text "$row" op && line="| $REPLY |"
        text "$row" dtype && line+=" $REPLY |"
        text "$row" shape && line+=" $REPLY |"
        scaled %.1f "$row" seconds 6 && line+=" $REPLY |"
        scaled %.1f "$row" cold_seconds 6 && line+=" $REPLY |"
        scaled %.0f "$row" gflop_per_s 0 && line+=" $REPLY |"
        scaled %.0f "$row" gb_per_s 0 && line+=" $REPLY |"
        scaled '%.0f %%' "$row" share 2 && line+=" $REPLY |"
        text "$row" of && printf '%s %s |\n' "$line" "$REPLY"
    done
}

# What is in use of the device that no buffer has: contexts, kernels and libraries, as of the first measurement.
overhead() {
    local row reserved
    for row in "${rows[@]+"${rows[@]}"}"; do
        [[ $row == *'"peer":'* ]] && continue
        if number "$row" reserved_bytes; then
            reserved=$REPLY
            number "$row" in_use_bytes && printf 'Besides buffers, %d MiB of the device were in use.\n' $(((REPLY - reserved) >> 20))
            return
        fi
    done
}

# Clocks, power, temperature and use while the GPU was at work.
under_load() {
    local busy=() line
    REPLY='not known'
    [ -f "$tmp/clocks" ] || return
    while IFS= read -r line; do
        if [[ $line =~ ,\ *([0-9]+)$ ]] && ((BASH_REMATCH[1] >= 50)); then busy+=("$line"); fi
    done <"$tmp/clocks"
    REPLY='no second in which it was busy'
    ((${#busy[@]})) || return
    mapfile -t busy < <(printf '%s\n' "${busy[@]}" | sort -n)
    REPLY="${busy[${#busy[@]} / 2]} (the median of ${#busy[@]} seconds)"
}

json_string() {
    local s=${1//\\/\\\\}
    s=${s//\"/\\\"}
    s=${s//$'\n'/\\n}
    printf '"%s"' "${s//[[:cntrl:]]/ }"
}

# Everything, as JSON.
save() {
    local i separator='' row
    under_load
    {
        printf '{"hbt": ' && json_string "$version"
        printf ', "commit": ' && json_string "$commit"
        printf ', "date": ' && json_string "$date"
        printf ',\n "gpu": ' && json_string "$gpu"
        printf ',\n "under_load": ' && json_string "$REPLY"
        printf ',\n "torch": ' && json_string "$torch"
        printf ',\n "info": ' && json_string "$info"
        printf ',\n "parts": ['
        for i in "${!names[@]}"; do
            printf '%s\n  {"part": ' "$separator" && json_string "${names[i]}"
            printf ', "result": "%s", "seconds": %s, "says": ' "${states[i]}" "${times[i]}" && json_string "${notes[i]}"
            printf '}'
            separator=,
        done
        printf '],\n "measurements": ['
        separator=''
        for row in "${rows[@]+"${rows[@]}"}"; do
            printf '%s\n  %s' "$separator" "$row"
            separator=,
        done
        printf ']}\n'
    } >"$out/results.json"
}

# The same as tables.
tables() {
    local i
    under_load
    printf '# hbt %s (%s) on a GPU, %s\n\n' "$version" "$commit" "$date"
    printf -- '- GPU: %s\n- %s\n' "$gpu" "$gpu_columns"
    printf -- '- at work: %s\n- %s\n' "$REPLY" "$clock_columns"
    printf -- '- PyTorch: %s\n\n' "${torch:-none}"
    # shellcheck disable=SC2016 # a fence of Markdown
    printf '```\n%s\n```\n' "$info"
    cat <<'END'

## Training steps

In bf16, random weights, texts of 128 tokens; PyTorch under autocast, with f32 weights. Best times; the share is of what a product
of two 4096 x 4096 matrices reaches in the same run. Memory: the most MiB that buffers held at a time; by plan: as `hbt plan` counts
them (a part's first measurement has 32 MiB for partial sums besides).

| model | hbt, tokens/s | share | PyTorch, tokens/s | ratio | hbt, MiB | by plan | PyTorch, MiB | its attention |
|---|---|---|---|---|---|---|---|---|
END
    comparison train_step "${train_shapes[@]}"
    printf '\n' && overhead
    cat <<'END'

## The loss

Forward and backward, products in bf16.

| direction/queries x passages x size | hbt, ms | share | PyTorch, ms | ratio | hbt, MiB | by plan | PyTorch, MiB | its loss |
|---|---|---|---|---|---|---|---|---|
END
    comparison info_nce "${loss_shapes[@]}"
    cat <<'END'

## Operations

Best times; cold: with the device's caches flushed before each run. The share is of a large product or a large copy.

| operation | type | shape | us | cold, us | GFLOP/s | GB/s | share |
|---|---|---|---|---|---|---|---|
END
    operations
    printf '\n## Parts\n\n| part | result | s | |\n|---|---|---|---|\n'
    for i in "${!names[@]}"; do
        printf '| %s | %s | %.1f | %s |\n' "${names[i]}" "${states[i]}" "${times[i]}" "${notes[i]//|//}"
    done
}

# --- run ----------------------------------------------------------------------------------------------------------------

ours() { # ours SECONDS OP SHAPE: hbt in bf16
    part "hbt $2 $3" "$1" "$from/hbt" bench --device cuda --precision bf16 --json --op "$2" --shape "$3" "${bench[@]}"
}

theirs() { # theirs SECONDS OP ARGUMENT...: PyTorch
    [ -z "$torch" ] || part "PyTorch ${*:2}" "$1" "${peer[@]}" "${@:2}"
}

finish() {
    trap - EXIT INT TERM
    [ -n "$child" ] && kill "$child" 2>/dev/null
    [ -n "$watcher" ] && kill "$watcher" 2>/dev/null
    save
    tables >"$out/results.md"
    rm -rf "${tmp:?}"
    exit "$1"
}

run() {
    out=gpu-results from=$here python=python3 total=580 part_limit=100000 tiny=
    while [ $# -gt 0 ]; do
        case $1 in
            --tiny) tiny=1 && shift && continue ;;
            --out | --from | --python | --limit | --part-limit) [ $# -gt 1 ] || usage ;;
            *) usage ;;
        esac
        case $1 in
            --out) out=$2 ;;
            --from) from=$(cd "$2" && pwd) || fail "there is no folder $2" 2 ;;
            --python) python=$2 ;;
            --limit) total=$2 ;;
            --part-limit) part_limit=$2 ;;
        esac
        shift 2
    done
    [[ $total =~ ^[0-9]+$ && $part_limit =~ ^[0-9]+$ ]] || usage
    [ -x "$from/hbt" ] || fail "there is no hbt in $from; benches/gpu.sh pack DIR puts it there" 2
    if ! { mkdir -p "$out" && out=$(cd "$out" && pwd) && : >"$out/log.txt"; }; then fail "cannot write into $out"; fi
    tmp=$(mktemp -d) || fail "cannot make a temporary folder"
    watcher='' torch='' gpu='not known' info='' date=$(date -u '+%Y-%m-%d %H:%M UTC')
    commit=$(cat "$from/commit" 2>/dev/null) || commit=unknown
    version=$("$from/hbt" --version 2>&1) || version="does not start: $version"
    version=${version#hbt }
    trap 'finish 1' EXIT
    trap 'finish 130' INT TERM
    # The caches of this run alone: the first use is everybody's first use. GPUs in the order of nvidia-smi.
    export HBT_CACHE=$tmp/cache HF_HUB_OFFLINE=1 CUDA_DEVICE_ORDER=PCI_BUS_ID PYTHONUNBUFFERED=1
    settings
    parts
    local state code=0
    for state in "${states[@]}"; do
        case $state in failed | 'timed out') code=1 ;; esac
    done
    printf 'results: %s/results.md\n' "$out" >&2
    finish $code
}

# Sizes of everything.
settings() {
    peer=("$python" "$from/peer_gpu.py")
    bench=()
    if [ -n "$tiny" ]; then
        models=('tiny 8') more=() losses=('64 32') micro=(--op info_nce --shape 64x64x32)
        bench=(--no-ceilings)
        # Of an operation, of fixtures, and of the program.
        tests=(ops::cuda_bf16::copy_rows pytorch::cuda_f32::gradients_of_bert cuda::embeddings)
        # Where a stand-in for the driver is on the library path, PyTorch is not to meet it.
        peer=(env -u LD_LIBRARY_PATH "${peer[@]}" --device cpu --budget 0.1)
    else
        models=('xlm-r-base 64' 'minilm-l6 64' 'xlm-r-large 64')
        more=('xlm-r-base 256' 'minilm-l6 256' 'xlm-r-large 256')
        losses=('16384 768' '65536 768') micro=()
        # On a GPU: not those of the stand-in itself, nor those that need its counters.
        tests=(cuda --skip simt:: --skip cuda::errors --skip cuda::drivers --skip cuda::traffic --skip cuda::memory)
    fi
    train_shapes=() loss_shapes=()
    local one
    for one in "${models[@]}" "${more[@]+"${more[@]}"}"; do train_shapes+=("$one texts" "$one texts dropout"); done
    for one in "${losses[@]}"; do
        local n=${one% *} size=${one#* }
        loss_shapes+=("one way/${n}x${n}x$size" "symmetric/${n}x${n}x$size")
    done
}

parts() {
    local one
    watch
    if part 'hbt info' 30 "$from/hbt" info; then info=$(cat "$tmp/out"); fi
    # Kernels that are not in the program are compiled now.
    part 'first step' 180 "$from/hbt" bench --device cuda --precision bf16 --json --no-ceilings \
        --op train_step --shape 'tiny 8 texts dropout'
    for one in "${models[@]}"; do ours 100 train_step "$one texts"; done
    for one in "${losses[@]}"; do ours 60 info_nce "${one% *}x${one/ /x}"; done
    part 'device tests' 150 env HBT_REQUIRE_CUDA=1 HBT_TEST_ROOT="$from" "$from/integration" "${tests[@]}"
    find_torch
    # shellcheck disable=SC2086 # two arguments in one word
    for one in "${models[@]}"; do theirs 60 train_step $one; done
    # shellcheck disable=SC2086
    for one in "${losses[@]}"; do theirs 60 info_nce $one; done
    part 'hbt bench, bf16' 100 "$from/hbt" bench --device cuda --precision bf16 --json "${micro[@]}" "${bench[@]}"
    for one in "${more[@]+"${more[@]}"}"; do
        ours 100 train_step "$one texts"
        # shellcheck disable=SC2086
        theirs 60 train_step $one
    done
    part 'hbt bench, f32' 100 "$from/hbt" bench --device cuda --precision f32 --json "${micro[@]}" "${bench[@]}"
}

gpu_columns=name,driver_version,memory.total,memory.used,clocks.max.sm,clocks.max.memory,power.limit,mig.mode.current
# The last one says whether the second counts.
clock_columns=clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu

# What the GPU is, and from now on its clocks, once a second.
watch() {
    local first=${CUDA_VISIBLE_DEVICES:-0}
    if ! command -v nvidia-smi >/dev/null; then
        skip nvidia-smi 'there is none: clocks are not known'
        return
    fi
    local query=(nvidia-smi -i "${first%%,*}" "--query-gpu=$gpu_columns")
    part nvidia-smi 30 "${query[@]}" --format=csv,noheader || return
    gpu=$(cat "$tmp/out")
    query=(nvidia-smi -i "${first%%,*}" "--query-gpu=$clock_columns" "--format=csv,noheader,nounits" -l 1)
    "${query[@]}" >"$tmp/clocks" 2>/dev/null </dev/null &
    watcher=$!
}

find_torch() {
    if ! command -v "$python" >/dev/null; then
        skip PyTorch "there is no $python"
    elif part PyTorch 60 "${peer[@]}" info; then
        torch=$(cat "$tmp/out")
    fi
}

case ${1:-} in
    pack) shift && pack "$@" ;;
    run) shift && run "$@" ;;
    *) usage ;;
esac
