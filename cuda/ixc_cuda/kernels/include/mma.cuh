// Tensor cores through mma.sync (sm_80 and later), and how their operands get into registers.
//
// An m16n8k16 product C += A B spreads over a warp so (g = lane / 4, t = lane % 4):
//
//     A (16 x 16, rows x k)    a0 (g, 2t) (g, 2t+1)      a1 (g+8, 2t) (g+8, 2t+1)
//                              a2 (g, 2t+8) (g, 2t+9)    a3 (g+8, 2t+8) (g+8, 2t+9)
//     B (16 x 8, k x columns)  b0 (2t, g) (2t+1, g)      b1 (2t+8, g) (2t+9, g)
//     C (16 x 8)               c0 (g, 2t)  c1 (g, 2t+1)  c2 (g+8, 2t)  c3 (g+8, 2t+1)
//
// Two 16-bit elements share a register, the first one in its low half.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// ---- the product

template <typename T>
__device__ __forceinline__ void mma_16816(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                          unsigned b1);

template <>
__device__ __forceinline__ void mma_16816<__nv_bfloat16>(float (&c)[4], const unsigned (&a)[4],
                                                         unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void mma_16816<__half>(float (&c)[4], const unsigned (&a)[4],
                                                  unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- between the layouts

// Two floats rounded to T, the first in the low half.
template <typename T>
__device__ __forceinline__ unsigned pack2(float low, float high);

template <>
__device__ __forceinline__ unsigned pack2<__nv_bfloat16>(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <>
__device__ __forceinline__ unsigned pack2<__half>(float low, float high) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// An 8 x 8 matrix of 16-bit elements, lane l holding (l / 4, 2 (l % 4)) and its right neighbour,
// transposed into the same layout: a quarter of C becomes half of B.
__device__ __forceinline__ unsigned transpose_8x8(unsigned pair) {
    unsigned transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
    return transposed;
}

// 2^x to about 2 ulp; 0 for minus infinity.
__device__ __forceinline__ float exp2_fast(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// ---- from shared memory

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices; lane l names row l % 8 of matrix l / 8, 16 bytes. The clobber keeps the read
// behind whatever barrier or wait stands in front of it.
__device__ __forceinline__ void load_matrix_x4(unsigned (&pairs)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_matrix_x4_transposed(unsigned (&pairs)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
}

// ---- from device memory into shared memory, asynchronously

// 16 bytes past L1; zeros, and no read, where not `valid`.
__device__ __forceinline__ void copy_async_16(unsigned shared, const void* source,
                                              bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared), "l"(__cvta_generic_to_global(source)), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most `Pending` of this thread's committed groups are still under way.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
