"""What a decoder child may still do once it is ready: compute, and speak on the socket that it has.

A fault in a decoder that lets a stranger run code finds no files, no network and no programs here. Linux on
x86-64 and ARM64 enforces it (seccomp); elsewhere the limits on memory, CPU and file size remain.
"""

import platform
import resource
import struct
import sys

# Allowed system calls, by architecture. Each other one fails with EPERM, and the image with it.
_ALLOWED = {
    # name: (x86_64, aarch64)
    "read": (0, 63),
    "write": (1, 64),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "getcwd": (79, 17),  # Pillow asks where it is before it encodes
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_PRLIMIT = (302, 261)  # for itself alone: its parent's limits are not its to change
_CLONE = (56, 220)  # for threads alone: libwebp decodes with two
_CLONE3 = (435, 435)  # its flags are behind a pointer; told that there is none, the C library uses clone
_ARCHITECTURES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}

_CLONE_THREAD = 0x0001_0000
_EPERM, _ENOSYS = 1, 38
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000

# Classic BPF: load a word of the call's description, compare and jump, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_X32_CALLS = 0x4000_0000  # x86-64's second numbering of the same calls

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


def limit_resources(memory_bytes: int) -> None:
    """Bound the address space (Linux alone can), and forbid core dumps and writing files."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_cpu(seconds: int) -> None:
    """From here on: the system's limit is one of a process's whole life, so it moves along."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + 1 + seconds, resource.RLIM_INFINITY))


def enter() -> bool:
    """Give up all system calls but the allowed ones, for good. False where the system offers no such way."""
    column, architecture = _ARCHITECTURES.get(platform.machine(), (0, 0))
    if sys.platform != "linux" or not architecture:
        return False
    import ctypes  # only here: what needs it is specific to Linux

    program = _program(column, architecture)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, padding, and where they are.
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    held = ctypes.create_string_buffer(filter_, len(filter_))
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(held), 0, 0) == 0)


def _program(column: int, architecture: int) -> bytes:
    """The filter. A jump counts the instructions that it skips."""
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_CALLS),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    for numbers in _ALLOWED.values():
        lines += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    lines += [
        (_EQUAL, 0, 1, _CLONE3[column]),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_EQUAL, 0, 4, _PRLIMIT[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_EQUAL, 0, 3, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
