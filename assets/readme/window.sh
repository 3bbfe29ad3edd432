#!/usr/bin/env bash
# Makes the README's pictures of the window, and measures how quickly it answers: assets/readme/window.sh [DIR]
# Without a display it brings its own (xvfb, with Mesa's software driver).
set -euo pipefail
cd "$(dirname "$0")/../.."
out="${1:-target/window}"
cargo build --release --locked
program=("$PWD/target/release/fairtat" window --tour "$out" --tour-epochs 4 --size 1280x820)
export FAIRTAT_STATE=
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    "${program[@]}"
else
    xvfb-run -a -s "-screen 0 1400x900x24" "${program[@]}"
fi
cp "$out/story.png" assets/readme/window-story.png
cp "$out/inspector.png" assets/readme/window-inspector.png
