# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#schema-module
"""The form of an OCI document, as a table: every key, its type, and what else must hold."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


# %% notebooks/11e_mini_runc.ipynb#schema
# A form is a type's name, a tuple of allowed words, [form of each element], or {key: form}.
# A key that ends in "!" must be there; {"*": form} is an object with any keys. Keys that a form does not
# name are left alone, as the specification asks ("Extensibility"). Source: config.md, config-linux.md.

HOOK_POINTS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
HOOK = {"path!": "path", "args": ["string"], "env": ["variable"], "timeout": "positive"}
ID_MAP = {"containerID!": "uint32", "hostID!": "uint32", "size!": "uint32"}
USER = {"uid": "uint32", "gid": "uint32", "umask": "uint32", "additionalGids": ["uint32"]}
RLIMIT = {"type!": "string", "soft!": "uint64", "hard!": "uint64"}
POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE",
            "SCHED_DEADLINE")  # fmt: skip
PROCESS = {
    "terminal": "bool",
    "consoleSize": {"height!": "uint", "width!": "uint"},
    "cwd!": "path",
    "env": ["variable"],
    "args!": ["string"],
    "commandLine": "string",
    "rlimits": [RLIMIT],
    "apparmorProfile": "string",
    "capabilities": {
        name: ["string"]
        for name in ("bounding", "permitted", "effective", "inheritable", "ambient")
    },
    "noNewPrivileges": "bool",
    "oomScoreAdj": "int",
    "scheduler": {
        "policy!": POLICIES,
        "nice": "int",
        "priority": "int",
        "flags": ["string"],
        "runtime": "uint64",
        "deadline": "uint64",
        "period": "uint64",
    },
    "selinuxLabel": "string",
    "ioPriority": {
        "class!": ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
        "priority": "int",
    },
    "user": USER,
    "execCPUAffinity": {"initial": "string", "final": "string"},
}
MOUNT = {
    "destination!": "path",
    "type": "string",
    "source": "string",
    "options": ["string"],
    "uidMappings": [ID_MAP],
    "gidMappings": [ID_MAP],
}
DEVICE_RULE = {
    "allow!": "bool",
    "type": "string",
    "major": "int",
    "minor": "int",
    "access": "string",
}
THROTTLE = {"major!": "int", "minor!": "int", "rate": "uint64"}
RESOURCES = {
    "unified": {"*": "string"},
    "devices": [DEVICE_RULE],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), "int"),
        "swappiness": "uint64",
        "disableOOMKiller": "bool",
        "useHierarchy": "bool",
        "checkBeforeUpdate": "bool",
    },
    "cpu": {
        **dict.fromkeys(("shares", "period", "realtimePeriod", "burst"), "uint64"),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), "int"),
        "cpus": "string",
        "mems": "string",
    },
    "pids": {"limit!": "int"},
    "blockIO": {
        "weight": "uint16",
        "leafWeight": "uint16",
        "weightDevice": [
            {"major!": "int", "minor!": "int", "weight": "uint16", "leafWeight": "uint16"}
        ],
        **{
            f"throttle{way}{unit}Device": [THROTTLE]
            for way in ("Read", "Write")
            for unit in ("Bps", "IOPS")
        },
    },
    "hugepageLimits": [{"pageSize!": "string", "limit!": "uint64"}],
    "network": {"classID": "uint32", "priorities": [{"name!": "string", "priority!": "uint32"}]},
    "rdma": {"*": {"hcaHandles": "uint32", "hcaObjects": "uint32"}},
}
LINUX = {
    "devices": [
        {
            "type!": ("c", "b", "u", "p"),
            "path!": "path",
            "major": "int",
            "minor": "int",
            "fileMode": "uint32",
            "uid": "uint32",
            "gid": "uint32",
        }
    ],
    "uidMappings": [ID_MAP],
    "gidMappings": [ID_MAP],
    "namespaces": [
        {
            "type!": ("pid", "network", "uts", "ipc", "mount", "user", "cgroup", "time"),
            "path": "path",
        }
    ],
    "resources": RESOURCES,
    "cgroupsPath": "string",
    "rootfsPropagation": (
        "",
        "private",
        "shared",
        "slave",
        "unbindable",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
    ),  # fmt: skip
    "seccomp": {
        "defaultAction!": "string",
        "defaultErrnoRet": "uint32",
        "flags": ["string"],
        "listenerPath": "string",
        "listenerMetadata": "string",
        "architectures": ["string"],
        "syscalls": [
            {
                "names!": ["string"],
                "action!": "string",
                "errnoRet": "uint32",
                "args": [
                    {"index!": "uint32", "value!": "uint64", "valueTwo": "uint64", "op!": "string"}
                ],
            }
        ],
    },
    "sysctl": {"*": "string"},
    "maskedPaths": ["path"],
    "readonlyPaths": ["path"],
    "mountLabel": "string",
    "intelRdt": {
        "closID": "string",
        "l3CacheSchema": "string",
        "memBwSchema": "string",
        "enableCMT": "bool",
        "enableMBM": "bool",
    },
    "personality": {"domain!": ("LINUX", "LINUX32"), "flags": ["string"]},
    "timeOffsets": {"*": {"secs": "int", "nanosecs": "uint32"}},
}
DOCUMENT = {
    "ociVersion!": "string",
    "hostname": "string",
    "domainname": "string",
    "process!": PROCESS,
    "root!": {"path!": "string", "readonly": "bool"},
    "mounts": [MOUNT],
    "hooks": {point: [HOOK] for point in HOOK_POINTS},
    "annotations": {"*": "string"},
    "linux!": LINUX,
}


# %% notebooks/11e_mini_runc.ipynb#check-form
RANGES = {
    "int": (-(2**63), 2**63 - 1),
    "uint": (0, 2**63 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "positive": (1, 2**31 - 1),
}


def check(value: Any, form: Any, where: str) -> None:
    """Hold `value` against a form. Raises ValueError that begins with the JSON path of what is wrong.

    null is an absent value, as Go's writers of documents mean it: such keys are taken out.
    """
    if value is None:
        return
    if isinstance(form, dict):
        _check_object(value, form, where)
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{where}: a list is needed, not {_kind(value)}")
        for index, element in enumerate(value):
            if element is None:
                raise ValueError(f"{where}[{index}]: null is no element")
            check(element, form[0], f"{where}[{index}]")
    elif isinstance(form, tuple):
        if value not in form:
            raise ValueError(f"{where}: {value!r} is none of {', '.join(filter(None, form))}")
    elif form in RANGES:
        _check_number(value, form, where)
    elif form == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{where}: true or false is needed, not {_kind(value)}")
    else:
        _check_string(value, form, where)


def _check_object(value: Any, form: Mapping[str, Any], where: str) -> None:
    """Check an object's keys; one that may be missing and is null is taken away. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'document'}: an object is needed, not {_kind(value)}")
    if "*" in form:
        for key, element in value.items():
            check(element, form["*"], f"{where}.{key}")
        return
    for key, element_form in form.items():
        name = key.rstrip("!")
        found = value.get(name)
        if found is not None:
            check(found, element_form, f"{where}.{name}" if where else name)
        elif name != key:
            raise ValueError(f"{where}.{name}: is missing" if where else f"{name}: is missing")
        else:
            value.pop(name, None)


