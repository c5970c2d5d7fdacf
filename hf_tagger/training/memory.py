"""Keeps glibc from returning every large tensor's memory to the kernel, which zeroes it anew for the next step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """On Linux with glibc, lets freed memory stay with the process; False where there is nothing to set.

    A training step on a CPU frees and takes the same hundreds of megabytes over and over. By default glibc maps each
    large block afresh, and on a virtual machine the page faults can cost more than the arithmetic. See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
