"""A short time slice for a thread that answers others: Linux 6.12 and newer then wake it beside a busy one at once.

A thread that waits for a timer or a socket shares its core with whoever computes there. The kernel's scheduler (EEVDF)
lets the one that runs finish its slice, about 3 ms on two cores, before it gives way; to a thread with a shorter slice
it gives way after that one (sched_setattr(2), `sched_runtime`). The share of the processor is the same either way.
"""

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000
"""The shortest that the kernel takes."""
_ATTR = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period."""
_SET = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, per machine: the C library has no function for it everywhere."""
_RESET_ON_FORK = 1
"""Threads that this one starts are not meant: they have the kernel's own slice."""


def shorten() -> bool:
    """Ask for SLICE_NS for this thread. False where it cannot be had; Linux before 6.12 takes it and does nothing."""
    number = _SET.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    return ctypes.CDLL(None, use_errno=True).syscall(number, 0, attr, 0) == 0
