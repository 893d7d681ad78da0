"""Memory of the CPU's tensors, kept between steps."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets this process reuse the memory of large tensors.

    glibc gives every block over some MB back to the system when it is freed, so that each step would have its pages
    mapped and zeroed anew: on mini a twelfth of the time. Other C libraries have no such option and are left alone.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, NEVER)
