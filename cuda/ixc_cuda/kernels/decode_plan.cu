// Divides the tiles of all sequences evenly among workers (decode_plan.cuh).
//
//     worker w has the tiles [w T / W, (w + 1) T / W) of T
//
// W is the fewest workers that finish as early as all `most_workers` would: where some have two
// tiles anyway, others with one save no time and leave more parts to merge. So W is at most T, and
// none is idle between two that share a sequence.
//
// lengths  (sequences) int32    slots of each; 0 is absent
// shares   (workers) Share      out
// spans    (sequences) Span     out
//
// One block; dynamic shared memory for sequences + 1 integers. Bound by latency, once a step.

#include "decode_plan.cuh"
#include "vectors.cuh"

namespace {

constexpr int kThreads = 512;

// The sum over this thread and those below it.
__device__ __forceinline__ int scan_block(int value, int* warp_sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const int below = __shfl_up_sync(~0u, value, distance);
        if (lane >= distance) value += below;
    }
    if (lane == 31) warp_sums[warp] = value;
    __syncthreads();
    for (int i = 0; i < warp; ++i) value += warp_sums[i];
    return value;
}

}  // namespace

__global__ void __launch_bounds__(kThreads) decode_plan(
    Share* shares, Span* spans, const int* lengths,
    int sequences, int most_workers) {
    extern __shared__ unsigned before[];  // tiles before each sequence; last, all
    __shared__ int warp_sums[kThreads / 32];

    allow_next_kernel();
    wait_for_previous_kernel();
    if (threadIdx.x == 0) before[0] = 0;
    for (int first = 0; first < sequences; first += kThreads) {
        const int sequence = first + threadIdx.x;
        __syncthreads();  // before[first] is there, and warp_sums is free again
        const int tiles = sequence < sequences ? tiles_of(lengths[sequence]) : 0;
        const int sum = scan_block(tiles, warp_sums);
        if (sequence < sequences) before[sequence + 1] = before[first] + sum;
    }
    __syncthreads();

    // Products of tiles and workers fit 32 bits: 16 M tiles would be a billion slots.
    const unsigned total = before[sequences];
    const unsigned share_tiles = max((total + most_workers - 1) / most_workers, 1u);
    const unsigned workers = (total + share_tiles - 1) / share_tiles;

    for (int worker = threadIdx.x; worker < most_workers; worker += kThreads) {
        Share share{};
        if (worker < workers) {
            const unsigned begin = worker * total / workers, end = (worker + 1) * total / workers;
            // The sequence that holds tile `begin`: the last one that starts there or before.
            int low = 0, high = sequences - 1;
            while (low < high) {
                const int middle = (low + high + 1) / 2;
                if (before[middle] <= begin) {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            share.sequence = low;
            share.first_tile = static_cast<int>(begin - before[low]);
            share.tiles = static_cast<int>(end - begin);
            share.length = lengths[low];
        }
        shares[worker] = share;
    }

    for (int sequence = threadIdx.x; sequence < sequences; sequence += kThreads) {
        Span span{};
        if (before[sequence] < before[sequence + 1]) {
            // Tile x belongs to the last worker w with w T / W <= x.
            const auto worker_of = [&](unsigned tile) {
                return static_cast<int>(((tile + 1) * workers - 1) / total);
            };
            span.first_worker = worker_of(before[sequence]);
            span.workers = worker_of(before[sequence + 1] - 1) - span.first_worker + 1;
        }
        spans[sequence] = span;
    }
}
