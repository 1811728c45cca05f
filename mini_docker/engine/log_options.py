# Exported from notebooks/14e_logs.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14e_logs.ipynb#options-module
"""The options of logs: which there are, what is wrong with them in Docker's words, and what the shim gets."""

from __future__ import annotations

import json
import os
import re

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.log_tags import TagError, tag_of
from mini_docker.engine.logs import log_path
from mini_docker.engine.moments import SECOND, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Options = dict[str, str]

COMMON_OPTIONS = frozenset(("mode", "max-buffer-size", "max-size", "max-file", "compress"))
JSON_OPTIONS = COMMON_OPTIONS | {"labels", "labels-regex", "env", "env-regex", "tag"}
NO_LOG = "failed to initialize logging driver"
SIZE = re.compile(r"(\d+(?:\.\d+)*) ?([kmgtp])?i?b?", re.IGNORECASE)
TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
LOCAL_DEFAULTS = {"max-size": "20m", "max-file": "5", "compress": "true"}


# %% notebooks/14e_logs.ipynb#options-check
def check_log(host: dict[str, Any]) -> None:
    """Refuse a log driver or options that are not here, when a container is made. Raises InvalidRequest."""
    wanted = host.get("LogConfig") or {}
    driver = wanted.get("Type") or "json-file"
    if driver == "none":
        return
    if driver not in ("json-file", "local"):
        words = f'plugin "{driver}" not found'
        raise InvalidRequest(f"error looking up logging plugin {driver}: {words}")
    check_log_options(driver, wanted.get("Config") or {})


def check_log_options(driver: str, options: Options) -> None:
    """Refuse options of a log driver that it does not have. Raises InvalidRequest in Docker's words."""
    known = JSON_OPTIONS if driver == "json-file" else COMMON_OPTIONS
    for name in options:
        if name not in known:
            which = f"{driver} log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidRequest(f"unknown log opt '{name}' for {which}")
    mode = options.get("mode") or "blocking"
    if mode not in ("blocking", "non-blocking"):
        raise InvalidRequest(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            words = "max-buffer-size option is only supported with 'mode=non-blocking'"
            raise InvalidRequest(f"logger: {words}")
        try:
            parse_size(options["max-buffer-size"])
        except ValueError as error:
            raise InvalidRequest(f"error parsing option max-buffer-size: {error}") from None


def log_options(record: dict[str, Any], directory: str) -> dict[str, Any] | None:
    """Return what the shim must know of the log, from HostConfig.LogConfig. Raises InvalidRequest."""
    wanted = record["HostConfig"].get("LogConfig") or {}
    driver, options = wanted.get("Type") or "json-file", wanted.get("Config") or {}
    if driver == "none":
        return None
    path = log_path(directory, record["Id"])
    try:
        size, files, packed = local_limits(options) if driver == "local" else json_limits(options)
        found = attributes(record, options, path)
    except (ValueError, TagError) as error:
        raise InvalidRequest(f"{NO_LOG}: {error}") from None
    limits = {"max_size": size, "max_file": files, "compress": packed}
    return {"path": path, **limits, "attrs": attrs_text(found)}


# %% notebooks/14e_logs.ipynb#options-limits
def json_limits(options: Options) -> tuple[int, int, bool]:
    """Return how many bytes a log's file may have (0: any), how many files there may be, which are packed.

    "packed" are all but the one that is written to, or none. Raises ValueError in Docker's words.
    """
    size, files = 0, 1
    if "max-size" in options:
        size = parse_size(options["max-size"])
        if not size:
            raise ValueError("max-size must be a positive number")
    if "max-file" in options:
        files = parse_number(options["max-file"])
        if files < 1:
            raise ValueError("max-file cannot be less than 1")
    packed = parse_truth(options.get("compress", "false"))
    if packed and (files < 2 or not size):
        words = "compress cannot be true when max-file is less than 2 or max-size is not set"
        raise ValueError(words)
    return size, files, packed


def local_limits(options: Options) -> tuple[int, int, bool]:
    """Return the same of the driver `local`, which has limits where nothing is said."""
    options = {**LOCAL_DEFAULTS, **options}
    values: list[int] = []
    for name, read in (("max-size", parse_size), ("max-file", parse_number)):
        try:
            values.append(read(options[name]))
        except ValueError as error:
            raise ValueError(f"invalid value for {name}: {options[name]}: {error}") from None
    try:
        packed = parse_truth(options["compress"])
    except ValueError as error:
        raise ValueError(f"error reading compress log option: {error}") from None
    if values[1] < 0:
        raise ValueError("max file count cannot be less than 0")
    if packed and values[1] < 2:
        raise ValueError("compression cannot be enabled when max file count is 1")
    return values[0], max(values[1], 1), packed


def parse_size(text: str) -> int:
    """Return the bytes of "10m" or "1.5 kB", in thousands as go-units' FromHumanSize. Raises ValueError."""
    found = SIZE.fullmatch(text)
    if not found or found[1].count(".") > 1:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(found[1]) * 1000 ** " kmgtp".index((found[2] or " ").lower()))


