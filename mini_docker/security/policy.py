# Exported from notebooks/09b_seccomp.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09b_seccomp.ipynb#policy-module
"""Docker's default seccomp policy as data: what is allowed, what a capability opens, what never, and why."""

from __future__ import annotations

import os

from mini_docker.security.seccomp import NATIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# allowed to everyone, in the order of their numbers
ALLOWED = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield
    mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm
    setitimer getpid sendfile connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
    getsockname getpeername socketpair setsockopt getsockopt fork vfork execve exit wait4 kill
    uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync
    truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink
    readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times
    ptrace getuid getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid
    setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid
    getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack
    utime mknod statfs fstatfs getpriority setpriority sched_setparam sched_getparam
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval mlock munlock mlockall munlockall modify_ldt prctl arch_prctl adjtimex
    setrlimit sync gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex
    sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit
    io_cancel get_thread_area epoll_create epoll_ctl_old epoll_wait_old remap_file_pages
    getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime
    timer_gettime timer_getoverrun timer_delete clock_gettime clock_getres clock_nanosleep
    exit_group epoll_wait epoll_ctl tgkill utimes mq_open mq_unlink mq_timedsend mq_timedreceive
    mq_notify mq_getsetattr waitid ioprio_set ioprio_get inotify_init inotify_add_watch
    inotify_rm_watch openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat
    symlinkat readlinkat fchmodat faccessat pselect6 ppoll set_robust_list get_robust_list splice
    tee sync_file_range vmsplice utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
    timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2
    inotify_init1 preadv pwritev rt_tgsigqueueinfo recvmmsg fanotify_mark prlimit64
    name_to_handle_at clock_adjtime syncfs sendmmsg getcpu process_vm_readv process_vm_writev
    sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create execveat membarrier
    mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents
    rseq uretprobe pidfd_send_signal pidfd_open close_range openat2 faccessat2 epoll_pwait2
    landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease
    futex_waitv cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount
    listmount mseal setxattrat getxattrat listxattrat removexattrat _llseek _newselect
    arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush chown32 clock_adjtime64
    clock_getres_time64 clock_gettime64 clock_nanosleep_time64 fadvise64_64 fchown32 fcntl64
    fstat64 fstatat64 fstatfs64 ftruncate64 futex_time64 getegid32 geteuid32 getgid32 getgroups32
    getresgid32 getresuid32 getuid32 io_pgetevents_time64 ipc lchown32 lstat64 mmap2
    mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64 pselect6_time64 recv recvmmsg_time64
    rt_sigtimedwait_time64 sched_rr_get_interval_time64 semtimedop_time64 send sendfile64 set_tls
    setfsgid32 setfsuid32 setgid32 setgroups32 setregid32 setresgid32 setresuid32 setreuid32
    setuid32 sigprocmask sigreturn socketcall stat64 statfs64 sync_file_range2 timer_gettime64
    timer_settime64 timerfd_gettime64 timerfd_settime64 truncate64 ugetrlimit utimensat_time64
    waitpid
