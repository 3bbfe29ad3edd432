#!/usr/bin/env bash
# What has to be seen on a real GPU, in one go: every test, a training on digits, one on CIFAR-10, the bench.
#
#   benches/gpu.sh run OUT [ADAPTER] [CIFAR10]   with Rust on this machine; from the root of the repository
#   benches/gpu.sh bundle DIR                    builds and strips the programs into DIR, for a machine without Rust
#   DIR/gpu.sh run OUT [ADAPTER] [CIFAR10]       there (same processor and system), from the root of a copy of the repository
#
# ADAPTER is a part of the adapter's name; without it the fastest is taken. CIFAR10 is a directory with the set's binary
# files. OUT gets a log of each part and the run directories; the exit status says whether every part succeeded.
set -uo pipefail

# Lines "name path" of the test programs, of the program that tests start, and of the one that is measured.
programs() {
    cargo build --release --locked >&2 || exit 1
    cargo test --no-run --locked --message-format=json |
        sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\][^}]*"name":"\([^"]*\)"[^}]*}.*"executable":"\([^"]*\)".*/\1-\2 \3/p' |
        grep -v '^bin-.*/deps/'
    echo "release ${CARGO_TARGET_DIR:-target}/release/fairtat"
}

case "${1:-}" in
bundle)
    dir=${2:?directory for the bundle}
    mkdir -p "$dir"
    cp "$0" "$dir/gpu.sh"
    # Tests know the path of the repository and of the program that they start: the other machine gets links there.
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
    bundle=$(cd "$(dirname "$0")" && pwd)
    if [ -e "$bundle/paths" ]; then
        { read -r root; read -r target; } <"$bundle/paths"
        [ -e "$root" ] || { mkdir -p "$(dirname "$root")" && ln -s "$PWD" "$root"; }
        mkdir -p "$target/debug"
        [ -e "$target/debug/fairtat" ] || cp "$bundle/bin-fairtat" "$target/debug/fairtat"
        list=$(for path in "$bundle"/lib-* "$bundle"/test-*; do echo "$(basename "$path") $path"; done)
        fairtat=$bundle/release
    else
        list=$(programs) || exit 1
        fairtat=$(echo "$list" | sed -n 's/^release //p')
        list=$(echo "$list" | grep -E '^(lib|test)-')
    fi
    failed=0
    part() {
        name=$1
        shift
        echo "== $name"
        "$@" >"$out/$name.log" 2>&1 || { failed=1; echo "   FAILED"; }
        grep -E 'test result|^(last|best|ema) |images/s|wgsl  ' "$out/$name.log"
    }
    part engines "$fairtat" engines --json "$out/engines.json"
    while read -r name path; do
        part "$name" "$path"
    done <<<"$list"
    # shellcheck disable=SC2086
    part digits-60s "$fairtat" train --preset digits-60s --engine wgsl $adapter --run-dir "$out/digits-60s"
    if [ -n "$cifar10" ]; then
        # shellcheck disable=SC2086
        part cifar10-small "$fairtat" train --preset cifar10-small --path "$cifar10" --engine wgsl $adapter \
            --run-dir "$out/cifar10-small"
    else
        echo "== cifar10-small: no directory given, left out"
    fi
    # shellcheck disable=SC2086
    part bench "$fairtat" bench --engine wgsl $adapter --arch digits-cnn --arch small-cnn --arch resnet-20 \
        --arch preact-resnet-18 --batch 128 --json "$out/bench.json"
    exit $failed
    ;;
*)
    sed -n '2,9p' "$0"
    exit 2
    ;;
esac
