"""When the C library's heap gives memory back to the system: at once, or, in an engine without a limit, not at all.

mallopt(3) is glibc's; where it is lacking, all of this does nothing.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
LARGE_BLOCK_BYTES = 4 * 1024 * 1024  # at 1 MiB page faults cost a quarter of the CPU time of small batches
SPARE_BYTES = 8 * 1024 * 1024  # may lie free at the heap's end; at glibc's 128 KiB each picture asks for its pages anew

# The same of an engine, for each lane of its models (stages/lanes.py): two blocks of attention of a large Whisper are
# 360 MB, of a small one 216 MB.
FREE_HEAP_BYTES = 256 * 1024 * 1024


def keep_heap_whole() -> None:
    """Take every large block from the system and give it back when it is freed.

    glibc raises its limit for that (M_MMAP_THRESHOLD) up to 32 MiB by itself, and then batches of changing size leave
    holes between them: a process grew from 300 to 890 MB in 240 batches, and to 620 with the limit held.
    """
    _set(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    _set(M_TRIM_THRESHOLD, SPARE_BYTES)


def share_one_heap() -> None:
    """All threads take from one heap. To be called before the first of them; before `keep_freed_memory`.

    The heaps that glibc makes for other threads hold 64 MiB at most: larger blocks of theirs come from the system, and
    go back to it, whatever it was told.
    """
    _set(M_ARENA_MAX, 1)


def keep_freed_memory(lanes: int) -> None:
    """Let the heap keep what a batch has freed, for the next one. To be called when the models are loaded.

    On the CPU the kernel otherwise takes back the pages of every large tensor, and clears them anew for the next: a
    third of the encoder's processor time in a small Whisper, for the same peak. Where `device.memory_gb` is set they
    go back all the same: what a batch takes is only seen when it is taken from the system.
    """
    _set(M_MMAP_MAX, 0)
    _set(M_TRIM_THRESHOLD, min(lanes * FREE_HEAP_BYTES, 2**31 - 1))


def _set(parameter: int, value: int) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(parameter, value)