""".split()


# %% notebooks/09b_seccomp.ipynb#opened-by
# allowed to a container with the capability: it could not use them otherwise
OPENED_BY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open "
        "quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
REFUSED = {
    "the key ring is one for the whole machine": "add_key keyctl request_key",
    "it changes the machine's kernel or its swap": "kexec_file_load kexec_load swapoff swapon",
    "it changes the root that others see": "pivot_root",
    "it moves the memory of other processes": "migrate_pages move_pages",
    "it stops the kernel in mid-copy, which makes its faults exploitable": "userfaultfd",
    "io_uring had a hole every few months": "io_uring_enter io_uring_register io_uring_setup",
    "it switches a processor to 16 bits": "vm86 vm86old",
    "new: nobody has asked for it yet": "file_getattr file_setattr open_tree_attr uprobe",
    "too old: no program needs it": (
        "_sysctl afs_syscall bdflush break create_module ftime get_kernel_syms get_tls getpmsg gtty idle "
        "lock mpx nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname pciconfig_iobase "
        "pciconfig_read pciconfig_write prof profil putpmsg query_module readdir security sgetmask "
        "sigaction signal sigpending sigsuspend ssetmask stty sysfs tuxcall ulimit uselib usr26 usr32 "
        "ustat vserver"
    ),
}


# %% notebooks/09b_seccomp.ipynb#default-policy
AF_VSOCK = 40  # sys/socket.h: to the hypervisor
# sys/personality.h: PER_LINUX, PER_LINUX32, each also with UNAME26, and the question which one it is
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
CLONE_NEW = 0x7E020000  # sched.h: all CLONE_NEW* but time, whose bit clone(2) takes for a signal


def rule(names: str, *arguments: tuple[str, int, int]) -> dict[str, Any]:
    """Return an OCI rule that allows `names`, perhaps if argument 0 fits each (operator, value, second)."""
    found: dict[str, Any] = {"names": names.split(), "action": "SCMP_ACT_ALLOW"}
    if arguments:
        found["args"] = [
            {"index": 0, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}
            for operator, value, second in arguments
        ]
    return found


def default_policy(capabilities: list[str], machine: str) -> dict[str, Any]:
    """Return linux.seccomp, equal in effect to what Docker gives a container with these capabilities.

    clone3 keeps its flags in memory, where no filter can look; told ENOSYS, programs use clone(2).
    Raises ValueError for a machine without tables. Source: Docker's "Seccomp security profiles".
    """
    if machine not in NATIVE:
        raise ValueError(
            f"no seccomp policy for {machine}; remedy: --security-opt seccomp=unconfined"
        )
    rules = [
        {"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"},
        rule("socket", ("NE", AF_VSOCK, 0)),
        *(rule("personality", ("EQ", persona, 0)) for persona in PERSONALITIES),
    ]
    rules += [rule(OPENED_BY[name]) for name in OPENED_BY if name in capabilities]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(rule("clone", ("MASKED_EQ", CLONE_NEW, 0)))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": list(NATIVE[machine]),
        "syscalls": rules,
    }


# %% notebooks/09b_seccomp.ipynb#cut-profile
def cut_profile(profile: dict[str, Any], capabilities: list[str], machine: str) -> dict[str, Any]:
    """Return linux.seccomp from a profile as people write it for Docker, where rules have conditions.

    `includes` and `excludes` of a rule name capabilities, Go's names of machines, and a kernel's version;
    `archMap` lists the older ABIs of each machine. An OCI linux.seccomp passes unchanged. Raises
    ValueError in Docker's words. Source: Docker's "Seccomp security profiles".
    """
    if profile.get("architectures") and profile.get("archMap"):
        raise ValueError(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    found = {key: value for key, value in profile.items() if key not in ("archMap", "syscalls")}
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == NATIVE[machine][0]:
            found["architectures"] = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    found["syscalls"] = [
        _without_conditions(entry)
        for entry in profile.get("syscalls") or ()
        if _applies(entry, capabilities, machine)
    ]
    return found


def _applies(entry: dict[str, Any], capabilities: list[str], machine: str) -> bool:
    """Return whether a rule's conditions hold: all includes, and none of the excludes."""
    go = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    needs, bars = entry.get("includes") or {}, entry.get("excludes") or {}
    if go in bars.get("arches", ()) or set(bars.get("caps", ())) & set(capabilities):
        return False
    if needs.get("arches") and go not in needs["arches"]:
        return False
    if bars.get("minKernel") and kernel_is_at_least(bars["minKernel"]):
        return False
    kernel = needs.get("minKernel")
    return set(needs.get("caps", ())) <= set(capabilities) and (
        not kernel or kernel_is_at_least(kernel)
    )


def kernel_is_at_least(version: str) -> bool:
    """Return whether this kernel's version is `version`, such as "4.8", or later."""
    ours = os.uname().release.split("-")[0].split(".")
    return tuple(map(int, ours[:2])) >= tuple(map(int, version.split(".")[:2]))


def _without_conditions(entry: dict[str, Any]) -> dict[str, Any]:
    if entry.get("name") and entry.get("names"):
        raise ValueError(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    names = [entry["name"]] if entry.get("name") else entry.get("names") or []
    kept = ("action", "errnoRet", "args")
    return {"names": names, **{key: entry[key] for key in kept if entry.get(key) is not None}}
