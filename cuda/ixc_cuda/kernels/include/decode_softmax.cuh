// The softmax of decode_attention.cu as one warp keeps it, sixteen slots at a time.
//
// Scores of sixteen slots and eight query rows are a C operand of mma.cuh: lane (g, t) =
// (lane / 4, lane % 4) has the slots g and g + 8 of the query rows 2t and 2t + 1.

#pragma once

#include "mma.cuh"

// The maximum of no scores: finite, so that differences of maxima are.
constexpr float kLowest = -1e30f;
constexpr float kHidden = -1.0f / 0.0f;  // the score of a slot that a row does not see

// The largest over lanes that differ in lane / 4: all slots of a query row.
__device__ __forceinline__ float max_over_slots(float x) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) {
        x = fmaxf(x, __shfl_xor_sync(~0u, x, distance));
    }
    return x;
}

__device__ __forceinline__ float sum_over_slots(float x) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) x += __shfl_xor_sync(~0u, x, distance);
    return x;
}

// Hides from query rows `row` and `row` + 1 those of the slots `slot` and `slot` + 8 that they do
// not see. Rows of the first `group` see `visible` slots, each further group sees one more.
__device__ __forceinline__ void hide_slots(float (&scores)[4], int slot, int visible, int row,
                                           int group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (slot + i / 2 * 8 >= visible + (row + i % 2) / group) scores[i] = kHidden;
    }
}

// What a warp knows of the slots it has seen. Lane (g, t) has the query rows 2t and 2t + 1 of every
// query tile; `sum` is of this lane's slots alone. Maxima are of scores in powers of two.
template <int D, int QueryTiles>
struct Softmax {
    float maximum[QueryTiles][2];
    float sum[QueryTiles][2];
    float acc[QueryTiles][D / 16][4];

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (int n = 0; n < QueryTiles; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) maximum[n][e] = kLowest, sum[n][e] = 0.0f;
#pragma unroll
            for (int m = 0; m < D / 16; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) acc[n][m][i] = 0.0f;
            }
        }
    }

    // Turns a query tile's scores of sixteen slots into weights; rescales what was summed under a
    // lower maximum.
    __device__ __forceinline__ void weigh(int n, float (&scores)[4], float scale_log2) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const float largest = max_over_slots(fmaxf(scores[e], scores[e + 2]));
            const float raised = fmaxf(maximum[n][e], largest * scale_log2);
            const float shrink = exp2_fast(maximum[n][e] - raised);
            maximum[n][e] = raised;
            sum[n][e] *= shrink;
#pragma unroll
            for (int i = e; i < 4; i += 2) {
                scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -raised));
                sum[n][e] += scores[i];
#pragma unroll
                for (int m = 0; m < D / 16; ++m) acc[n][m][i] *= shrink;
            }
        }
    }
};
