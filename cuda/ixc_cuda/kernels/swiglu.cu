// out = round(silu(gate)) * up.
//
//     gate_and_up (rows, 2 n), the gate first; out (rows, n); n a multiple of 8; silu in float32,
//     rounded to T before it is multiplied.
//
// Grid: rows x parts of a row; a thread makes two vectors of eight outputs. Bound by the memory:
// 6 n bytes a row.

#include "vectors.cuh"

template <typename T> __device__ __forceinline__ uint4 gated(uint4 gate, uint4 up) {
    float values[8];
    unpack<T>(gate, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        values[i] = values[i] / (1.0f + expf(-values[i]));
    }
    const uint4 silu = pack<T>(values);
    return make_uint4(multiply<T>(silu.x, up.x), multiply<T>(silu.y, up.y),
                      multiply<T>(silu.z, up.z), multiply<T>(silu.w, up.w));
}

template <typename T> __global__ void swiglu(const T* gate_and_up, T* out, int n) {
    const long long row = blockIdx.x;
    const T* gate = gate_and_up + row * 2 * n;
    allow_next_kernel();
    wait_for_previous_kernel();

    // All four loads first, then the arithmetic.
    uint4 gates[2], ups[2];
    const int first = 8 * (blockIdx.y * 2 * blockDim.x + threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int column = first + 8 * i * blockDim.x;
        if (column < n) {
            gates[i] = load_fresh(gate + column);
            ups[i] = load_fresh(gate + n + column);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int column = first + 8 * i * blockDim.x;
        if (column < n) {
            store(out + row * n + column, gated<T>(gates[i], ups[i]));
        }
    }
}
