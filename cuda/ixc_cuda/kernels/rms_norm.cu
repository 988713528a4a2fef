// out = round(x / rms(x)) * weight, each row by itself.
//
//     x, out (rows, n), weight (n), n a multiple of 8; the sum of squares and the quotient in
//     float32, the quotient rounded to T before it is multiplied.
//
// A block a row; a thread holds VECTORS vectors of eight, so that x is read once. Bound by the
// memory: 4 n bytes a row.

#include "vectors.cuh"

template <typename T, int VECTORS>
__global__ void rms_norm(const T* x, const T* weight, T* out, int n, float eps) {
    __shared__ float scratch[32];
    const long long start = static_cast<long long>(blockIdx.x) * n;
    const int vectors = n / 8;
    allow_next_kernel();
    wait_for_previous_kernel();

    uint4 held[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        const int vector = threadIdx.x + i * blockDim.x;
        held[i] = make_uint4(0, 0, 0, 0);
        if (vector < vectors) {
            held[i] = load_fresh(x + start + 8 * vector);
        }
    }

    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        float values[8];
        unpack<T>(held[i], values);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            sum = fmaf(values[j], values[j], sum);
        }
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / static_cast<float>(n) + eps);

#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        const int vector = threadIdx.x + i * blockDim.x;
        if (vector < vectors) {
            const uint4 factors = load_reused(weight + 8 * vector);
            float values[8];
            unpack<T>(held[i], values);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                values[j] *= scale;
            }
            const uint4 plain = pack<T>(values);
            store(out + start + 8 * vector,
                  make_uint4(multiply<T>(plain.x, factors.x), multiply<T>(plain.y, factors.y),
                             multiply<T>(plain.z, factors.z), multiply<T>(plain.w, factors.w)));
        }
    }
}
