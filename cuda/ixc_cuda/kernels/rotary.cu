// Split packed projections, rotate queries and keys, write keys and values to their slots.
//
//     qkv (rows, kv_heads, group + 2, D): queries, key, value; cos, sin (rows, D / 2) in float32
//     queries (rows, kv_heads, group, D); keys, values: slots of (kv_heads, D), slots (rows), of
//     which -1 is none
//
//     left' = left cos - right sin,  right' = right cos + left sin    (the halves of a head)
//
// Grid: rows x parts of a row; a thread takes eight numbers of each half of one head. Bound by the
// memory: everything is read once and written once, and the tables stay in L1.

#include "vectors.cuh"

__device__ __forceinline__ void load_eight(const float* source, float (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint4 four = load_reused(source + 4 * i);
        out[4 * i] = __uint_as_float(four.x);
        out[4 * i + 1] = __uint_as_float(four.y);
        out[4 * i + 2] = __uint_as_float(four.z);
        out[4 * i + 3] = __uint_as_float(four.w);
    }
}

template <typename T>
__global__ void rotate_and_store(const T* qkv, const float* cos, const float* sin, T* keys,
                                 T* values, const long long* slots, T* queries, int kv_heads,
                                 int group, int head_dim) {
    const int half = head_dim / 2, vectors = half / 8;
    const int index = blockIdx.y * blockDim.x + threadIdx.x;
    const int head = index / vectors, column = index % vectors * 8;
    const long long row = blockIdx.x;
    allow_next_kernel();
    wait_for_previous_kernel();
    if (head >= kv_heads * (group + 2)) {
        return;
    }

    const T* source = qkv + (row * kv_heads * (group + 2) + head) * head_dim + column;
    uint4 left = load_fresh(source), right = load_fresh(source + half);

    // Where the head goes: a query beside those of its KV head, a key or value into its slot.
    const int kv_head = head / (group + 2), member = head % (group + 2);
    T* target;
    if (member < group) {
        target = queries + ((row * kv_heads + kv_head) * group + member) * head_dim + column;
    } else {
        const long long slot = slots[row];
        if (slot < 0) {
            return;
        }
        T* pages = member == group ? keys : values;
        target = pages + (slot * kv_heads + kv_head) * head_dim + column;
    }

    if (member <= group) {
        float c[8], s[8], l[8], r[8], rotated[8];
        load_eight(cos + row * half + column, c);
        load_eight(sin + row * half + column, s);
        unpack<T>(left, l);
        unpack<T>(right, r);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            rotated[i] = fmaf(-r[i], s[i], l[i] * c[i]);
        }
        left = pack<T>(rotated);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            rotated[i] = fmaf(l[i], s[i], r[i] * c[i]);
        }
        right = pack<T>(rotated);
    }
    store(target, left);
    store(target + half, right);
}
