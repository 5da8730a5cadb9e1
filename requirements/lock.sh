#!/usr/bin/env bash
# Writes the locks from pyproject.toml: run.txt for `make demo`, test.txt beside it for `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.venv/lock
# Debian's own Python: a later release of 3.11 needs less, and its lock would be refused there.
test -x "$tools/bin/pip-compile" || { /usr/bin/python3 -m venv "$tools"; "$tools/bin/pip" install -q pip-tools; }
flags=(--quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url
       --no-emit-find-links --no-emit-trusted-host --no-header --upgrade)
"$tools/bin/pip-compile" "${flags[@]}" --output-file requirements/run.txt pyproject.toml requirements/build.in
"$tools/bin/pip-compile" "${flags[@]}" --extra test --constraint requirements/run.txt \
    --output-file requirements/test.txt pyproject.toml requirements/build.in
