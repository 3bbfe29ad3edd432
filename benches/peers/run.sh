#!/usr/bin/env bash
# fairtat beside burn, Candle and PyTorch: the same training step, measured in turns, one table of ratios.
#
#   benches/peers/run.sh OUT [options]      OUT gets peers.md, peers.json and logs; --help lists the options
#
# Programs that the environment does not name are built if Rust is installed: fairtat, burn/ and candle/ (burn takes
# long: many hundred crates). If CUDA's compiler is on the path, candle/ is built for the GPU. Without Rust, FAIRTAT,
# BURN_STEP and CANDLE_STEP name programs built elsewhere; missing ones are left out, and the table says so. PYTHON
# names a Python with torch; the default is python3.
#
#   NO_BUILD=1      uses existing builds and builds nothing
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# build DIRECTORY PROGRAM [cargo's arguments]: prints the program's path if it exists afterwards.
build() {
    local directory=$1 program=$2 target
    shift 2
    [ -f "$directory/Cargo.toml" ] && command -v cargo >/dev/null || return 0
    target=$(cd "$directory" && cargo metadata --locked --no-deps --format-version 1 2>/dev/null |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    [ -n "${NO_BUILD:-}" ] || (cd "$directory" && cargo build --release --locked "$@" >&2) ||
        echo "$program: the build failed; an older one is taken where there is one" >&2
    [ ! -x "$target/release/$program" ] || echo "$target/release/$program"
}

case " $* " in *" --help "* | *" -h "*) exec python3 "$here/rounds.py" --help ;; esac

cuda=()
command -v nvcc >/dev/null && cuda=(--features cuda)
[ -n "${FAIRTAT:-}" ] || FAIRTAT=$(build "$root" fairtat --bin fairtat)
[ -n "${BURN_STEP:-}" ] || BURN_STEP=$(build "$here/burn" burn-step)
[ -n "${CANDLE_STEP:-}" ] || CANDLE_STEP=$(build "$here/candle" candle-step ${cuda[@]+"${cuda[@]}"})
export FAIRTAT BURN_STEP CANDLE_STEP PYTHON="${PYTHON:-python3}"
exec python3 "$here/rounds.py" "$@"
