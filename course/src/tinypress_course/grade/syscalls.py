"""What a learner's code may not ask of the kernel, and the filter that says so.

A session judges arithmetic. It needs memory, files to read and the pipe that it was given, but no other process, no
network, no signal to anybody and none of the kernel's rarer doors. Numbers are those of x86-64 and of the common
table that AArch64 uses; ``None`` where a machine has no such call.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

Numbers = tuple[int | None, int | None]

REFUSED: dict[str, Numbers] = {
    # other processes and threads
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268),
    # signals to them, and looking into them
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    # the network, and passing open files on
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211),
    "sendmmsg": (307, 269), "recvfrom": (45, 207), "recvmsg": (47, 212), "recvmmsg": (299, 243),
    # memory that no limit of the process counts
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgctl": (71, 187), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # what belongs to a file but is not its content: Landlock does not watch these
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # the kernel's rarer doors
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "quotactl": (179, 60), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "syslog": (103, 116), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip

# Refused for some values of one argument: (its place, values). A file's owner is a process that it sends signals to.
REFUSED_VALUES: dict[str, tuple[Numbers, int, tuple[int, ...]]] = {
    "fcntl": ((72, 25), 1, (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    "ioctl": (
        (16, 29),
        1,
        (0x8901, 0x8902, 0x5412, 0x40086602, 0x401C5820),
    ),  # the same; a terminal's input; flags
}
OWN_ONLY: dict[str, tuple[Numbers, int]] = {"prlimit64": ((302, 261), 0)}  # where the argument is 0

_LAST_KNOWN = 462  # what came to the kernel after this table is not there for a learner
_X32 = 0x40000000

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def known_machine() -> bool:
    """Whether there is a table for this machine."""
    return platform.machine() in _MACHINES


def _instruction(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)


def program(machine: str) -> bytes:
    """The filter for ``machine`` as the kernel reads it: refused calls fail with EPERM, unknown ones with ENOSYS."""
    column, name = _MACHINES[machine]
    steps = [
        _instruction(_LOAD, _MACHINE_AT),
        _instruction(_EQUAL, name, 1, 0),
        _instruction(_ANSWER, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_AT_LEAST, _X32, 0, 1),
        _instruction(_ANSWER, _KILL),
        _instruction(_AT_LEAST, _LAST_KNOWN + 1, 0, 1),
        _instruction(_ANSWER, _ERROR | errno.ENOSYS),
    ]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            steps += [_instruction(_EQUAL, number, 0, 1), _instruction(_ANSWER, _ERROR | errno.EPERM)]
    for each, place, values in REFUSED_VALUES.values():
        steps += _guarded(each[column], place, values, refused_if_equal=True)
    for each, place in OWN_ONLY.values():
        steps += _guarded(each[column], place, (0,), refused_if_equal=False)
    steps.append(_instruction(_ANSWER, _ALLOW))
    return b"".join(steps)


def _guarded(
    number: int | None, place: int, values: tuple[int, ...], *, refused_if_equal: bool
) -> list[bytes]:
    """Steps that decide about one call by the low half of one argument; they end in an answer."""
    assert number is not None
    refuse, allow = _instruction(_ANSWER, _ERROR | errno.EPERM), _instruction(_ANSWER, _ALLOW)
    tests = [_instruction(_EQUAL, value, 0, 1) for value in values]
    hit, miss = (refuse, allow) if refused_if_equal else (allow, refuse)
    inner = [_instruction(_LOAD, _ARGUMENTS_AT + 8 * place)]
    for test in tests:
        inner += [test, hit]
    inner.append(miss)
    return [_instruction(_EQUAL, number, 0, len(inner)), *inner]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install() -> None:
    """Put the filter on this process, for good.

    Raises:
        OSError: the kernel has no filters, or there is no table for this machine.
    """
    if not known_machine():
        raise OSError(errno.ENOSYS, f"there is no table of system calls for {platform.machine()}")
    steps = program(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    given = _Program(len(steps) // 8, steps)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    for option, *arguments in (
        (_NO_NEW_PRIVILEGES, one, none, none, none),
        (_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(given), none, none),
    ):
        if libc.prctl(option, *arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"the kernel takes no filter of system calls ({code})")
