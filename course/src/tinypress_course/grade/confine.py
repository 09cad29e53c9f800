"""The limits that a session puts on itself before it executes a learner's code: memory, files, time, system calls."""

from __future__ import annotations

import ctypes
import mmap
import resource
import signal
from collections.abc import Mapping

from tinypress_course.grade import syscalls

_PAGE = mmap.PAGESIZE
_DIES_WITH_PARENT, _DUMPABLE = 1, 4


def confine(bounds: Mapping[str, int], *, filtered: bool) -> None:
    """Limit this process, for good, to ``memory`` more bytes than it has now, files of ``file`` bytes, ``seconds``.

    ``filtered``: refuse the system calls of ``syscalls.py`` as well.

    Raises:
        OSError: a limit cannot be set.
    """
    die_with_parent()
    hard = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: bounds["file"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_CPU: bounds["seconds"],
        resource.RLIMIT_AS: address_space() + bounds["memory"],
    }
    for kind, most in hard.items():
        resource.setrlimit(kind, (most, most))
    if filtered:
        syscalls.install()


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, ctypes.c_ulong(signal.SIGKILL))


def close_to_others() -> None:
    """Let no process of the same user look into this one."""
    ctypes.CDLL(None).prctl(_DUMPABLE, ctypes.c_ulong(0))


def address_space() -> int:
    """Bytes of address space in use, to 1 MiB; found by trying limits, because /proc is not there in a sandbox."""
    kept = resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, 1 << 47
    try:
        while high - low > 1 << 20:
            middle = (low + high) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle, kept[1]))
            if _a_page_fits():
                high = middle
            else:
                low = middle
    finally:
        resource.setrlimit(resource.RLIMIT_AS, kept)
    return high


def _a_page_fits() -> bool:
    try:
        mmap.mmap(-1, _PAGE).close()
    except (OSError, MemoryError):
        return False
    return True
