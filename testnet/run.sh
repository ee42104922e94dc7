#!/usr/bin/env bash
# A whole network on this machine: a bootstrap node, miners, a verify-only node, and an aggregator that receives.
#
#   testnet/run.sh [--nodes N] [--seconds S] [--summary FILE.json] [--backend B] [--keep]
#                  [--scenario plain|kill|outage] [--outage S] [--bridges N] [--lan] [--bin-dir DIR]
#
# With --lan it listens on every address of this machine, and prints the command by which another one joins.
# Without --seconds it runs until Ctrl-C. With --bin-dir nothing is built. Exit 0: every check passed; 1: one failed, and which.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

for argument in "$@"; do
    case $argument in
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --bin-dir) exec "$(for ((i = 1; i <= $#; i++)); do if [ "${!i}" = --bin-dir ]; then i=$((i + 1)); echo "${!i:-.}"; fi; done)/tops-testnet" "$@" ;;
        --bin-dir=*) exec "${argument#--bin-dir=}/tops-testnet" "$@" ;;
    esac
done

command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs and run this again" >&2; exit 3; }
if ! command -v cc >/dev/null; then
    sudo=; [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if command -v apt-get >/dev/null && $sudo true 2>/dev/null; then
        { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq build-essential; } >/dev/null
    else
        echo "a C compiler is missing: install it (Debian: apt-get install build-essential) and run this again" >&2
        exit 3
    fi
fi

echo "building …"
cargo build --manifest-path "$root/Cargo.toml" --release --locked -p tops-node -p tops-bootstrap -p tops-tests --bins
target=$(cargo metadata --manifest-path "$root/Cargo.toml" --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
exec "$target/release/tops-testnet" "$@"
