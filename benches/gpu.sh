#!/usr/bin/env bash
# Everything to check on a real GPU, in one run: all tests, the benchmark with a profile of every dispatch, the peers
# for comparison, a training on digits and one on CIFAR-10.
#
#   benches/gpu.sh run OUT [ADAPTER] [CIFAR10]   with Rust on this machine; from the root of the repository
#   benches/gpu.sh bundle DIR                    builds and strips the programs into DIR, for a machine without Rust
#   DIR/gpu.sh run OUT [ADAPTER] [CIFAR10]       there (same processor and system), from the root of a copy of the repository
#
# ADAPTER is a part of the adapter's name; without it the fastest one is used. CIFAR10 is a directory with the set's
# binary files. OUT receives a log of each part and the run directories; the exit status says whether every part
# succeeded.
#
# PARTS="bench peers" runs only these of: tests bench peers digits cifar. QUICK=1 is for testing this script: a few
# tests, one narrow network, one short training. PYTHON is the interpreter for the peers (default: python3).
set -uo pipefail

# The programs that `cargo "$@"` builds, as lines "kind-name path".
made() {
    cargo "$@" --locked --message-format=json |
        sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\][^}]*"name":"\([^"]*\)"[^}]*}.*"executable":"\([^"]*\)".*/\1-\2 \3/p'
}

# Lines "name path" of the test programs, of the program that tests start, of the one that is measured, and of the
# peers, which are separate workspaces.
programs() {
    cargo build --release --locked >&2 || exit 1
    echo "release ${CARGO_TARGET_DIR:-target}/release/fairtat"
    case " $parts " in *" tests "*)
        made test --no-run | grep -v '^bin-.*/deps/' || exit 1
    esac
    case " $parts " in *" peers "*)
        for peer in burn candle; do
            manifest=benches/peers/$peer/Cargo.toml
            [ -e "$manifest" ] || continue
            # A peer that does not build here is left out, and the table of peers says so.
            made build --release --manifest-path "$manifest" --target-dir "${CARGO_TARGET_DIR:-target}/peers-$peer" |
                sed -n "s/^bin-[^ ]* /peer-$peer /p"
        done
    esac
}

quick=${QUICK:-}
parts=${PARTS:-tests bench peers digits cifar}
for part in $parts; do
    case "$part" in tests | bench | peers | digits | cifar) ;; *)
        echo "PARTS: expected some of tests, bench, peers, digits, cifar; found '$part'" >&2
        exit 2
    esac
done
case "${1:-}" in
bundle)
    dir=${2:?directory for the bundle}
    mkdir -p "$dir"
    cp "$0" "$dir/gpu.sh"
    # Tests know the path of the repository and of the program that they start, so the other machine gets links there.
    { pwd; cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'; } >"$dir/paths"
    programs | while read -r name path; do
        strip -o "$dir/$name" "$path" || exit 1
    done
    ls -l "$dir"
    ;;
run)
    out=${2:?directory for the results}
    export FAIRTAT_CACHE=
    [ -z "${3:-}" ] || export FAIRTAT_TEST_ADAPTER=$3
    adapter=${3:+--adapter $3}
    cifar10=${4:-}
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    bundle=$(cd "$(dirname "$0")" && pwd)
    if [ -e "$bundle/paths" ]; then
        { read -r root; read -r target; } <"$bundle/paths"
        [ -e "$root" ] || { mkdir -p "$(dirname "$root")" && ln -s "$PWD" "$root"; }
        if [ -e "$bundle/bin-fairtat" ]; then
            mkdir -p "$target/debug"
            [ -e "$target/debug/fairtat" ] || cp "$bundle/bin-fairtat" "$target/debug/fairtat"
        fi
        list=$(for path in "$bundle"/release "$bundle"/lib-* "$bundle"/test-* "$bundle"/peer-*; do
            [ ! -e "$path" ] || echo "$(basename "$path") $path"
        done)
    else
        list=$(programs) || exit 1
    fi
    path_of() {
        echo "$list" | sed -n "s/^$1 //p"
    }
    fairtat=$(path_of release)
    failed=0
    # Writes a log of each part and prints the most important lines.
    part() {
        name=$1
        show=$2
        shift 2
        echo "== $name"
        "$@" >"$out/$name.log" 2>&1 || { failed=1; echo "   FAILED, see $out/$name.log"; }
        grep -E "$show" "$out/$name.log"
    }
    wanted() {
        case " $parts " in *" $1 "*) return 0 ;; esac
        return 1
    }
    part engines ^ "$fairtat" engines --json "$out/engines.json"
    if wanted tests; then
        # The quick tests need a device, and show whether the programs of a bundle start at all.
        filter=${quick:+wgsl::profile::tests::a_profile}
        while read -r name path; do
            [ -z "$quick" ] || [ "$name" = lib-fairtat ] || continue
            # shellcheck disable=SC2086
            part "$name" '^test result|FAILED|panicked' "$path" $filter
        done <<<"$(echo "$list" | grep -E '^(lib|test)-')"
    fi
    if wanted bench; then
        size="--arch digits-cnn --arch small-cnn --arch resnet-20 --arch preact-resnet-18 --batch 128 --batch 32"
        [ -z "$quick" ] || size="--arch digits-cnn --width 8 --batch 8 --seconds 0.1 --steps 2 --top 5"
        # shellcheck disable=SC2086
        part bench ^ "$fairtat" bench --engine wgsl $adapter $size --profile --json "$out/bench.json"
        # Kernels for matrix products with subgroup broadcasts are used only on software adapters until they are faster
        # on GPUs. Both runs use fixed kernel choices; otherwise each would use whichever kernels are faster.
        [ -n "$quick" ] || size="--arch preact-resnet-18 --batch 128"
        for subgroups in off on; do
            # shellcheck disable=SC2086
            part bench-subgroups-$subgroups ^ "$fairtat" bench --engine wgsl $adapter $size --profile --deterministic \
                --subgroups $subgroups --json "$out/bench-subgroups-$subgroups.json"
        done
    fi
    if wanted peers; then
        if [ -e benches/peers/run.sh ]; then
            FAIRTAT=$fairtat BURN_STEP=$(path_of peer-burn) CANDLE_STEP=$(path_of peer-candle)
            export FAIRTAT BURN_STEP CANDLE_STEP PYTHON="${PYTHON:-python3}" QUICK="$quick"
            part peers ^ bash benches/peers/run.sh "$out/peers"
        else
            echo "== peers: benches/peers/run.sh is not here, left out"
        fi
    fi
    if wanted digits; then
        # shellcheck disable=SC2086
        part digits-60s '^(last|best|ema) ' "$fairtat" train --preset digits-60s --engine wgsl $adapter \
            ${quick:+--epochs 1 --limit 300 --steps 1} --run-dir "$out/digits-60s"
    fi
    if wanted cifar; then
        if [ -n "$cifar10" ]; then
            # shellcheck disable=SC2086
            part cifar10-small '^(last|best|ema) ' "$fairtat" train --preset cifar10-small --path "$cifar10" \
                --engine wgsl $adapter --run-dir "$out/cifar10-small"
        else
            echo "== cifar: no directory given, left out"
        fi
    fi
    exit $failed
    ;;
*)
    sed -n '2,13p' "$0"
    exit 2
    ;;
esac
