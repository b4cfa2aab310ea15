"""A short slice is one thread's own: the kernel has it, and a thread that this one starts has its usual one."""

import ctypes
import os
import platform
import struct
import threading

import pytest

from tiltyard.serve import timeslice

_GET = {"x86_64": 315, "aarch64": 275}


def runtime() -> int:
    """The calling thread's slice in nanoseconds, as the kernel has it."""
    attr = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None).syscall(_GET[platform.machine()], 0, attr, len(attr), 0) == 0
    return int(struct.unpack_from("=IIQiIQ", attr.raw)[5])


def in_thread(work):
    """Run there, so that this process's own thread stays as it is."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(platform.machine() not in _GET or platform.system() != "Linux", reason="not Linux on x86 or ARM")
def test_the_thread_has_it_and_those_it_starts_have_not():
    usual = in_thread(runtime)
    if usual == 0:
        pytest.skip("this kernel has no slices of their own (before Linux 6.12)")
    assert in_thread(lambda: (timeslice.shorten(), runtime(), in_thread(runtime))) == (True, timeslice.SLICE_NS, usual)


def test_it_leaves_a_thread_alone_that_somebody_gave_another_policy():
    def work():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return timeslice.shorten(), os.sched_getscheduler(0)

    assert in_thread(work) == (False, os.SCHED_BATCH)
