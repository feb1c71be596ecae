#!/bin/sh
# Lint, type-check and test; prepares .venv first when it is not there.
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/pytest ] || sh setup.sh
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
.venv/bin/pytest -n auto "$@"
