// The norm's arithmetic, eight elements at a time, rounded where the definition rounds.

#pragma once

#include "vectors.cuh"

template <typename T> __device__ __forceinline__ float sum_of_squares(uint4 eight) {
    float values[8];
    unpack<T>(eight, values);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        sum = fmaf(values[i], values[i], sum);
    }
    return sum;
}

// x / rms(x), rounded, times the norm's weights, rounded; `scale` is 1 / rms(x).
template <typename T>
__device__ __forceinline__ uint4 normalised(uint4 eight, float scale, uint4 weights) {
    float values[8];
    unpack<T>(eight, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        values[i] *= scale;
    }
    const uint4 plain = pack<T>(values);
    return make_uint4(multiply<T>(plain.x, weights.x), multiply<T>(plain.y, weights.y),
                      multiply<T>(plain.z, weights.z), multiply<T>(plain.w, weights.w));
}
