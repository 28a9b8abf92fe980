#!/usr/bin/env bash
# An environment of their own for the libraries that `make bench-train` measures beside ours: some GB, made once.
# The lock is written anew by: setup.sh --lock
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
here=tests/benchmarks/rivals
folder=build/rivals
uv=.venv/bin/uv

if [ "${1:-}" = --lock ]; then
  exec "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
    --no-emit-find-links "$here/requirements.in" -o "$here/requirements.lock"
fi
cmp -s "$here/requirements.lock" "$folder/installed.lock" && exit
python3 -m venv "$folder"
"$uv" pip sync --quiet --python "$folder/bin/python" --require-hashes "$here/requirements.lock" \
  || "$folder/bin/python" -m pip install --quiet --require-hashes -r "$here/requirements.lock"
cp "$here/requirements.lock" "$folder/installed.lock"
