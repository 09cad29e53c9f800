"""Shut this process in and become the program in the sandbox: ``python jail.py PLAN``, with the plan as JSON.

Two ways, by the kernel's own means: ``namespaces`` gives the program a file system, a process table and a network of
its own; ``landlock`` leaves it in this one and has the kernel refuse every file that is not shown. The file is run as
a script and uses the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import stat
import struct
import sys
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)

# sched.h and mount.h
_NEW = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "pid": 0x20000000,
        "net": 0x40000000}  # fmt: skip
_NEW_USER = 0x10000000
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
# flags of a mount that may not be taken off in a namespace of one's own: (as statvfs says it, as mount takes it)
_KEPT = ((os.ST_NOSUID, _NO_SUID), (os.ST_NODEV, _NO_DEV), (os.ST_NOEXEC, _NO_EXEC), (os.ST_NOATIME, 1024),
         (os.ST_NODIRATIME, 2048), (os.ST_RELATIME, 1 << 21))  # fmt: skip
# prctl.h
_DIES_WITH_PARENT, _DROP_FROM_BOUNDS, _NO_NEW_PRIVILEGES = 1, 24, 38
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_STRANGERS = 60578, 600  # user ids that distributions leave unused, and how many of them
_INSIDE = 1000

# landlock.h; its calls have the same numbers on every machine
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_SCRATCH = Path("/scratch")


def main(text: str) -> None:
    """Carry out the plan; ends by executing the program."""
    plan = json.loads(text)
    _LIBC.prctl(_DIES_WITH_PARENT, ctypes.c_ulong(signal.SIGKILL))
    if plan["kind"] == "namespaces":
        _enter_namespaces(plan, as_root=os.geteuid() == 0 and not plan["user_namespace"])
    else:
        _drop_capabilities()
        _restrict_files(plan)
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _LIBC.prctl(_DIES_WITH_PARENT, ctypes.c_ulong(signal.SIGKILL))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def _enter_namespaces(plan: dict[str, Any], *, as_root: bool) -> None:
    """Return in a child that sees only what is shown, alone in its process table and without a network."""
    user, group = os.geteuid(), os.getegid()
    _checked("unshare", _LIBC.unshare(sum(_NEW.values()) | (0 if as_root else _NEW_USER)))
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_INSIDE} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{_INSIDE} {group} 1")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 255)
    _build_root(plan)
    if as_root:  # a stranger to every file and process of this machine
        first, many = _STRANGERS
        stranger = first + plan["number"] % many
        for capability in range(64):
            _LIBC.prctl(_DROP_FROM_BOUNDS, ctypes.c_ulong(capability))
        os.setgroups([])
        os.setresgid(stranger, stranger, stranger)
        os.setresuid(stranger, stranger, stranger)
    else:  # all of them are of this user namespace only, and gone once another program is executed
        _drop_capabilities()


def _build_root(plan: dict[str, Any]) -> None:
    """A file system in memory with what is shown bound into it, in place of the one that is there."""
    root = Path(plan["root"])
    _mount("none", "/", None, _RECURSIVE | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NO_SUID | _NO_DEV, "size=1m,mode=755")
    for path in map(Path, plan["shown"]):
        _show(root, path, writable=False)
    for path in map(Path, plan["devices"]):
        _show(root, path, writable=True)
    for place, target in plan["links"]:
        link = root / place[1:]
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
    scratch = root / _SCRATCH.name
    scratch.mkdir()
    options = f"size={plan['scratch_bytes']},nr_inodes=4096,mode=1777"
    _mount("tmpfs", scratch, "tmpfs", _NO_SUID | _NO_DEV | _NO_EXEC, options)
    old = root / "old"
    old.mkdir()
    _system_call(_PIVOT_ROOT[os.uname().machine], str(root).encode(), str(old).encode())
    os.chdir("/")
    _checked("umount", _LIBC.umount2(b"/old", _DETACH))
    Path("/old").rmdir()
    _mount("none", "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEV)
    os.chdir(_SCRATCH)


def _show(root: Path, path: Path, *, writable: bool) -> None:
    place = root / str(path)[1:]
    if path.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    _mount(path, place, None, _BIND)
    kept = sum(given for said, given in _KEPT if os.statvfs(place).f_flag & said)
    flags = kept | _NO_SUID | (0 if writable else _READ_ONLY)
    _mount("none", place, None, _REMOUNT | _BIND | flags)


def _restrict_files(plan: dict[str, Any]) -> None:
    """Have the kernel refuse every file but those shown, every write but to the devices, and every connection."""
    version = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    rights = next(r for v, r in sorted(_FILE_RIGHTS_BY_VERSION.items(), reverse=True) if v <= version)
    handled = struct.pack("=QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    handled = handled[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _system_call(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint(0))
    for name in plan["shown"]:
        _allow(rules, name, _EXECUTE | _READ_FILE | _READ_DIR)
    for name in plan["listed"]:
        _allow(rules, name, _READ_DIR)
    for name in plan["devices"]:
        _allow(rules, name, _READ_FILE | _WRITE_FILE)
    os.chdir(plan["folder"])
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _system_call(_RESTRICT_SELF, rules, ctypes.c_uint(0))
    os.close(rules)


def _allow(rules: int, name: str, rights: int) -> None:
    place = os.open(name, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= ~_READ_DIR
    rule = struct.pack("=Qi", rights, place)
    _system_call(_ADD_RULE, rules, ctypes.c_int(1), rule, ctypes.c_uint(0))
    os.close(place)


def _drop_capabilities() -> None:
    """Give up every capability, also those that the next program could get back."""
    for capability in range(64):
        _LIBC.prctl(_DROP_FROM_BOUNDS, ctypes.c_ulong(capability))
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _system_call(_CAPSET[os.uname().machine], header, none)


def _mount(source: str | Path, target: str | Path, kind: str | None, flags: int, options: str = "") -> None:
    done = _LIBC.mount(
        str(source).encode(), str(target).encode(), None if kind is None else kind.encode(),
        ctypes.c_ulong(flags), options.encode() or None,
    )  # fmt: skip
    _checked(f"mount on {target}", done)


def _system_call(number: int, *arguments: Any) -> int:
    return _checked(f"system call {number}", _LIBC.syscall(ctypes.c_long(number), *arguments))


def _prctl(option: int, value: int) -> None:
    none = ctypes.c_ulong(0)
    _checked(f"prctl {option}", _LIBC.prctl(option, ctypes.c_ulong(value), none, none, none))


def _checked(what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(str(error.strerror or error))
