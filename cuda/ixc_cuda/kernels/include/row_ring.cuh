// Rows of a matrix streamed through shared memory, as far ahead as there is room.
//
// A stage holds RING_ROWS rows of CHUNK consecutive 16-bit elements each, which the filling warps
// share. On Hopper they start a bulk copy a row and the copy engine does the rest; before Hopper
// every thread copies 16 bytes at a time. A stage has two mbarriers: one says that its bytes are
// there, the other that all WARPS readers have read them, so that none waits for another's reading.
//
// Rows of even index stand first, then 64 bytes of nothing, then the odd ones: eight lanes that
// read 64 bytes each of two neighbouring rows meet all 32 banks once.

#pragma once

#include "mma.cuh"
#include "vectors.cuh"

constexpr int RING_ROWS = 16;
constexpr int CHUNK = 1024;
constexpr int WARPS = 8;  // that read: the first ones of the block
constexpr int THREADS = WARPS * WARP;
constexpr int RING_BARRIER_BYTES = 256;
constexpr int ROW_BYTES = CHUNK * 2;
constexpr int ODD_ROWS = RING_ROWS / 2 * ROW_BYTES + 64;
constexpr int STAGE_BYTES = RING_ROWS * ROW_BYTES + 64;
constexpr int MOST_STAGES = RING_BARRIER_BYTES / 16;

// Of a row in a stage.
__device__ constexpr int row_offset(int row) {
    return (row % 2) * ODD_ROWS + row / 2 * ROW_BYTES;
}

#define BULK_COPIES (__CUDA_ARCH__ >= 900)

// FILLERS: as many warps as read, then they are the same; or a single one behind them, which does
// nothing else.
template <int FILLERS> class RowRing {
    static_assert(FILLERS == WARPS || FILLERS == 1, "the readers, or one warp");
    static constexpr int FIRST_FILLER = FILLERS == WARPS ? 0 : WARPS;
    static constexpr int ROWS_A_WARP = RING_ROWS / FILLERS, LANES_A_ROW = WARP / ROWS_A_WARP;

  public:
    static constexpr int BLOCK_THREADS = (FIRST_FILLER + FILLERS) * WARP;

    // `barriers` has RING_BARRIER_BYTES, `stages` num_stages * STAGE_BYTES, aligned to 64.
    // All threads of the block; a __syncthreads must follow before the ring is used.
    __device__ RowRing(unsigned barriers, unsigned stages, int num_stages)
        : barriers_(barriers), stages_(stages), num_stages_(num_stages) {
        if (threadIdx.x == 0) {
            const int arrivals = BULK_COPIES ? 1 : FILLERS * WARP;
#pragma unroll 1
            for (int i = 0; i < num_stages; ++i) {
                init(filled(i), arrivals);
                init(read(i), WARPS);
            }
#if BULK_COPIES
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
        }
#if BULK_COPIES
        // Weights are read once: they are the first that L2 may drop.
        asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
#endif
    }

    __device__ static bool is_filler() { return threadIdx.x / WARP >= FIRST_FILLER; }

    // The row that a filling thread sees to; -1 if it has none.
    __device__ static int row_of_thread() {
        const int warp = threadIdx.x / WARP - FIRST_FILLER, lane = threadIdx.x % WARP;
#if BULK_COPIES
        return lane < ROWS_A_WARP ? ROWS_A_WARP * warp + lane : -1;
#else
        return ROWS_A_WARP * warp + lane / LANES_A_ROW;
#endif
    }

    // Fill the next stage, once all readers have released it: all threads that fill, each with the
    // address of its row's part, of which `num_bytes` (a multiple of 16, at most ROW_BYTES) are
    // wanted.
    __device__ void fill(const void* source, int num_bytes) {
        const unsigned barrier = filled(fill_stage_);
        // A stage that was never read counts as released.
        wait_for(read(fill_stage_), fill_parity_ ^ 1);
        const unsigned target = stages_ + fill_stage_ * STAGE_BYTES + row_offset(row_of_thread());
#if BULK_COPIES
        if (threadIdx.x == FIRST_FILLER * WARP) {
            asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;"
                         :
                         : "r"(barrier), "r"(RING_ROWS * num_bytes)
                         : "memory");
        }
        if (row_of_thread() >= 0) {
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                ".L2::cache_hint [%0], [%1], %2, [%3], %4;"
                :
                : "r"(target), "l"(__cvta_generic_to_global(source)), "r"(num_bytes),
                  "r"(barrier), "l"(policy_)
                : "memory");
        }
#else
        for (int i = threadIdx.x % LANES_A_ROW * 16; i < num_bytes; i += LANES_A_ROW * 16) {
            copy_async_16(target + i, static_cast<const char*>(source) + i);
        }
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" : : "r"(barrier) : "memory");
#endif
        if (++fill_stage_ == num_stages_) {
            fill_stage_ = 0;
            fill_parity_ ^= 1;
        }
    }

    // A reader: wait for the oldest stage and return its address in shared memory.
    __device__ unsigned wait() const {
        wait_for(filled(read_stage_), read_parity_);
        return stages_ + read_stage_ * STAGE_BYTES;
    }

    // This warp has read what it wanted of the oldest stage.
    __device__ void release() {
        __syncwarp();
        if (threadIdx.x % WARP == 0) {
            asm volatile("mbarrier.arrive.shared.b64 _, [%0];"
                         :
                         : "r"(read(read_stage_))
                         : "memory");
        }
        if (++read_stage_ == num_stages_) {
            read_stage_ = 0;
            read_parity_ ^= 1;
        }
    }

  private:
    __device__ unsigned filled(int stage) const { return barriers_ + 8 * stage; }
    __device__ unsigned read(int stage) const { return barriers_ + 8 * (MOST_STAGES + stage); }

    __device__ static void init(unsigned barrier, int arrivals) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;"
                     :
                     : "r"(barrier), "r"(arrivals)
                     : "memory");
    }

#if BULK_COPIES
#define WAIT_ONCE "mbarrier.try_wait.parity.shared.b64"  // sleeps a little
#else
#define WAIT_ONCE "mbarrier.test_wait.parity.shared.b64"
#endif
    __device__ static void wait_for(unsigned barrier, unsigned parity) {
        unsigned done;
        do {
            asm volatile("{ .reg .pred p; " WAIT_ONCE " p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                         : "=r"(done)
                         : "r"(barrier), "r"(parity)
                         : "memory");
        } while (!done);
    }

    unsigned barriers_, stages_;
    int num_stages_;
    int fill_stage_ = 0, read_stage_ = 0;
    unsigned fill_parity_ = 0, read_parity_ = 0;
    unsigned long long policy_ = 0;
};

// Of the threads that read, and of no other.
__device__ __forceinline__ void sync_readers() {
    asm volatile("bar.sync 1, %0;" : : "n"(THREADS) : "memory");
}
