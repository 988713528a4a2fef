"""What launchers reckon with of kernels/include/row_ring.cuh: weights streamed through a ring.

A block of these kernels has a multiprocessor for itself: the deeper its ring, the longer the memory
is busy while sums are exchanged and the next launch begins.
"""

WARPS = 8  # that read
TILE = 16  # rows of the weights in a stage
CHUNK = 1024  # elements of each
STAGE_BYTES = TILE * CHUNK * 2 + 64
BARRIER_BYTES = 256
MOST_STAGES = BARRIER_BYTES // 16

# What a block leaves of a multiprocessor's shared memory, for small kernels beside it.
_ROOM_BESIDE = 8 << 10


def stages_beside(fixed_bytes: int, *, shared_bytes: int) -> int:
    """How deep a ring fits beside a block's other needs; `shared_bytes`: the most it may have."""
    return max(2, min(MOST_STAGES, (shared_bytes - _ROOM_BESIDE - fixed_bytes) // STAGE_BYTES))
