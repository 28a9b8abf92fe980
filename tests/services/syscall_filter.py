"""Run a program under the system call filter of a systemd unit, without systemd: ``python -m ... UNIT PROGRAM WORDS``.

Reads the unit's ``SystemCallFilter=`` lines as systemd does and loads them with libseccomp, as systemd does too.
"""

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ALLOW = 0x7FFF0000
EPERM_INSTEAD = 0x00050000 | 1


@cache
def group(name: str) -> frozenset[str]:
    """Return the system calls of one of systemd's groups, such as ``@system-service``."""
    argv = ["systemd-analyze", "syscall-filter", name]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ | {"SYSTEMD_COLORS": "0"})
    words = [line.strip() for line in text.stdout.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return frozenset().union(*(calls(word) for word in words))


def calls(word: str) -> frozenset[str]:
    """Return what one word of a filter stands for."""
    return group(word) if word.startswith("@") else frozenset({word})


def allowed(unit: str) -> set[str]:
    """Return the system calls that a unit allows; its first filter line lists what is allowed, as ours do."""
    names = set(group("@default"))
    for line in unit.splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter":
            wanted = frozenset().union(*(calls(word) for word in value.removeprefix("~").split()))
            names = names - wanted if value.startswith("~") else names | wanted
    return names


def load(names: set[str]) -> None:
    """Confine this process, and what it starts, to these system calls; any other answers EPERM."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(EPERM_INSTEAD))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and library.seccomp_rule_add_array(context, ALLOW, number, 0, None) != 0:
            raise OSError(f"libseccomp refuses {name}")
    if library.seccomp_load(context) != 0:
        raise OSError("the system call filter could not be loaded")


if __name__ == "__main__":
    load(allowed(Path(sys.argv[1]).read_text()))
    os.execv(sys.argv[2], sys.argv[2:])
