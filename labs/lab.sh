#!/usr/bin/env bash
# JupyterLab for the notebooks, reachable from this machine only, with a token of its own.
#
#   labs/lab.sh [PORT [ADDRESS]]
#
# ADDRESS 0.0.0.0 is for the virtual machine, whose port is forwarded from the host's 127.0.0.1.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${1:-8888}
address=${2:-127.0.0.1}

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    printf 'Port %s is taken. Remedy: sudo make lab PORT=%s\n' "$port" $((port + 1)) >&2
    exit 1
fi
# By the environment and not as an argument: arguments are for everybody to read in ps.
JUPYTER_TOKEN=$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
export JUPYTER_TOKEN
printf '\nOpen   http://127.0.0.1:%s/lab/tree/notebooks?token=%s\nStop   Ctrl-C\n\n' "$port" "$JUPYTER_TOKEN"
root=()
((EUID != 0)) || root=(--allow-root)
exec .venv/bin/python -m jupyterlab --no-browser "${root[@]}" --ServerApp.ip="$address" \
    --ServerApp.port="$port" --ServerApp.port_retries=0 --ServerApp.root_dir="$PWD" --log-level=WARN
