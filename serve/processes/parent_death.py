"""Runs a command that the kernel kills when its parent process ends (Linux).

Started as a program, `python parent_death.py PARENT COMMAND …`: the system call has to be made in the child, and Python
code between fork and exec can hang on locks that other libraries' threads held at that moment (gRPC's do).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives exec

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the same list that the supervisor was given, no shell
