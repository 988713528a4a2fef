// What the threads of a block share while they sample a row, and how they add up.

#pragma once

#include "logits_row.cuh"
#include "probability.cuh"
#include "cluster.cuh"

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kMostBlocks = 8;
constexpr int kMostWarps = kWarps * kMostBlocks;
constexpr int kGroups = 512;      // of a row's tokens, each with its best one
constexpr int kCandidates = 512;  // that are settled among themselves
constexpr int kBins = 256;        // of one digit of a rank key
constexpr int kColumns = 16;      // of a bin: lanes seldom add to the same one at once
constexpr int kPartBits = 16;     // of a mass, so that 32 bits hold a column's sum
static_assert((kMostTokens / kColumns) << kPartBits <= 1ll << 31, "of as many tokens in a column");
static_assert(kMassBits < 3 * kPartBits, "three parts are enough");
static_assert(kGroups == kThreads, "each thread looks at one group's best");

// What the logits of a row are: the larger number wins.
enum Kind : unsigned { kEmpty = 0, kFinite = 1, kBroken = 2 };

struct alignas(16) Candidate {
    unsigned key;
    int id;
    u64 mass;
};

struct Shared {
    SlotSettings settings;
    Edits edits;
    float group_best[kGroups];
    float warp_best[kMostWarps];
    int warp_best_id[kMostWarps];
    unsigned warp_kind[kMostWarps];
    u64 warp_mass[kMostWarps];
    u64 partial[kWarps];
    u64 bin_sums[kMostBlocks][kBins];
    u64 found_before;
    unsigned found_digit;
    bool settled;
    unsigned num_candidates;
    unsigned position;
    union {
        Candidate candidates[kCandidates];
        unsigned bins[3][kBins][kColumns];
    };
};

// What sampling.py asks for, beside the marks.
static_assert(sizeof(Shared) == 70400, "as sampling.py knows it");

// The lane, so that the compiler keeps nothing that it has worked out from it before.
__device__ __forceinline__ int lane_read_anew() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// ---- a block's sums

__device__ __forceinline__ u64 warp_sum(u64 value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
}

__device__ __forceinline__ u64 inclusive_in_warp(u64 value) {
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const u64 below = __shfl_up_sync(kWholeWarp, value, step);
        if (threadIdx.x % 32 >= step) value += below;
    }
    return value;
}

// The sum over all threads, known to each.
__device__ __forceinline__ u64 block_sum(Shared& shared, u64 value) {
    const u64 of_warp = warp_sum(value);
    __syncthreads();  // the last sum has been read
    if (threadIdx.x % 32 == 0) shared.partial[threadIdx.x / 32] = of_warp;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < kWarps ? shared.partial[threadIdx.x % 32] : 0);
}

// The sum over the threads in front of this one.
__device__ __forceinline__ u64 block_sum_before(Shared& shared, u64 value) {
    const u64 inclusive = inclusive_in_warp(value);
    __syncthreads();
    if (threadIdx.x % 32 == 31) shared.partial[threadIdx.x / 32] = inclusive;
    __syncthreads();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return warp_sum(lane < warp ? shared.partial[lane] : 0) + inclusive - value;
}

// The sum over `count` neighbouring threads, a power of two of one warp.
template <typename T>
__device__ __forceinline__ T sum_over(int count, T value) {
    for (int step = 1; step < count; step *= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
}
