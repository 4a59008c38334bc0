#!/bin/sh
# make_venv.sh FOLDER [PYTHON]: makes a virtual environment with a Python from 3.10 to 3.12.
# Without PYTHON the newest one that runs is taken. A name on PATH is not enough: with version managers it can be a
# stub that only prints an error, so each candidate is asked for its version.
set -eu
folder=$1
chosen=${2:-}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

if [ -n "$chosen" ]; then
    if ! fits "$chosen"; then
        echo "PYTHON=$chosen does not run or is not a Python 3.10, 3.11 or 3.12, which TensorFlow 2.17 needs." >&2
        exit 1
    fi
else
    for candidate in python3.12 python3.11 python3.10 python3 python; do
        if fits "$candidate"; then
            chosen=$candidate
            break
        fi
    done
    if [ -z "$chosen" ]; then
        echo "No Python 3.10, 3.11 or 3.12 found on PATH, and TensorFlow 2.17 needs one of them." >&2
        echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
        exit 1
    fi
fi

if ! "$chosen" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$chosen" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$chosen cannot make virtual environments: its module ensurepip or venv is missing." >&2
    echo "On Debian and Ubuntu: apt install python$version-venv. Or name another one: make PYTHON=/path/to/python ..." >&2
    exit 1
fi

echo "Making a virtual environment in $folder with $("$chosen" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
"$chosen" -m venv --clear "$folder"