def parse_number(text: str) -> int:
    """Return a number as Go reads it. Raises ValueError."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def parse_truth(text: str) -> bool:
    """Return a truth value as Go reads it. Raises ValueError."""
    if text not in TRUTHS:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return TRUTHS[text]


# %% notebooks/14e_logs.ipynb#options-attributes
def attributes(record: dict[str, Any], options: Options, path: str) -> dict[str, str]:
    """Return what each line of a log is to say of its container. Raises ValueError, TagError."""
    config = record["Config"]
    labels = {key: str(value) for key, value in (config.get("Labels") or {}).items()}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    variables = {name: value for name, equals, value in pairs if equals}
    found: dict[str, str] = {}
    for what, values in (("labels", labels), ("env", variables)):
        for key in (options.get(what) or "").split(","):
            found |= {key: values[key]} if key in values else {}
        if pattern := options.get(f"{what}-regex"):
            found |= {key: value for key, value in values.items() if is_found(pattern, key)}
            # a wrong one is refused, whether there is anything to find or not
            is_found(pattern, "")
    if tag := tag_of(options.get("tag") or "", tag_fields(record, options, path)):
        found["tag"] = tag
    return found


def tag_fields(record: dict[str, Any], options: Options, path: str) -> dict[str, Any]:
    """Return the fields that a tag's template can name. Source: moby's daemon/logger/loginfo.go."""
    config, (program, *arguments) = record["Config"], record["Command"]
    created = moment(int(record["Created"] * SECOND)).replace("T", " ").replace("Z", " +0000 UTC")
    image_id = record.get("ImageID") or ""
    return {
        "ID": record["Id"][:12], "FullID": record["Id"], "Name": record["Name"],
        "ImageName": config["Image"], "ImageID": image_id[:12], "ImageFullID": image_id,
        "DaemonName": "docker", "Command": " ".join((program, *arguments)),
        "ContainerID": record["Id"], "ContainerName": f"/{record['Name']}",
        "ContainerEntrypoint": program, "ContainerArgs": arguments, "ContainerImageID": image_id,
        "ContainerImageName": config["Image"], "ContainerCreated": created,
        "ContainerEnv": config.get("Env") or [], "ContainerLabels": config.get("Labels") or {},
        "LogPath": path, "Config": options, "Hostname": os.uname().nodename,
    }  # fmt: skip


def attrs_text(found: dict[str, str]) -> str:
    """Return the part of a line that says these, escaped as Go does; "" where there are none."""
    if not found:
        return ""
    text = json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f',"attrs":{text}'


# Python's words for what is wrong with a pattern, Go's, and which part of it Go shows
REGEXP = (
    ("missing ), unterminated", "missing closing )", r".*"),
    ("unterminated character set", "missing closing ]", r"\[.*"),
    ("nothing to repeat", "missing argument to repetition operator", r"[*+?]"),
    ("multiple repeat", "invalid nested repetition operator", r"[*+?][*+?]"),
    ("bad escape (end", "trailing backslash at end of expression", r"$"),
    ("bad escape", "invalid escape sequence", r"\\."),
    ("invalid group reference", "invalid escape sequence", r"\\."),
    ("unbalanced parenthesis", "unexpected )", r".*"),
    ("bad character range", "invalid character class range", r"(?<=\[).-."),
)


def is_found(pattern: str, text: str) -> bool:
    """Say whether a regular expression is found in a text. Raises ValueError in Go's words."""
    from mini_docker.engine.patterns import found_in

    try:
        return found_in(pattern, text)
    except re.error as error:
        for ours, words, part in REGEXP:
            if str(error).startswith(ours) and (shown := re.search(part, pattern, re.DOTALL)):
                raise ValueError(f"error parsing regexp: {words}: `{shown[0]}`") from None
        words = "invalid or unsupported Perl syntax"
        raise ValueError(f"error parsing regexp: {words}: `{pattern}`") from None
