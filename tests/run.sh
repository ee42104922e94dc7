#!/usr/bin/env bash
# Everything that must hold before a change goes in. From anywhere:
#
#   tests/run.sh          all of it (at most half an hour from cold on two cores)
#   tests/run.sh fast     without the tests whose names begin with slow_ (minutes, when built before)
#
# It installs what its tests need and is missing: Rust's own parts by rustup, an OpenCL loader by apt when the machine lets it.
# A step that the machine cannot do says so in one line; a step that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-all}
case $mode in all | fast) ;; *) echo "usage: tests/run.sh [fast]" >&2; exit 2 ;; esac
[ $# -le 1 ] || { echo "usage: tests/run.sh [fast]" >&2; exit 2; }
started=$SECONDS

step() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - started)); }
left_out() { printf 'left out: %s\n' "$1"; }

command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs and run this again" >&2; exit 3; }
command -v cc >/dev/null || { echo "a C compiler is missing: install it (Debian: apt-get install build-essential) and run this again" >&2; exit 3; }
for part in rustfmt clippy; do
    cargo "${part/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$part"
done

# The opencl feature links libOpenCL at start; without the loader everything else is still checked.
features=(--all-features)
if grep -q '^opencl *=' compute/Cargo.toml; then
    if ! ldconfig -p | grep -q 'libOpenCL\.so '; then
        step "an OpenCL loader and its CPU driver"
        sudo=; [ "$(id -u)" = 0 ] || sudo="sudo -n"
        if command -v apt-get >/dev/null && $sudo true 2>/dev/null; then
            { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends ocl-icd-opencl-dev pocl-opencl-icd; } >/dev/null || true
        fi
        if ! ldconfig -p | grep -q 'libOpenCL\.so '; then
            left_out "the opencl feature: no libOpenCL (Debian: apt-get install ocl-icd-opencl-dev pocl-opencl-icd)"
            features=()
        fi
    fi
fi

step "format"
cargo fmt --all -- --check

step "lints"
cargo clippy --workspace --all-targets "${features[@]}" --locked -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps "${features[@]}" --locked --quiet

step "the law on bare metal"
bare=$(rustup target list --installed 2>/dev/null | grep -- '-none' || true)
if [ -n "$bare" ]; then
    for target in $bare; do cargo build -p tops-protocol --lib --target "$target" --locked; done
else
    left_out "no bare-metal target is installed (rustup target add x86_64-unknown-none)"
fi

step "licences, bans, sources"
if command -v cargo-deny >/dev/null; then
    cargo deny --log-level error check licenses bans sources
    left_out "advisories, which change by themselves (cargo deny check advisories)"
else
    left_out "cargo-deny is not installed"
fi

if [ -x kernels/build ]; then
    step "kernels are what their sources give"
    kernels/build --check
fi

step "programs and tests"
# Tests of whole programs need the programs; cargo builds them with the tests, once and with the same features.
cargo test --workspace "${features[@]}" --locked --no-run
# The end-to-end tests start these; without the variable they build their own.
TOPS_BIN_DIR=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug
export TOPS_BIN_DIR

step "tests"
if command -v cargo-nextest >/dev/null; then
    filter=(); [ "$mode" = all ] || filter=(-E 'not test(/(^|::)slow_/)')
    cargo nextest run --workspace "${features[@]}" --locked --no-fail-fast --status-level fail --final-status-level slow "${filter[@]}"
    cargo test --workspace --doc "${features[@]}" --locked --quiet
else
    skip=(); [ "$mode" = all ] || skip=(-- --skip slow_)
    cargo test --workspace "${features[@]}" --locked --no-fail-fast "${skip[@]}"
fi

step "watched by Prometheus: metrics, alerts, board, logs"
if ! command -v python3 >/dev/null; then
    left_out "python3 is not installed: nothing of it is checked"
else
    tests/operations/logs
    docs/operations/grafana/make --check
    if tools=$(tests/operations/tools); then
        PATH=$tools:$PATH tests/operations/rules
        if [ "$mode" = all ]; then PATH=$tools:$PATH tests/operations/check; fi
    else
        left_out "alerts and board: no Prometheus (Debian: apt-get install prometheus)"
    fi
fi

step "systemd units"
if command -v systemd-analyze >/dev/null; then
    tests/operations/units
else
    left_out "systemd-analyze is not installed (Debian: apt-get install systemd)"
fi

step "the dashboard in a browser"
tests/browser/run.sh
step "the HTTP interface is what it says it is"
# Real nodes against their own description; the time is for each of two.
if command -v python3 >/dev/null; then
    tests/api/check --bin-dir "$TOPS_BIN_DIR" --seconds "$([ "$mode" = all ] && echo 60 || echo 20)"
else
    left_out "python3 is missing (Debian: apt-get install python3-venv)"
fi

step "all good"
