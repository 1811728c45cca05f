# Exported from notebooks/14e_logs.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14e_logs.ipynb#logs-module
"""What a container said, kept on disk: Docker's json-file log, its rotation, readers that follow it."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections import namedtuple
from json.encoder import encode_basestring

from mini_docker.engine.moments import moment, parse_moment
from mini_docker.engine.rotated import ENDS, compress, inode_of, open_rotated, shift
from mini_docker.engine.store import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, NamedTuple, NoReturn

    class Entry(NamedTuple):
        """One line, or piece of one: "stdout" or "stderr", when (nanoseconds since 1970), bytes, attrs."""

        stream: str
        at: int
        data: bytes
        attrs: bytes = b""

else:
    Entry = namedtuple("Entry", ("stream", "at", "data", "attrs"), defaults=(b"",))


# %% notebooks/14e_logs.ipynb#writer
LONGEST = 16384  # Docker cuts a line that is longer into pieces
BUFFER = 1 << 16
MOST_LOOKS = 1000


class LogWriter:
    """The writing end of a log: whole lines, each with its stream and time, in files that rotate.

    `max_size` is in bytes, 0 for no limit; `max_file` counts the file that is written to. `attrs` is in
    each line, old files become archives if they are to be `packed`.
    """

    def __init__(
        self, path: str, max_size: int = 0, max_file: int = 1, attrs: str = "", packed: bool = False
    ) -> None:
        """Open the log to add to it. Raises OSError."""
        self.path = path
        self.max_size, self.max_file = max_size, max_file
        self.attrs, self.packed = attrs, packed
        self.packer = 0  # the process that compresses
        self.rests = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o640)
        self.size = os.fstat(self.fd).st_size

    def write(self, stream: str, data: bytes, at: int) -> None:
        """Add what came out of `stream` at the time `at`; the start of a line waits for its end."""
        lines, self.rests[stream] = split_lines(self.rests[stream] + data)
        if lines:
            tail = f',"stream":"{stream}"{self.attrs},"time":"{moment(at)}"}}\n'
            self._add([f'{{"log":{encode_basestring(text(line))}{tail}'.encode() for line in lines])

    def _add(self, entries: list[bytes]) -> None:
        """Write entries, and begin a new file where the old one is full."""
        if not self.max_size:
            write_whole(self.fd, b"".join(entries))
            return
        for entry in entries:
            if self.size and self.size + len(entry) > self.max_size:
                self._rotate()
            write_whole(self.fd, entry)
            self.size += len(entry)

    def _rotate(self) -> None:
        """Begin a new file. Where that fails, the old one is written to until there is room."""
        self._wait_for_packer()
        full_fd = self.fd
        if os.path.exists(self.path):
            shift(self.path, self.max_file)
        self._open()
        os.close(full_fd)
        if self.packed:
            self.packer = os.fork()
            if self.packer == 0:
                self._pack()

    def _pack(self) -> NoReturn:
        """Be the child that compresses the file before this one: nothing that is ours stays open in it."""
        try:
            os.closerange(0, 1 << 16)
            compress(f"{self.path}.1")
        finally:
            os._exit(0)

    def _wait_for_packer(self) -> None:
        if self.packer:
            os.waitpid(self.packer, 0)
            self.packer = 0

    def close(self, at: int) -> None:
        """Write the lines that have no end, and close the file."""
        for stream, rest in self.rests.items():
            if rest:
                line = f'{{"log":{encode_basestring(text(rest))},"stream":"{stream}"{self.attrs}'
                self._add([f'{line},"time":"{moment(at)}"}}\n'.encode()])
        os.close(self.fd)
        self._wait_for_packer()


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole lines in `data`, in pieces of LONGEST where one is longer, and the rest."""
    *whole, rest = data.split(b"\n")
    lines = [line + b"\n" for line in whole]
    if max(map(len, lines), default=0) > LONGEST:
        lines = [line[at : at + LONGEST] for line in lines for at in range(0, len(line), LONGEST)]
    while len(rest) >= LONGEST:
        lines.append(rest[:LONGEST])
        rest = rest[LONGEST:]
    return lines, rest


def text(line: bytes) -> str:
    """Return bytes as the text that JSON can hold; what is no UTF-8 becomes U+FFFD, as in Docker's."""
    return line.decode(errors="replace")


# %% notebooks/14e_logs.ipynb#reader
def log_path(directory: str, container_id: str) -> str:
    """Return where a container's log is."""
    return f"{directory}/{container_id}-json.log"


def log_files(path: str) -> list[str]:
    """Return the files of a log that are there, as they are or compressed, the oldest first."""
    number = 1
    found = [path]
    while any(os.path.exists(f"{path}.{number}{end}") for end in ENDS):
        found.append(f"{path}.{number}")
        number += 1
    return found[::-1]


LINE = re.compile(
    rb'\{"log":"(.*)","stream":"(stdout|stderr)"(?:,"attrs":(\{.*\}))?,"time":"([^"]+)"\}\n'
)
parse_moment_again = functools.lru_cache(64)(parse_moment)  # what was written at once has one time


def parse_entry(line: bytes) -> Entry | None:
    """Return the entry in a line of the file; None for one that a crash or a full disk cut short."""
    found = LINE.fullmatch(line)
    if found is None:
        return _parse_slowly(line)
    said, stream, attrs, at = found.groups(b"")
    try:
        # the newline alone is escaped
        if said.find(b"\\") == len(said) - 2 and said.endswith(b"n"):
            return Entry(stream.decode(), parse_moment_again(at.decode()), said[:-2] + b"\n", attrs)
        data = json.loads(b'"%b"' % said).encode()
        return Entry(stream.decode(), parse_moment_again(at.decode()), data, attrs)
    except ValueError:
        return None


def _parse_slowly(line: bytes) -> Entry | None:
    """Return the entry in a line that another engine wrote, with other fields or in another order."""
    try:
        fields = json.loads(line)
        attrs = json.dumps(fields["attrs"]).encode() if "attrs" in fields else b""
        return Entry(fields["stream"], parse_moment(fields["time"]), fields["log"].encode(), attrs)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_log(path: str, tail: int | None = None) -> Iterator[Entry]:
    """Yield the entries of a log, oldest first, or its last `tail`; a log that is not there has none."""
    files = log_files(path)
    start: dict[str, int] = {}
    if tail is not None:
        files, start = _last_lines(files, tail)
    for name in files:
        try:
            with open_rotated(name)[0] as file:
                file.seek(start.get(name, 0))
                yield from filter(None, map(parse_entry, file))
        except FileNotFoundError:
            continue


def _last_lines(files: list[str], count: int) -> tuple[list[str], dict[str, int]]:
    """Return the files with the last `count` lines, and the offset of the first of them."""
    kept: list[str] = []
    for name in reversed(files):
        if count <= 0:
            break
        kept.insert(0, name)
        offset, found = _offset_of_last(name, count)
        count -= found
        if count <= 0:
            return kept, {name: offset}
    return kept, {}


def _offset_of_last(name: str, count: int) -> tuple[int, int]:
    """Return where the last `count` lines of a file begin, and how many there are, at most `count`."""
    try:
        with open_rotated(name)[0] as file:
            end = position = file.seek(0, os.SEEK_END)
            lines = 0
            while position > 0:
                size = min(BUFFER, position)
                position -= size
                file.seek(position)
                block = file.read(size)
                at = len(block)
                while (at := block.rfind(b"\n", 0, at)) >= 0:
                    if position + at + 1 == end:
                        continue  # the end of the last line, not of one before it
                    lines += 1
                    if lines == count:
                        return position + at + 1, count
            return 0, lines + (end > 0)
    except FileNotFoundError:
        return 0, 0


# %% notebooks/14e_logs.ipynb#follow
def follow_log(path: str, tail: int | None, wait: Callable[[], bool]) -> Iterator[Entry]:
    """Yield what a log has, then what is added to it, until `wait` says that nothing more comes.

    `wait()` sleeps until something was added and returns True, or False at the end. A rotation is
    followed: what is left in the old file first.
    """
    started = [*log_files(path)]
    if not os.path.exists(path):
        started = started[:-1]
    kept, start = (started, {}) if tail is None else _last_lines(started, tail)
    for name in kept[:-1] if kept[-1:] == [path] else kept:
        with open_rotated(name)[0] as file:
            file.seek(start.get(name, 0))
            yield from filter(None, map(parse_entry, file))
    offset = start.get(path, 0) if path in kept else -1
    yield from _follow_file(path, offset, wait)


def _follow_file(path: str, offset: int, wait: Callable[[], bool]) -> Iterator[Entry]:
    """Yield the entries of one file from `offset` (-1: its end) on, and of those that replace it."""
    file = _open_when_there(path, wait)
    if file is None:
        return
    file.seek(0, os.SEEK_END) if offset < 0 else file.seek(offset)
    inode, more, rest = os.fstat(file.fileno()).st_ino, True, b""
    try:
        while True:
            replaced = _number_of(inode, path) != 0
            for line in file:
                rest += line
                if rest.endswith(b"\n"):
                    if entry := parse_entry(rest):
                        yield entry
                    rest = b""
            if replaced:
                try:
                    following, inode = _next_file(inode, path)
                except FileNotFoundError:
                    return
                file.close()
                file, rest = following, b""
            elif not more:
                return
            else:
                more = wait()
    finally:
        file.close()


def _open_when_there(path: str, wait: Callable[[], bool]) -> IO[bytes] | None:
    """Open a log that may not have been begun yet."""
    while True:
        try:
            return open(path, "rb")
        except FileNotFoundError:
            if not wait() and not os.path.exists(path):
                return None


def _number_of(inode: int, path: str) -> int:
    """Return where in the row of files (0: PATH, 1: PATH.1 ...) a file is by now; -1 when it is gone."""
    for number, name in enumerate(reversed(log_files(path))):
        try:
            if inode_of(name) == inode:
                return number
        except FileNotFoundError:
            continue
    return -1


def _next_file(inode: int, path: str) -> tuple[IO[bytes], int]:
    """Open the file after one (the oldest, if that is gone; PATH, in the end); return its inode as well.

    A rotation may move both while we look: it is the right one if the first is still one step further.
    Raises FileNotFoundError where a writer died between two renames.
    """
    for _ in range(MOST_LOOKS):
        number = _number_of(inode, path)
        names = log_files(path)[::-1]
        wanted = number - 1 if number > 0 else len(names) - 1
        try:
            found, its_inode = open_rotated(names[wanted])
        except (FileNotFoundError, IndexError):
            time.sleep(0.001)
            continue
        if number == _number_of(inode, path) and _number_of(its_inode, path) == wanted:
            return found, its_inode
        found.close()
    raise FileNotFoundError(2, f"{path} was taken away")
