#!/usr/bin/env bash
# What to check on a real GPU, the most valuable first, within ten minutes on a discrete one: the tests of the engine, the
# benchmark with a profile of every dispatch, PyTorch beside it, a training on digits.
#
#   benches/gpu.sh bundle DIR                     builds, strips and packs everything into DIR (below 40 MiB)
#   DIR/gpu.sh run OUT [ADAPTER] [CIFAR10]        on a machine with the same processor and system; needs neither Rust nor
#                                                 a copy of the repository
#   benches/gpu.sh run OUT [ADAPTER] [CIFAR10]    the same with Rust, from the repository
#
# ADAPTER is a part of the adapter's name; without it the fastest one is used. CIFAR10 is a directory with the set's
# binary files. OUT receives report.md, which grows with each part, a log of each part, JSON and the run directories.
# The exit status says whether every part succeeded; one that is cut off has not.
#
# LIMIT=600 is the time for everything in seconds, of which each part has its share. PARTS="bench peers" runs only these
# of: tests bench peers digits more cifar. QUICK=1 is for testing this script: a few tests, one narrow network, one short
# training. PYTHON is an interpreter that has torch (default: python3). FAIRTAT names a release build for the bundle.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
all="tests bench peers digits more cifar"
parts=${PARTS:-$all}
for part in $parts; do
    case " $all " in *" $part "*) ;; *)
        echo "PARTS: expected some of $all; found '$part'" >&2
        exit 2
    esac
done

