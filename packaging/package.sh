#!/usr/bin/env bash
# Packs target/TARGET/release into DIR: .deb and .tar.xz for Linux, .zip for Windows, .dmg for macOS.
#
#   cargo build --release --locked --target TARGET && packaging/package.sh TARGET DIR
#
# Linux needs cargo-deb, macOS cargo-packager; docs/packaging.md has the variables that sign the .dmg.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?target, such as x86_64-unknown-linux-gnu}
mkdir -p "${2:?directory for the packages}"
packages=$(cd "$2" && pwd)
release=target/$target/release
version=$(cargo pkgid | sed 's/.*[#@]//')
name=fairtat-$version-$target
staged=target/packaging/$name

rm -rf target/packaging
mkdir -p "$staged"
cp README.md LICENSE-APACHE LICENSE-MIT "$staged"
case $target in
*-linux-*)
    # What the program writes itself; Cargo.toml says where the .deb installs it.
    share=target/packaging/share
    "$release/fairtat" man "$share/man"
    mkdir -p "$share/completions"
    for shell in bash zsh fish; do
        "$release/fairtat" completions $shell >"$share/completions/fairtat.$shell"
    done
    cargo deb --no-build --locked --target "$target" --output "$packages/"
    cp -R "$share"/* "$release/fairtat" packaging/fairtat.desktop assets/icon.svg "$staged"
    tar -C target/packaging -cJf "$packages/$name.tar.xz" "$name"
    ;;
*-windows-*)
    cp "$release/fairtat.exe" "$staged"
    (cd target/packaging && 7z a "$packages/$name.zip" "$name")
    ;;
*-apple-*)
    # Secrets that are not set arrive as empty variables, which cargo-packager takes for credentials.
    for secret in APPLE_CERTIFICATE APPLE_CERTIFICATE_PASSWORD APPLE_ID APPLE_PASSWORD APPLE_TEAM_ID; do
        [ -n "${!secret:-}" ] || unset "$secret"
    done
    identity=${APPLE_SIGNING_IDENTITY:+"\"$APPLE_SIGNING_IDENTITY\""}
    # CI=true: no layout of the disk image with Finder.
    CI=true cargo packager --formats dmg --target "$target" --config '{
        "productName": "fairtat", "version": "'"$version"'", "identifier": "org.fairtat.fairtat",
        "binaries": [{ "path": "fairtat", "main": true }], "binariesDir": "'"$PWD/$release"'", "outDir": "'"$packages"'",
        "icons": ["assets/icon.png"], "category": "Education", "macos": { "signingIdentity": '"${identity:-null}"' }
    }'
    ;;
*)
    echo "$target: expected a target of Linux, Windows or macOS" >&2
    exit 2
    ;;
esac
