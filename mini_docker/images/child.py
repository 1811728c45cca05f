# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#child-module
"""A layer unpacked by a process of its own: threads of one Python take turns, processes do not."""

from __future__ import annotations

import os
import sys

import mini_docker
from mini_docker.images.layers import unpack_layer
from mini_docker.images.layout import Descriptor, ImageError, Layout
from mini_docker.images.tar import LayerError
from mini_docker.linux.process import PR_SET_PDEATHSIG, prctl

# %% notebooks/13_registry.ipynb#child
WORTH_A_PROCESS = 4 << 20  # bytes of a layer; less is unpacked sooner than a Python starts
REFUSED = 3  # the child's exit status for an ImageError, whose text is on its stderr
SIGKILL = 9
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mini_docker.__file__)))
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from mini_docker.images.child import main; main()"
)


def unpack_beside(layout: Layout, layer: Descriptor, diff_id: str, layers_directory: str) -> None:
    """Do what `unpack_layer` does, a large layer in a child process. Raises ImageError."""
    if layer.size < WORTH_A_PROCESS:
        unpack_layer(layout, layer, diff_id, layers_directory)
        return
    import subprocess  # half of what the child would have to import, and it does not need it

    words = [ROOT, layout.directory, *map(str, layer), diff_id, layers_directory]
    done = subprocess.run(
        [sys.executable, "-ISE", "-c", START, *words], stderr=subprocess.PIPE, text=True
    )
    if done.returncode == REFUSED:
        raise LayerError(done.stderr.strip())
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise LayerError(f"layer {layer.digest}: its unpacker ended with {done.returncode}: {last}")


def main() -> None:
    """Be the child: unpack the layer that the arguments describe; end with the parent."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    directory, media_type, digest, size, diff_id, layers_directory = sys.argv[2:]
    os.umask(0o022)
    try:
        layer = Descriptor(media_type, digest, int(size))
        unpack_layer(Layout(directory), layer, diff_id, layers_directory)
    except ImageError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
