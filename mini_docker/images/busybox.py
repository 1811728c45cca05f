# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#busybox-module
"""The embedded image: Debian's busybox-static made into an OCI image, with no registry and no network."""

from __future__ import annotations

import io
import json
import os
import tarfile

from mini_docker.images.layout import (
    ARCHITECTURE,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Digest,
    ImageError,
    Layout,
    as_json,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/12_images.ipynb#busybox-parts
BINARIES = ("/bin/busybox", "/usr/bin/busybox")
DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
    "var/www": 0o755,
    "sbin": 0o755,
}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\n",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_busybox() -> str:
    """Return the path of a static busybox. Raises ImageError with the remedy where there is none."""
    for path in BINARIES:
        if os.access(path, os.X_OK) and not _needs_libraries(path):
            return path
    raise ImageError("no static busybox on this machine; remedy: apt-get install busybox-static")


def _needs_libraries(path: str) -> bool:
    """Return whether a program names a dynamic loader, elf(5): it would not find it in the image."""
    with open(path, "rb") as file:
        return b"/ld-" in file.read(4096)


def _applets(binary: str) -> list[str]:
    import subprocess

    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True)
    return sorted(set(listed.stdout.split()) - {"busybox"})


def _entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """Return a tar header whose bytes depend on nothing but the arguments: owner root, time 0."""
    info = tarfile.TarInfo(name)
    info.mode, info.type = mode, kind
    return info


# %% notebooks/12_images.ipynb#busybox-image
def busybox_layer(binary: str) -> bytes:
    """Return the image's one layer, a tar whose bytes are the same for the same `binary`."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in sorted(DIRECTORIES.items()):
            archive.addfile(_entry(name, mode, tarfile.DIRTYPE))
        for name, text in sorted(FILES.items()):
            info = _entry(name, 0o600 if name.endswith("shadow") else 0o644)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
        with open(binary, "rb") as file:
            info = _entry("bin/busybox", 0o755)
            info.size = os.fstat(file.fileno()).st_size
            archive.addfile(info, file)
        for applet in _applets(binary):
            info = _entry(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
            info.linkname = "busybox"
            archive.addfile(info)
    return output.getvalue()


def busybox_config(diff_id: str) -> dict[str, Any]:
    """Return the image's config. Source: OCI image-spec config.md."""
    return {
        "architecture": ARCHITECTURE.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "mini_docker setup: Debian's busybox-static"}],
    }


def install_busybox(layout: Layout) -> Descriptor:
    """Make the image "busybox:latest" in `layout` and return its manifest's descriptor.

    Repeating it changes nothing. Raises ImageError where no busybox is installed.
    """
    layout.create()
    with layout.lease() as lease:

        def put(data: bytes, media_type: str) -> Descriptor:
            lease.hold(Digest.of(data))
            return layout.put(data, media_type)

        layer = put(busybox_layer(find_busybox()), MEDIA_TYPE_LAYER)
        config = json.dumps(busybox_config(layer.digest), sort_keys=True).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": as_json(put(config, MEDIA_TYPE_CONFIG)),
            "layers": [as_json(layer)],
        }
        stored = put(json.dumps(manifest, sort_keys=True).encode(), MEDIA_TYPE_MANIFEST)
        layout.tag("busybox", stored)
        return stored