# Fills a directory with stripped programs and the files that they read.
stage() {
    cd "$here/.." || return
    if [ -z "${FAIRTAT:-}" ]; then
        cargo build --release --locked --bin fairtat >&2 || return
        FAIRTAT=${CARGO_TARGET_DIR:-target}/release/fairtat
    fi
    strip -o "$1/fairtat" "$FAIRTAT" || return
    # Optimised like a release, and built already where the tests have run.
    local programs
    programs=$(cargo test --no-run --locked --lib --test wgsl --test pytorch --test soak --message-format=json |
        sed -n 's/.*"target":{"kind":\["[a-z]*"\][^}]*"name":"\([^"]*\)"[^}]*}.*"executable":"\([^"]*\)".*/\1 \2/p') || return
    while read -r name path; do
        strip -o "$1/test-$name" "$path" || return
    done <<<"$programs"
    mkdir -p "$1/benches/peers" "$1/tests/golden" || return
    cp benches/peers/*.py "$1/benches/peers/" &&
        cp -R shaders "$1/shaders" &&
        cp -R tests/golden/*.safetensors tests/golden/*.json tests/golden/networks.py tests/golden/state-dicts "$1/tests/golden/"
}

# wanted PART: whether PARTS names it.
wanted() {
    case " $parts " in *" $1 "*) ;; *) return 1 ;; esac
}

# part NAME SECONDS LINES COMMAND…: runs a command for at most its share of the time, prints the lines that match, and adds
# them to the report.
part() {
    local name=$1 share=$(($2 * limit / 600)) show=$3 left=$((limit - SECONDS)) began=$SECONDS status outcome
    shift 3
    [ "$share" -lt "$left" ] || share=$left
    if [ "$share" -lt 2 ]; then
        failed=1
        printf '## %s: not begun, the time is up\n\n' "$name" | tee -a "$out/report.md"
        return
    fi
    echo "## $name"
    $timeout ${timeout:+"$share"} "$@" 2>&1 </dev/null | tee "$out/$name.log" | grep --line-buffered -E "$show"
    status=${PIPESTATUS[0]}
    case $status in
    0) outcome="ok" ;;
    124 | 137) outcome="CUT OFF after $share s" ;;
    *) outcome="FAILED with status $status, see $name.log" ;;
    esac
    [ "$status" = 0 ] || failed=1
    case $name in test-*)
        outcome="$outcome, $(grep -c '\.\.\. ok$' "$out/$name.log") passed, $(grep -c '\.\.\. FAILED$' "$out/$name.log") failed"
    esac
    echo "   $outcome ($((SECONDS - began)) s)"
    {
        printf '## %s: %s (%s s)\n\n```\n' "$name" "$outcome" $((SECONDS - began))
        grep -E "$show" "$out/$name.log"
        printf '```\n\n'
    } >>"$out/report.md"
}

run() {
    out=$1
    mkdir -p "$out" && out=$(cd "$out" && pwd) || return
    local adapter=${2:+--adapter $2} cifar10=${3:-} fairtat=$root/fairtat quick=${QUICK:-}
    [ -z "${2:-}" ] || export FAIRTAT_TEST_ADAPTER=$2
    # Tests look for their files here. Nothing is kept between runs: kernels are measured anew.
    export CARGO_MANIFEST_DIR=$root FAIRTAT_CACHE=
    limit=${LIMIT:-600}
    timeout=$(command -v timeout >/dev/null && echo timeout -k 5)
    failed=0
    echo "# $(uname -sm), $(date -u +%FT%TZ)" >"$out/report.md"
    SECONDS=0
    part engines 20 ^ "$fairtat" engines --json "$out/engines.json"
    if wanted tests; then
        # A quick one needs a device, and shows whether the programs start at all.
        local tests='\.\.\. FAILED|^test result|panicked'
        local kernels=engine::wgsl
        [ -z "$quick" ] || kernels=engine::wgsl::profile::tests::a_profile
        part test-kernels 100 "$tests" "$root/test-fairtat" $kernels
        part test-networks 70 "$tests" "$root/test-wgsl" ${quick:+state_goes_in}
        part test-pytorch 70 "$tests" "$root/test-pytorch" ${quick:+losses::}
    fi
    local main="--arch preact-resnet-18 --batch 128" others="--arch digits-cnn --arch small-cnn --arch resnet-20"
    local case=preact-resnet-18::128
    if [ -n "$quick" ]; then
        main="--arch digits-cnn --width 8 --batch 8 --seconds 0.1 --steps 2 --top 5"
        others=$main case=digits-cnn:8:8
    fi
    # shellcheck disable=SC2086
    if wanted bench; then
        part bench 90 ^ "$fairtat" bench --engine wgsl $adapter $main --profile --json "$out/bench.json"
    fi
    if wanted peers; then
        local python=${PYTHON:-python3} device
        device=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")' 2>/dev/null)
        if [ -n "$device" ]; then
            # shellcheck disable=SC2086
            FAIRTAT=$fairtat PYTHON=$python part peers 120 '^\||…$' "$python" "$root/benches/peers/rounds.py" "$out/peers" \
                --case $case --rounds 2 --no-sweep --only 'fairtat wgsl' --only "pytorch $device" $adapter \
                ${quick:+--seconds 0.1 --steps 2}
            [ ! -e "$out/peers/peers.md" ] || cat "$out/peers/peers.md" >>"$out/report.md"
        else
            printf '## peers: %s has no torch, left out\n\n' "$python" | tee -a "$out/report.md"
        fi
    fi
    if wanted digits; then
        # shellcheck disable=SC2086
        part digits-60s 60 '^ +[0-9]|^epoch|^(last|best|ema) ' "$fairtat" train --preset digits-60s --engine wgsl $adapter \
            ${quick:+--epochs 1 --limit 300 --test-limit 50 --steps 1 --test-steps 1} --run-dir "$out/digits-60s"
    fi
    if wanted more; then
        # Kernels for matrix products with subgroup broadcasts are used only on software adapters until they are faster
        # on GPUs. Both runs use fixed kernel choices; otherwise each would use whichever kernels are faster.
        for subgroups in off on; do
            # shellcheck disable=SC2086
            part bench-subgroups-$subgroups 40 ^ "$fairtat" bench --engine wgsl $adapter $main --profile --deterministic \
                --subgroups $subgroups --json "$out/bench-subgroups-$subgroups.json"
        done
        # shellcheck disable=SC2086
        part bench-others 60 ^ "$fairtat" bench --engine wgsl $adapter $others --profile --json "$out/bench-others.json"
        [ -n "$quick" ] || part test-soak 100 '^test |^device' "$root/test-soak" --nocapture
    fi
    if wanted cifar; then
        if [ -n "$cifar10" ]; then
            # shellcheck disable=SC2086
            part cifar10-small 600 '^ +[0-9]|^epoch|^(last|best|ema) ' "$fairtat" train --preset cifar10-small --path "$cifar10" \
                --engine wgsl $adapter --run-dir "$out/cifar10-small"
        else
            echo "## cifar: no directory given, left out"
        fi
    fi
    return $failed
}

case "${1:-}" in
bundle)
    dir=${2:?directory for the bundle}
    mkdir -p "$dir" && dir=$(cd "$dir" && pwd) || exit 1
    root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
    stage "$root" && cp "$here/gpu.sh" "$dir/gpu.sh" && tar -C "$root" -c . | xz -9 >"$dir/gpu.tar.xz" && ls -l "$dir"
    ;;
run)
    : "${2:?directory for the results}"
    root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
    if [ -x "$here/fairtat" ]; then
        # The archive was unpacked by hand.
        root=$here
        trap - EXIT
    elif [ -e "$here/gpu.tar.xz" ]; then
        # Python reads xz where the program is missing.
        tar -C "$root" -xJf "$here/gpu.tar.xz" 2>/dev/null || python3 -m tarfile -e "$here/gpu.tar.xz" "$root" || exit 1
    else
        (stage "$root") || exit 1
    fi
    run "${@:2}"
    ;;
*)
    sed -n '2,18p' "$0"
    exit 2
    ;;
esac
