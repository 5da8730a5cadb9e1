#!/usr/bin/env bash
# Installs the Debian packages of the peers that the tests drive, where this user may.
# Where that is not possible, one sentence names what is missing and it ends with 1, unless
# ALLOW_MISSING_PEERS=1 (then the tests that need a missing peer are skipped).
set -uo pipefail
missing=""
for package in "$@"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
    missing="$missing $package"
done
[ -z "$missing" ] && exit 0
root=""
[ "$(id -u)" = 0 ] || root="sudo -n"
if { [ -z "$root" ] || $root true 2>/dev/null; } && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  if $root apt-get -q update >"$log" 2>&1 &&
     $root apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing >>"$log" 2>&1
  then rm -f "$log"; exit 0; fi
  tail -n 5 "$log" >&2
fi
echo "Missing peers for the tests:$missing (install them with apt-get, or set ALLOW_MISSING_PEERS=1)" >&2
[ "${ALLOW_MISSING_PEERS:-}" = 1 ]
