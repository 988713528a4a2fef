// Rows of a matrix streamed through shared memory, as far ahead as there is room.
//
// A stage holds RING_ROWS rows of CHUNK consecutive 16-bit elements each; every warp sees to two of
// them. On Hopper it starts a bulk copy a row and the copy engine does the rest; before Hopper every
// thread copies 16 bytes at a time. An mbarrier a stage says when the bytes are there.
//
// Rows of even index stand first, then 64 bytes of nothing, then the odd ones: eight lanes that
// read 64 bytes each of two neighbouring rows meet all 32 banks once.

#pragma once

#include "mma.cuh"
#include "vectors.cuh"

constexpr int RING_ROWS = 16;
constexpr int CHUNK = 512;
constexpr int RING_THREADS = RING_ROWS / 2 * WARP;
constexpr int RING_BARRIER_BYTES = 128;
constexpr int ROW_BYTES = CHUNK * 2;
constexpr int ODD_ROWS = RING_ROWS / 2 * ROW_BYTES + 64;
constexpr int STAGE_BYTES = RING_ROWS * ROW_BYTES + 128;
constexpr int MOST_STAGES = RING_BARRIER_BYTES / 8;

#define BULK_COPIES (__CUDA_ARCH__ >= 900)

class RowRing {
  public:
    // `barriers` has RING_BARRIER_BYTES, `stages` has num_stages * STAGE_BYTES, 128-byte aligned.
    // All threads of the block; a __syncthreads must follow before the ring is used.
    __device__ RowRing(unsigned barriers, unsigned stages, int num_stages)
        : barriers_(barriers), stages_(stages), num_stages_(num_stages) {
        if (threadIdx.x == 0) {
            const int arrivals = BULK_COPIES ? 1 : RING_THREADS;
#pragma unroll 1
            for (int i = 0; i < num_stages; ++i) {
                asm volatile("mbarrier.init.shared.b64 [%0], %1;"
                             :
                             : "r"(barriers_ + 8 * i), "r"(arrivals)
                             : "memory");
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

    // The row that this thread sees to; -1 if it has none.
    __device__ static int row_of_thread() {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#if BULK_COPIES
        return lane < 2 ? 2 * warp + lane : -1;
#else
        return 2 * warp + lane / (WARP / 2);
#endif
    }

    // Fill the next stage, which must be free: all threads of the block, each with the address of
    // its row's part, of which `num_bytes` (a multiple of 16, at most ROW_BYTES) are wanted.
    __device__ void fill(const unsigned char* source, int num_bytes) {
        const unsigned barrier = barriers_ + 8 * fill_stage_;
        const unsigned target = stages_ + fill_stage_ * STAGE_BYTES + row_offset(row_of_thread());
#if BULK_COPIES
        if (threadIdx.x == 0) {
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
        for (int i = threadIdx.x % (WARP / 2) * 16; i < num_bytes; i += WARP / 2 * 16) {
            copy_async_16(target + i, source + i);
        }
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" : : "r"(barrier) : "memory");
#endif
        fill_stage_ = fill_stage_ + 1 == num_stages_ ? 0 : fill_stage_ + 1;
    }

    // Wait for the oldest stage and return its address in shared memory. Its bytes stay until
    // release(), after which a __syncthreads makes it free.
    __device__ unsigned wait() const {
        const unsigned barrier = barriers_ + 8 * read_stage_;
        unsigned done;
        do {
#if BULK_COPIES
            asm volatile(
                "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2;"
                " selp.u32 %0, 1, 0, p; }"
                : "=r"(done)
                : "r"(barrier), "r"(parity_)
                : "memory");
#else
            asm volatile(
                "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2;"
                " selp.u32 %0, 1, 0, p; }"
                : "=r"(done)
                : "r"(barrier), "r"(parity_)
                : "memory");
#endif
        } while (!done);
        return stages_ + read_stage_ * STAGE_BYTES;
    }

    __device__ void release() {
        if (++read_stage_ == num_stages_) {
            read_stage_ = 0;
            parity_ ^= 1;
        }
    }

    __device__ static constexpr int row_offset(int row) {
        return (row % 2) * ODD_ROWS + row / 2 * ROW_BYTES;
    }

  private:
    unsigned barriers_, stages_;
    int num_stages_;
    int fill_stage_ = 0, read_stage_ = 0;
    unsigned parity_ = 0;
    unsigned long long policy_ = 0;
};