def _check_number(value: Any, form: str, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{where}: a whole number is needed, not {_kind(value)}")
    low, high = RANGES[form]
    if not low <= value <= high:
        raise ValueError(f"{where}: {value} is out of range ({form})")


def _check_string(value: Any, form: str, where: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{where}: a string is needed, not {_kind(value)}")
    if "\0" in value:
        raise ValueError(f"{where}: a NUL byte is in it")
    if form == "variable" and value.find("=") < 1:
        raise ValueError(f"{where}: {value!r} is not NAME=value")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


# %% notebooks/11e_mini_runc.ipynb#check-document
def check_document(document: Any) -> None:
    """Check the form of a document and what a form cannot say. Raises ValueError with the JSON path.

    Relative paths of mount destinations and namespaces are refused as the specification has it.
    """
    if document is None:
        raise ValueError("document: null is none")
    check(document, DOCUMENT, "")
    version = document["ociVersion"].split("-")[0].split("+")[0].split(".")
    if len(version) != 3 or not all(part.isdigit() for part in version):
        raise ValueError(f"ociVersion: {document['ociVersion']!r} is no semantic version")
    if int(version[0]) != 1:
        raise ValueError(f"ociVersion: {document['ociVersion']!r} is not a version 1 that we know")
    check_process(document["process"])
    for index, mount in enumerate(document.get("mounts") or ()):
        if not mount["destination"].startswith("/"):
            mount["destination"] = f"/{mount['destination']}"  # allowed before 1.0, and still seen
        if ".." in mount["destination"].split("/"):
            raise ValueError(
                f"mounts[{index}].destination: '{mount['destination']}' has '..' in it"
            )
    linux = document["linux"]
    for index, entry in enumerate(linux.get("namespaces") or ()):
        if entry.get("path") and not entry["path"].startswith("/"):
            raise ValueError(f"linux.namespaces[{index}].path: '{entry['path']}' is not absolute")
    for point, hooks in (document.get("hooks") or {}).items():
        for index, hook in enumerate(hooks or ()):
            if not hook["path"].startswith("/"):
                raise ValueError(f"hooks.{point}[{index}].path: '{hook['path']}' is not absolute")
    _check_user_namespace(linux)
    kinds = [entry["type"] for entry in linux.get("namespaces") or ()]
    for key in ("hostname", "domainname"):
        if document.get(key) and "uts" not in kinds:
            raise ValueError(f"{key}: needs a 'uts' namespace in linux.namespaces")
    if linux.get("intelRdt"):
        raise ValueError("linux.intelRdt: cache and bandwidth control is not supported")


def _check_user_namespace(linux: dict[str, Any]) -> None:
    kinds = {entry["type"]: entry.get("path") for entry in linux.get("namespaces") or ()}
    has_maps = bool(linux.get("uidMappings") or linux.get("gidMappings"))
    if has_maps and "user" not in kinds:
        raise ValueError("linux.uidMappings: needs a user namespace in linux.namespaces")
    if "user" in kinds and not kinds["user"] and not has_maps:
        raise ValueError("linux.uidMappings: a new user namespace needs mappings")


def check_process(process: Any) -> None:
    """Check a process object, as exec gets it. Raises ValueError with the JSON path."""
    check(process, PROCESS, "process")
    for key in ("cwd", "args"):
        if not process.get(key):
            raise ValueError(f"process.{key}: is missing")
    if not process["cwd"].startswith("/"):
        raise ValueError(f"process.cwd: '{process['cwd']}' is not an absolute path")
    if not process["args"][0]:
        raise ValueError("process.args[0]: is empty")
