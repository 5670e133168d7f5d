#!/bin/sh
# Times and questions every model of this folder on the board: sh run.sh
# Written for @BOARD@, @RUNTIME@. Not yet run on hardware.
# It leaves results.tar here, and everything else in results/ and kept/. Nothing is written outside of this folder.
set -u
cd "$(dirname "$0")" || exit 1

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "There is no $python here: install it (sudo apt install python3), or name one: PYTHON=/path/to/python3 sh run.sh" >&2
    exit 3
fi
if ! said=$(sha256sum -c SHA256SUMS 2>&1); then
    echo "This folder is damaged, copy it again:" >&2
    echo "$said" | grep -v ': OK$' >&2
    exit 1
fi
EDGEPRESS_HOME=$PWD/kept
export EDGEPRESS_HOME
exec "$python" board.pyz carry "$PWD"
