// What a warpgroup does with its 64 rows of an attention tile, in registers: scores of a block of 128
// slots, their softmax as far as it is known, the sum over values. (sm_90a)
//
// A thread has parts of two rows, 8 apart: of a C operand (hopper.cuh) the columns 2 t and 2 t + 1 of
// every eight. Keys, values and queries lie in shared memory in "columns": 128 rows of 64 elements,
// 128 bytes each, swizzled as the copy engine does it; a head of 128 is two columns.

#pragma once

#include "hopper.cuh"
#include "mma.cuh"

constexpr int kBlockSlots = 128;
constexpr int kColumnBytes = kBlockSlots * 128;
constexpr float kHidden = -1.0f / 0.0f;  // the score of a slot that a row does not see

// The A operands of 16 rows from `row` on, one per 16 elements of their width.
template <int D>
__device__ __forceinline__ void load_queries(unsigned (&query)[D / 16][4], unsigned shared, int row) {
    const int lane = threadIdx.x % 32, mine = row + lane % 16;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        const int chunk = (k % 4 * 2 + lane / 16) ^ (mine & 7);
        load_matrix_x4(query[k], shared + k / 4 * kColumnBytes + mine * 128 + chunk * 16);
    }
}

// scores (64 x 128) = queries x a block of keys. Queries come from registers, since from shared
// memory they would be read again for each block, beside keys that take half its bandwidth.
template <typename T, int D>
__device__ __forceinline__ void issue_scores(float (&scores)[64], const unsigned (&query)[D / 16][4],
                                             unsigned keys) {
    const unsigned long long b = describe_swizzled(keys, 0);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        const int offset = k / 4 * kColumnBytes + k % 4 * 32;
        Products<T>::multiply_rows(scores, query[k], advance(b, offset), k > 0);
    }
    commit_products();
}

// acc (64 x D) += probabilities x a block of values.
template <typename T, int D>
__device__ __forceinline__ void issue_sums(float (&acc)[D / 2],
                                           const unsigned (&probabilities)[kBlockSlots / 16][4],
                                           unsigned values) {
    const unsigned long long b = describe_swizzled(values, kColumnBytes);
#pragma unroll
    for (int k = 0; k < kBlockSlots / 16; ++k) {
        Products<T>::multiply_columns(acc, probabilities[k], advance(b, k * 16 * 128), 1);
    }
    commit_products();
}

// Hide the columns after `last`, counted from this thread's first one, in its upper and lower row.
__device__ __forceinline__ void hide(float (&scores)[64], int last_upper, int last_lower) {
#pragma unroll
    for (int i = 0; i < 64; ++i) {
        if (i / 4 * 8 + i % 2 > (i / 2 % 2 == 0 ? last_upper : last_lower)) scores[i] = kHidden;
    }
}

// What is known so far of the softmax of a thread's two rows.
struct Softmax {
    float row_max[2] = {kHidden, kHidden};
    float row_sum[2] = {0.0f, 0.0f};  // of this thread's columns
    float shrink[2];                  // what the last block did to what was summed before

    // Scores become probabilities, but for the division by the final sum. Every row sees slot 0, so
    // its maximum is finite from the first block on.
    __device__ __forceinline__ void apply(float (&scores)[64], float scale_log2) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float largest = row_max[half];
#pragma unroll
            for (int n = 0; n < 16; ++n) {
                largest = fmaxf(
                    largest, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
            }
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
            shrink[half] = exp2_fast((row_max[half] - largest) * scale_log2);
            row_max[half] = largest;
            const float shift = largest * scale_log2;
            float sum = row_sum[half] * shrink[half];
#pragma unroll
            for (int n = 0; n < 16; ++n) {
#pragma unroll
                for (int i = 4 * n + 2 * half; i < 4 * n + 2 * half + 2; ++i) {
                    scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -shift));
                    sum += scores[i];
                }
            }
            row_sum[half] = sum;
        }
    }

    // Sums of earlier blocks, by the new maximum. It rarely moves after the first few.
    template <int N>
    __device__ __forceinline__ void rescale(float (&acc)[N]) const {
        if (!__any_sync(~0u, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
        for (int i = 0; i < N; ++i) acc[i] *= shrink[i / 2 % 2];
    }

    __device__ __forceinline__ float total(int half) const {
        float sum = row_sum[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        return sum + __shfl_xor_sync(~0u, sum, 2);
    }
};

// The layout of a C operand is that of an A operand, 16 columns at a time.
template <typename T>
__device__ __forceinline__ void to_operand(unsigned (&a)[kBlockSlots / 16][4],
                                           const float (&scores)[64]) {
#pragma unroll
    for (int k = 0; k < kBlockSlots / 16; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a[k][i] = pack2<T>(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
        }
    }
}
