"""Runs a command where nothing can be executed: ``python tests/bad_machine.py COMMAND ...``.

The command gets an empty PATH, and a temporary and a home directory on a file system mounted noexec.  Exit status: the
command's, or 3 where no such file system can be made or found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

NO_BAD_MACHINE = 3

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 16384, 1 << 18, 2


def enter_own_mounts() -> bool:
    """Give this process a mount table of its own; as an ordinary user through a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return bool(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0)


@contextlib.contextmanager
def noexec_folder() -> Iterator[Path]:
    """An empty folder on a noexec mount that only this process and its children see, or a plain one in /dev/shm.

    Containers often mount /dev/shm noexec themselves; whoever uses the folder checks.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as name:
        folder = os.fsencode(name)
        if enter_own_mounts() and libc.mount(b"tmpfs", folder, b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, b"") == 0:
            yield Path(name)
            libc.umount2(folder, MNT_DETACH)
            return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def refuses_to_execute(folder: Path) -> bool:
    """Whether a program written into `folder` cannot be run."""
    program = folder / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    try:
        subprocess.run([program], check=True)
    except PermissionError:
        return True
    finally:
        program.unlink()
    return False


def run(command: list[str]) -> int:
    """Run `command` on the bad machine and give its exit status, or NO_BAD_MACHINE."""
    with noexec_folder() as folder:
        if not refuses_to_execute(folder):
            print("bad_machine: cannot mount a noexec file system, and /dev/shm is not one", file=sys.stderr)
            return NO_BAD_MACHINE
        environment = {**os.environ, "PATH": "", "TMPDIR": str(folder), "HOME": str(folder)}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
