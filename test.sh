#!/usr/bin/env bash
# Everything that has to hold before a change lands: format, lints, tests. Runs on any machine with Rust.
set -euo pipefail
cd "$(dirname "$0")"

install() {
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -q
    $sudo apt-get install -y -q "$@"
}

# A linker and the C compiler for the TLS library; Rust itself is not installed by this script.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    if command -v apt-get >/dev/null 2>&1; then
        install "$2"
    else
        echo "error: '$1' is missing; install it with your package manager" >&2
        exit 1
    fi
}
need cc gcc

# The GPU tests need an adapter. Where no driver has registered itself, Mesa's software one is installed; macOS and
# Windows bring theirs.
if command -v apt-get >/dev/null 2>&1 &&
    ! compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null && ! compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; then
    install mesa-vulkan-drivers libvulkan1
fi
command -v cargo >/dev/null 2>&1 || {
    echo "error: 'cargo' is missing; install Rust 1.95 or newer, see rustup.rs" >&2
    exit 1
}

# Vulkan drivers complain without it; nothing is kept there.
if [ -z "${XDG_RUNTIME_DIR:-}" ] && [ "$(uname)" = Linux ]; then
    XDG_RUNTIME_DIR="$(mktemp -d)"
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
fi

cargo fmt --all --check
cargo clippy --all-targets --locked -- -D warnings
# The headless program. Without the window's crates, features of shared crates would change, and some 200 crates would be
# compiled a second time.
cargo clippy --no-default-features --features _window-dependencies --lib --bins --locked -- -D warnings
cargo test --locked
# The window under signals needs a display; where there is no package manager that installs one, this is left to CI.
if [ "$(uname)" = Linux ] && command -v apt-get >/dev/null 2>&1; then
    command -v xvfb-run >/dev/null 2>&1 || install xvfb xauth
    install libxkbcommon-x11-0 libx11-xcb1 libxcursor1 libxi6 libxrandr2
    xvfb-run -a cargo test --locked --test cli -- --ignored a_signal_saves
fi
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet
