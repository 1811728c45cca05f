"""Checks of chapters 14 to 14h."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed, run_in_child

ONE, TWO, THREE = "3f" + "0" * 62, "3fa" + "1" * 61, "77" + "2" * 62


@check
def check_find(answer: Callable[[str, dict[str, str]], str]) -> Verdict:
    """Check the look-up of a container by name, id, or the start of an id."""
    containers = {THREE: "db", ONE: "web", TWO: "77"}
    if answer("web", containers) != ONE:
        return failed("the name 'web' was not found")
    if answer(TWO, containers) != TWO:
        return failed("a whole id was not found")
    if answer("3fa", containers) != TWO:
        return failed("'3fa' starts one id only, and it was not found")
    if answer("77", containers) != TWO:
        return failed("'77' is somebody's name and the start of another's id: the exact name wins")
    for reference, error in (("3f", ValueError), ("nosuch", LookupError), ("", LookupError)):
        try:
            found = answer(reference, containers)
        except error:
            continue
        return failed(
            f"{reference!r} gave {found!r}: it means {'two' if error is ValueError else 'no'} containers"
        )
    return passed("names, ids, unique starts; and an honest no")


@check
def check_reclaim(answer: Callable[[str, set[str]], list[str]]) -> Verdict:
    """Check the removal of names that mean nobody."""
    with tempfile.TemporaryDirectory() as directory:
        for name, target in (("web", ONE), ("old", TWO), ("ancient", THREE)):
            os.symlink(target, f"{directory}/{name}")
        with open(f"{directory}/README", "w") as file:
            file.write("not ours")
        removed = answer(directory, {ONE})
        left = sorted(os.listdir(directory))
    if "web" not in left:
        return failed("'web' is gone, and its container exists")
    if "README" not in left:
        return failed("README was no symlink, so no name of ours, and is gone")
    if left != ["README", "web"]:
        return failed(f"left in the directory: {left}; two of the names mean nobody")
    if removed != ["ancient", "old"]:
        return failed(f"the names were removed, but you return {removed}")
    return passed("what means nobody is gone, and nothing else")


@check
def check_split(answer: Callable[[bytes], tuple[list[bytes], bytes]]) -> Verdict:
    """Check the cutting of a stream into lines (chapter 14c)."""
    if answer(b"one\ntwo\nthr") != ([b"one\n", b"two\n"], b"thr"):
        return failed(
            "two whole lines and the start of a third: lines keep their end, the start is returned apart"
        )
    if answer(b"") != ([], b""):
        return failed("nothing came, so there are no lines and there is no rest")
    if answer(b"\n") != ([b"\n"], b""):
        return failed("an empty line is a line")
    if answer(b"\xff\xfe\n\x00") != ([b"\xff\xfe\n"], b"\x00"):
        return failed("a container writes bytes: nothing may be decoded, and nothing lost")
    return passed("whole lines now, the rest later")


@check
def check_bind(answer: Callable[[str], tuple[str, str, bool]]) -> Verdict:
    """Check the reading of -v (chapter 14b)."""
    if answer("/data:/srv") != ("/data", "/srv", False):
        return failed("'/data:/srv' is read as " + repr(answer("/data:/srv")))
    if answer("/data:/srv:ro") != ("/data", "/srv", True):
        return failed("'ro' makes it read-only")
    if answer("/data:/srv:rw") != ("/data", "/srv", False):
        return failed("'rw' is the default, spelled out")
    for bad, why in (
        ("/data", "one path alone is an anonymous volume (chapter 16), and no bind"),
        ("/data:srv", "a relative path in the container"),
        ("/data:/", "the root cannot be a volume"),
        ("/data:/../..", "that is the root, in other words"),
        ("/data:/srv:fast", "there is no such mode"),
        (":/srv", "an empty source"),
    ):
        try:
            answer(bad)
        except ValueError:
            continue
        return failed(f"'{bad}' is let through: {why}")
    return passed("source, destination, read-only, and six refusals")


@check
def check_demultiplex(answer: Callable[[bytes], tuple[list[tuple[int, bytes]], bytes]]) -> Verdict:
    """Check the client's side of Docker's frames (chapter 14d)."""
    out, err = b"\x01\0\0\0\0\0\0\x02hi", b"\x02\0\0\0\0\0\x01\x00" + b"e" * 256
    if answer(out + err) != ([(1, b"hi"), (2, b"e" * 256)], b""):
        return failed(
            "two whole frames, of 2 and of 256 bytes, are not read: the length is big-endian"
        )
    if answer(out + err[:5]) != ([(1, b"hi")], err[:5]):
        return failed(
            "a header that is cut after 5 bytes is a rest, to be completed by the next read"
        )
    if answer(out[:9]) != ([], out[:9]):
        return failed("a payload that is not whole yet is a rest, with its header")
    if answer(b"\x01" + b"\0" * 7) != ([(1, b"")], b""):
        return failed("a frame without payload is a frame")
    try:
        answer(b"HTTP/1.1 400 Bad Request\r\n")
    except ValueError:
        return passed("frames in, streams out, and other things are refused")
    return failed("'HTTP/1.1 ...' was read as a frame: its first byte is no stream number")


@check
def check_held_back(answer: Callable[[bytes, bytes, bytes], tuple[bytes, bytes, bool]]) -> Verdict:
    """Check the search for detach keys that come in pieces (chapter 14d)."""
    keys = b"\x10\x11"
    if answer(b"", b"ls\n", keys) != (b"ls\n", b"", False):
        return failed("'ls' has nothing of the keys: it goes to the container, all of it, now")
    if answer(b"", b"ls\x10\x11more", keys)[::2] != (b"ls", True):
        return failed(
            "both keys in one read: what is before them goes on, the rest does not, and we detach"
        )
    if answer(b"", b"a\x10", keys) != (b"a", b"\x10", False):
        return failed("Ctrl-P at the end of a read must be held back: Ctrl-Q may be next")
    if answer(b"\x10", b"\x11", keys)[::2] != (b"", True):
        return failed("Ctrl-P was held back, Ctrl-Q comes now: that is the sequence")
    if answer(b"\x10", b"x", keys) != (b"\x10x", b"", False):
        return failed("Ctrl-P was held back, then something else came: the container must get both")
    if answer(b"\x10", b"\x10", keys) != (b"\x10", b"\x10", False):
        return failed("Ctrl-P twice: the first goes on, the second is held back")
    return passed("nothing is lost, nothing is late, and the keys are found in pieces")


@check
def check_parse_tail(answer: Callable[[str], int | None]) -> Verdict:
    """Check the reading of --tail (chapter 14e)."""
    for text, wanted in (("10", 10), ("all", None), ("", None), ("ten", None), ("-1", None)):
        if answer(text) != wanted:
            return failed(
                f"tail={text!r} is {wanted if wanted is not None else 'all, so None'}, not {answer(text)!r}"
            )
    if answer("0") != 0:
        return failed("tail=0 shows nothing of the past, which is what `logs -f --tail 0` wants")
    return passed("a number, or all")


@check
def check_rotate(answer: Callable[[str, str, int], None]) -> Verdict:
    """Check the moving of log files (chapter 14e)."""
    for kept, wanted in ((3, {"log.1": "new", "log.2": "old"}), (1, {})):
        with tempfile.TemporaryDirectory() as directory:
            for name, text in (
                ("log", "new"),
                ("log.1", "old"),
                ("log.2", "oldest"),
                ("logbook", "-"),
            ):
                with open(f"{directory}/{name}", "w") as file:
                    file.write(text)
            answer(directory, "log", kept)
            found = {}
            for name in sorted(os.listdir(directory)):
                with open(f"{directory}/{name}") as file:
                    found[name] = file.read()
        if found.pop("logbook", "") != "-":
            return failed("'logbook' is no file of this log, and was touched")
        if kept == 1:
            found = {name: text for name, text in found.items() if name == "log"}
        if found != wanted:
            return failed(
                f"with {kept} files kept there is {found}, and should be {wanted}: begin with the oldest"
            )
    return passed("each file one step older, and the oldest gone")


@check
def check_next_state(answer: Callable[[str, str], str]) -> Verdict:
    """Check the table of states (chapter 14f)."""
    allowed = {
        ("created", "start"): "running", ("exited", "start"): "running", ("running", "end"): "exited",
        ("running", "pause"): "paused", ("paused", "unpause"): "running", ("paused", "end"): "exited",
        ("created", "rm"): "gone", ("exited", "rm"): "gone",
    }  # fmt: skip
    for (state, what), wanted in allowed.items():
        try:
            found = answer(state, what)
        except ValueError:
            return failed(f"{what} of a container that is {state} is refused; it becomes {wanted}")
        if found != wanted:
            return failed(
                f"{what} of a container that is {state} gives {found!r}; it becomes {wanted}"
            )
    for state in ("created", "running", "paused", "exited"):
        for what in ("start", "end", "pause", "unpause", "rm"):
            if (state, what) in allowed:
                continue
            try:
                found = answer(state, what)
            except ValueError:
                continue
            return failed(
                f"{what} of a container that is {state} gives {found!r}: Docker refuses it"
            )
    return passed("eight ways to go, and an honest no to all others")


@check
def check_backoff(answer: Callable[[list[float]], list[float]]) -> Verdict:
    """Check the delays of a restart policy (chapter 14f)."""
    if answer([0, 0, 0]) != [0.1, 0.2, 0.4]:
        return failed(f"three short lives: 0.1, 0.2, 0.4, and not {answer([0, 0, 0])}")
    if answer([0, 0, 11, 0]) != [0.1, 0.2, 0.1, 0.2]:
        return failed("a life of more than ten seconds begins anew with 0.1")
    if answer([0, 10, 0]) != [0.1, 0.2, 0.4]:
        return failed("a life of ten seconds is not one of more than ten")
    if max(answer([0.0] * 20), default=0) != 60:
        return failed("the delay is never more than a minute")
    if answer([10]) != [0.1]:
        return failed("the first delay is 0.1, whatever was before")
    return passed("patient with the stubborn, quick with the unlucky")


@check
def check_go_mode(answer: Callable[[int], int]) -> Verdict:
    """Check the translation of a mode to Go's bits (chapter 14g)."""
    for mode, wanted, what in (
        (0o100644, 0o644, "an ordinary file has its permissions alone"),
        (0o040755, 1 << 31 | 0o755, "a directory has bit 31"),
        (0o120777, 1 << 27 | 0o777, "a symlink has bit 27"),
        (0o104755, 1 << 23 | 0o755, "setuid is bit 23, not stat's 0o4000"),
        (0o041777, 1 << 31 | 1 << 20 | 0o777, "/tmp is a directory with the sticky bit, bit 20"),
    ):
        if answer(mode) != wanted:
            return failed(f"{mode:o} is {wanted}, and not {answer(mode)}: {what}")
    return passed("files, directories, links and three special bits")


@check
def check_changes(
    answer: Callable[[dict[str, str | None], dict[str, str | None]], dict[str, str]],
) -> Verdict:
    """Check the comparison of two trees (chapter 14g)."""
    old: dict[str, str | None] = {
        "/etc": None,
        "/etc/a": "1",
        "/etc/b": "2",
        "/var": None,
        "/var/x": "3",
    }
    if answer(old, dict(old)) != {}:
        return failed("nothing has changed, and the answer is not empty")
    if answer(old, {**old, "/etc/a": "9"}).get("/etc/a") != "C":
        return failed("/etc/a has another content: C")
    if answer(old, {**old, "/etc/a": "9"}).get("/etc") != "C":
        return failed("something below /etc has changed, so /etc counts as changed")
    if answer(old, {**old, "/new": None, "/new/f": ""}) != {"/new": "A", "/new/f": "A"}:
        return failed("a new directory and a new, empty file are both A")
    gone = {path: content for path, content in old.items() if not path.startswith("/var")}
    if answer(old, gone) != {"/var": "D"}:
        return failed("a directory that is gone is one D: what was in it went with it")
    return passed("added, changed, deleted, and directories with them")


CONTAINERS: tuple[dict[str, Any], ...] = (
    {"name": "web", "status": "running", "labels": {"tier": "front", "shop": "tea"}},
    {"name": "web-2", "status": "exited", "labels": {"tier": "front"}},
    {"name": "db", "status": "running", "labels": {"tier": "back", "shop": ""}},
)


@check
def check_passes(answer: Callable[[dict[str, Any], dict[str, list[str]]], bool]) -> Verdict:
    """Check the filters of a list (chapter 14h)."""
    for filters, wanted, why in (
        ({}, "web web-2 db", "without filters all pass"),
        ({"name": ["web"]}, "web web-2", "a name passes if the text is a part of it"),
        ({"name": ["2", "b"]}, "web web-2 db", "of several names one is enough"),
        ({"status": ["exited"]}, "web-2", "the status must be the one that is asked for"),
        ({"status": ["exited", "running"]}, "web web-2 db", "of several states one is enough"),
        ({"status": ["run"]}, "", "a part of a status is no status"),
        ({"label": ["shop"]}, "web db", "a label without = wants the key, whatever its value"),
        ({"label": ["shop=tea"]}, "web", "a label with = wants its value, too"),
        ({"label": ["shop="]}, "db", "'shop=' wants the empty value"),
        ({"label": ["tier=front", "shop"]}, "web", "all labels must be there, not one of them"),
        ({"name": ["web"], "status": ["running"]}, "web", "all filters must agree"),
    ):
        found = " ".join(one["name"] for one in CONTAINERS if answer(one, filters))
        if found != wanted:
            return failed(f"{filters} lets through [{found}], and should [{wanted}]: {why}")
    try:
        answer(CONTAINERS[0], {"colour": ["red"]})
    except ValueError:
        return passed("alternatives within a filter, all labels, all filters")
    return failed("a filter 'colour' is taken: who mistypes a filter should not get a wrong list")


SAME = (
    ("busybox", "busybox", True, "without stars it is a comparison"),
    ("busy*", "busybox", True, "a star is any text"),
    ("busybox*", "busybox", True, "a star may be the empty text"),
    ("*", "", True, "a star alone is all there is, the empty name too"),
    ("bus", "busybox", False, "the whole name must match, not its beginning"),
    ("box", "busybox", False, "the whole name must match, not its end"),
    ("busyb?x", "busybox", True, "? is one character"),
    ("busybox?", "busybox", False, "? is one character, not none"),
    ("b*x*x", "box", False, "each letter of the name is used once"),
    ("a.c", "abc", False, "a dot is a dot"),
    ("*ab", "aab", True, "a star that took too much must be able to take less"),
    ("*a*b?", "aaabb", True, "stars share the text in any way that works"),
)


@check
def check_same(answer: Callable[[str, str], bool]) -> Verdict:
    """Check a match of stars that does not go back (chapter 14h)."""
    for pattern, name, wanted, why in SAME:
        if bool(answer(pattern, name)) != wanted:
            return failed(f"{pattern!r} and {name!r}: {wanted} is right, for {why}")
    outcome = run_in_child(answer, "*a" * 12 + "*b", "a" * 200, timeout=5.0)
    if outcome.timed_out:
        return failed(
            "twelve stars and two hundred letters keep you busy for ever: you try every way to share "
            "them out; keep a set of places in the pattern instead, and go through the name once"
        )
    if outcome.error:
        return failed(f"twelve stars and two hundred letters: {outcome.error}")
    if outcome.value:
        return failed("a name of a's alone has no b at its end")
    return passed("any number of stars, and once through the name")


MOUNTS: tuple[tuple[str, tuple[str, str, str, bool], str], ...] = (
    ("type=bind,source=/a,target=/b", ("bind", "/a", "/b", False), "four keys, none of them short"),
    ("target=/b", ("volume", "", "/b", False), "a volume is the default, and may have no name"),
    ("src=data,dst=/b", ("volume", "data", "/b", False), "src and dst are short for two keys"),
    ("destination=/b,readonly", ("volume", "", "/b", True), "readonly alone means yes"),
    (
        "dst=/b,ro=false",
        ("volume", "", "/b", False),
        "readonly may have a value, and it may be false",
    ),
    ("dst=/b,readonly=1", ("volume", "", "/b", True), "1 is true"),
    ("source=a=b,dst=/b", ("volume", "a=b", "/b", False), "only the first = separates"),
    (
        'type=bind,"source=/a,b",dst=/c',
        ("bind", "/a,b", "/c", False),
        "CSV: a quoted field has commas",
    ),
)
NO_MOUNTS = (
    ("source=/a", "where to?"),
    ("type=bind,target=/b", "a bind without a source"),
    ("target=b", "the target is not absolute"),
    ("type=floppy,target=/b", "there is no such type"),
    ("target=/b,colour=red", "there is no such key"),
    ("target=/b,readonly=maybe", "neither true nor false"),
    ("target=/b,source", "a key without a value, and it is not readonly"),
)


@check
def check_mount_words(answer: Callable[[str], dict[str, Any]]) -> Verdict:
    """Check the reading of --mount (chapter 14b); of types there are bind, volume and tmpfs."""
    for text, (kind, source, target, readonly), why in MOUNTS:
        wanted = {"type": kind, "source": source, "target": target, "readonly": readonly}
        try:
            found = answer(text)
        except ValueError:
            return failed(f"{text!r} is refused, and is {wanted}: {why}")
        if found != wanted:
            return failed(f"{text!r} is {wanted}, and not {found}: {why}")
    for text, why in NO_MOUNTS:
        try:
            answer(text)
        except ValueError:
            continue
        return failed(f"{text!r} is let through: {why}")
    return passed("eight that are meant, seven that are not")


MUCH = bytes(range(256)) * 1200  # more than four pipes hold


def _two_readers(answer: Callable[[int, list[int]], None], gone: bool) -> list[int]:
    """Let the answer copy MUCH to two readers; return how many right bytes each got, -1 for no end."""
    signal.signal(
        signal.SIGPIPE, signal.SIG_IGN
    )  # a reader that has gone is an error, as in the chapter
    source, feed = os.pipe()
    pipes = [os.pipe() for _ in range(2)]
    got = [bytearray(), bytearray()]
    ended = [False, False]

    def write() -> None:
        with open(feed, "wb") as file:
            file.write(MUCH)

    def read(number: int) -> None:
        while data := os.read(pipes[number][0], 1000 if number else 1 << 16):
            got[number] += data
        ended[number] = True

    for _, fd in pipes:
        os.set_blocking(fd, False)
    readers = [0] if gone else [0, 1]
    if gone:
        os.close(pipes[1][0])
    threads = [threading.Thread(target=write, daemon=True)]
    threads += [threading.Thread(target=read, args=(n,), daemon=True) for n in readers]
    for thread in threads:
        thread.start()
    answer(source, [fd for _, fd in pipes])
    if any(os.path.exists(f"/proc/self/fd/{fd}") for _, fd in pipes):
        return [-1]
    for number in readers:
        threads[1 + number].join(8)
    right = [len(one) if MUCH.startswith(bytes(one)) else 0 for one in got]
    return [right[n] if ended[n] else -1 for n in readers]


@check
def check_tee(answer: Callable[[int, list[int]], None]) -> Verdict:
    """Check the copying to two readers, one of them slow or gone (chapter 14c)."""
    for gone in (False, True):
        who = (
            "one reader has gone, and for the other"
            if gone
            else "with one quick and one slow reader"
        )
        outcome = run_in_child(_two_readers, answer, gone, timeout=10.0)
        if outcome.timed_out:
            return failed(f"{who} you wait for ever")
        if outcome.value is None:
            what = outcome.error or outcome.output.strip()
            return failed(f"{who} your function ended early: {what}")
        if -1 in outcome.value:
            return failed(f"{who} the end never comes: who reads a pipe waits until it is closed")
        if any(count != len(MUCH) for count in outcome.value):
            return failed(f"{who} bytes are lost: a pipe that is nearly full takes a part of them")
    return passed("everything for both, at the pace of the slower one, and an end")
