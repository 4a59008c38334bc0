#!/bin/sh
# make_venv.sh FOLDER [PYTHON] [STACK]: makes a virtual environment for a stack (CONTRIBUTING.md has both), and writes the
# name of the stack into FOLDER/stack. A folder that has a Python already stays as it is.
# STACK is 2.17 (Python 3.10 to 3.12) or newest (Python 3.11 to 3.13); without it, 2.17 if there is a Python for it.
# Without PYTHON the newest one that fits and runs is taken. A name on PATH is not enough: with version managers it can be
# a stub that only prints an error, so each candidate is asked for its version. If none fits, uv fetches one.
set -eu
folder=$1
chosen=${2:-}
stack=${3:-}
names="python3.13 python3.12 python3.11 python3.10 python3 python"

fail() {
    echo "$1" >&2
    exit 1
}

fits() {
    [ "$2" = 2.17 ] && minors="10, 11, 12" || minors="11, 12, 13"
    "$1" -c "import sys; sys.exit(not (sys.version_info[0] == 3 and sys.version_info[1] in ($minors)))" >/dev/null 2>&1
}

uv_here() { # prints the path of uv, which any Python with pip can install
    command -v uv && return
    for candidate in $names; do
        if "$candidate" -m pip install --quiet --target "$scratch" uv >/dev/null 2>&1; then
            echo "$scratch/bin/uv"
            return
        fi
    done
    return 1
}

case $stack in
"") stacks="2.17 newest" ;;
2.17 | newest) stacks=$stack ;;
*) fail "STACK=$stack must be 2.17 or newest." ;;
esac

if [ -x "$folder/bin/python" ]; then
    chosen=$folder/bin/python
    names=
elif [ -n "$chosen" ]; then
    names=
fi
found=
for stack in $stacks; do
    if [ -n "$chosen" ] && fits "$chosen" "$stack"; then
        found=$chosen
        break
    fi
    for candidate in $names; do
        if fits "$candidate" "$stack"; then
            found=$candidate
            break 2
        fi
    done
done

if [ -n "$chosen" ] && [ -z "$found" ]; then
    fail "PYTHON=$chosen does not run or does not fit: TensorFlow 2.17 needs Python 3.10 to 3.12, the newest 3.11 to 3.13."
fi

if [ -n "$found" ] && [ "$found" = "$folder/bin/python" ]; then
    echo "$stack" >"$folder/stack"
    exit
fi

if [ -z "$found" ]; then
    [ "$stacks" = newest ] && version=3.13 || version=3.12
    [ "$stacks" = newest ] || stack=2.17
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    echo "No Python that fits (3.10 to 3.13) is on PATH; uv fetches Python $version." >&2
    if ! uv=$(uv_here) || ! "$uv" venv --quiet --seed --python "$version" "$folder"; then
        fail "uv could not fetch Python $version. Install it, or name another: make PYTHON=/path/to/python$version ..."
    fi
    echo "$stack" >"$folder/stack"
    exit
fi

if ! "$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$found cannot make virtual environments: its module ensurepip or venv is missing." >&2
    fail "On Debian and Ubuntu: apt install python$version-venv. Or name another one: make PYTHON=/path/to/python ..."
fi

echo "Making a virtual environment in $folder with $("$found" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
"$found" -m venv --clear "$folder"
echo "$stack" >"$folder/stack"
