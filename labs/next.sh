#!/bin/sh
# What "make run" says when it has worked.
cat <<'EOF'

That was a process with its own root, processes, network and limits, made by the Python in this folder.
Open the notebooks:   sudo make lab        (which chapters run here: make doctor)
Go on by hand:        sudo mini_docker run -it busybox        and README.md, "Sixty seconds"
EOF
