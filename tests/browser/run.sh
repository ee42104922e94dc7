#!/usr/bin/env bash
# The dashboard in a headless Chromium, against real nodes on loopback.
#
#   tests/browser/run.sh        programs from TOPS_BIN_DIR, or target/debug
#
# It installs what is missing: Chromium by apt, playwright-core by npm (into target/). Where the machine cannot, it says so in one line and ends well.
# Screenshots are left in target/browser/shots.
set -euo pipefail
cd "$(dirname "$0")/../.."

left_out() { printf 'left out: the dashboard in a browser: %s\n' "$1"; exit 0; }

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
if [ -z "$(browser)" ]; then
    sudo=; [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if command -v apt-get >/dev/null && $sudo true 2>/dev/null; then
        { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends chromium; } >/dev/null || true
    fi
fi
[ -n "$(browser)" ] || left_out "no Chromium (Debian: apt-get install chromium)"
command -v npm >/dev/null || left_out "no npm (Debian: apt-get install npm)"

modules=target/browser
mkdir -p $modules
if ! cmp -s tests/browser/package-lock.json $modules/package-lock.json || [ ! -d $modules/node_modules/playwright-core ]; then
    cp tests/browser/package.json tests/browser/package-lock.json $modules/
    npm ci --prefix $modules --no-audit --no-fund --loglevel=error >/dev/null || { rm -f $modules/package-lock.json; left_out "playwright-core could not be fetched from the npm registry"; }
fi

TOPS_BROWSER=$(browser) TOPS_BROWSER_MODULES=$PWD/$modules TOPS_BIN_DIR=${TOPS_BIN_DIR:-$PWD/target/debug} exec node tests/browser/dashboard.mjs
