#!/bin/sh
# Prepare .venv in this folder: Python 3.11 or newer, accelsim editable, every extra but torch. Safe to run again.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null 2>&1 || ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
        python=python3
    else
        echo "setup.sh: needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)" >&2
        exit 2
    fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup.sh: needs Python 3.11 or newer" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev]"
