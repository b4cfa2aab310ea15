"""A short time slice for a thread that answers requests: Linux 6.12 and newer then wake it at once beside a busy one.

A thread that waits for a timer or a socket shares its core with whoever computes there. The kernel's scheduler (EEVDF)
lets the running thread finish its slice, about 3 ms on two cores, before it gives way; to a thread with a shorter slice
it gives way after the shorter one (sched_setattr(2), `sched_runtime`). Each thread's share of the processor stays the
same.
"""

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000
"""Nanoseconds of the slice: the shortest that the kernel takes."""
_ATTR = struct.Struct("=IIQiIQQQ")
"""Layout of struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period."""
_SET = {"x86_64": 314, "aarch64": 274}
"""Machine → number of the system call, since not every C library has a function for it."""
_RESET_ON_FORK = 1
"""Flag that leaves threads which this one starts with the kernel's usual slice."""


def shorten() -> bool:
    """Ask for SLICE_NS for this thread. False where it cannot be had; Linux before 6.12 says yes and does nothing."""
    number = _SET.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    status: int = ctypes.CDLL(None, use_errno=True).syscall(number, 0, attr, 0)
    return status == 0
