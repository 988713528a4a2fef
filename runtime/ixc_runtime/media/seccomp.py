"""System calls that a media worker gives up for good: sockets, programs, processes, other files.

A filter in the kernel (seccomp) refuses them with EPERM from then on, whoever runs in the process.
Threads remain possible, which a limit of no processes would not allow: decord needs one.

This is a list of what is refused. A list of what is allowed would be tighter and would break with
the next version of the C library; the process's limits and its empty environment are what else
stands around a decoder. Knows the numbers of two processors; elsewhere there is no filter.
"""

import ctypes
import platform
import struct

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD_WORD, _JUMP_EQUAL, _JUMP_ALL_BITS, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
# Offsets in struct seccomp_data: the call's number, the processor, the first argument's low half.
_NUMBER, _PROCESSOR, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x10000
_FOREIGN_NUMBERS = 0x40000000  # x32's, which would slip past numbers of x86-64

# Alike on both: pidfd_send_signal, io_uring_setup, pidfd_open, pidfd_getfd.
_NEWER = (424, 425, 434, 438)
_CLONE3 = 435
_REFUSED = {
    "x86_64": (
        *(41, 42, 43, 49, 50, 53, 288),  # socket connect accept bind listen socketpair accept4
        *(57, 58, 59, 322),  # fork vfork execve execveat
        *(62, 200, 234, 101, 310, 311),  # kill tkill tgkill ptrace process_vm_readv, _writev
        *(82, 83, 84, 86, 87, 88),  # rename mkdir rmdir link unlink symlink
        *(258, 263, 264, 265, 266, 316),  # mkdirat unlinkat renameat linkat symlinkat renameat2
        *(90, 91, 268, 92, 93, 94, 260),  # chmod fchmod fchmodat chown fchown lchown fchownat
        *(165, 272, 308, 304),  # mount unshare setns open_by_handle_at
        *(248, 249, 250, 298, 321, 323),  # add_key request_key keyctl perf_event bpf userfaultfd
        *_NEWER,
    ),
    "aarch64": (
        *(198, 203, 202, 200, 201, 199, 242),  # socket connect accept bind listen … accept4
        *(221, 281),  # execve execveat
        *(129, 130, 131, 117, 270, 271),  # kill tkill tgkill ptrace process_vm_readv, _writev
        *(34, 35, 38, 37, 36, 276),  # mkdirat unlinkat renameat linkat symlinkat renameat2
        *(52, 53, 54, 55),  # fchmod fchmodat fchownat fchown
        *(40, 97, 268, 265),  # mount unshare setns open_by_handle_at
        *(217, 218, 219, 241, 280, 282),  # add_key request_key keyctl perf_event bpf userfaultfd
        *_NEWER,
    ),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_AUDIT_NAMES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_system_calls() -> bool:
    """Install the filter; False where this kernel or processor has none of ours."""
    machine = platform.machine()
    if machine not in _REFUSED:
        return False
    instructions = filter_program(machine)
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def filter_program(machine: str) -> bytes:
    """The filter in the kernel's own instructions: 8 bytes each, jumps counted from the next."""
    lines = [
        _line(_LOAD_WORD, _PROCESSOR),
        _line(_JUMP_EQUAL, _AUDIT_NAMES[machine], on_true=1),
        _line(_RETURN, _REFUSE | _EPERM),
        _line(_LOAD_WORD, _NUMBER),
        _line(_JUMP_AT_LEAST, _FOREIGN_NUMBERS, on_false=1),
        _line(_RETURN, _REFUSE | _EPERM),
        # The library falls back to clone, whose flags can be read here; clone3's cannot.
        _line(_JUMP_EQUAL, _CLONE3, on_false=1),
        _line(_RETURN, _REFUSE | _ENOSYS),
    ]
    for number in _REFUSED[machine]:
        lines += [_line(_JUMP_EQUAL, number, on_false=1), _line(_RETURN, _REFUSE | _EPERM)]
    lines += [
        _line(_JUMP_EQUAL, _CLONE[machine], on_false=3),
        _line(_LOAD_WORD, _FIRST_ARGUMENT),
        _line(_JUMP_ALL_BITS, _CLONE_THREAD, on_true=1),
        _line(_RETURN, _REFUSE | _EPERM),
        _line(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def _line(code: int, value: int, *, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, on_true, on_false, value)
