#!/usr/bin/env bash
# Remove what "make" made in this checkout. Containers are removed by "make reset".
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache build ./*.egg-info tests/dockerode/node_modules
find . -name .git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
link=/usr/local/bin/mini_docker
[[ $(readlink "$link" || true) != "$PWD/labs/bin/mini_docker" ]] || rm "$link"
