// Words that every kernel speaks: eight 16-bit numbers in one 16-byte move, their conversion to
// and from float, sums over a warp or block, and the two instructions of dependent launches.
// (mma.cuh has the tensor cores and cp.async, hopper.cuh TMA and wgmma.)
//
// T is __nv_bfloat16 or __half throughout; `Pair` is two of them in 32 bits, the first one low.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using Pair = unsigned int;

constexpr int WARP = 32;
constexpr unsigned FULL_MASK = 0xffffffffu;

// ---- conversion ------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(float x) { return x; }

// Round to nearest, ties to even, as torch does.
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }

// What is left of x once it has been stored as T.
template <typename T> __device__ __forceinline__ float rounded(float x) {
    return to_float(from_float<T>(x));
}

template <typename T> __device__ __forceinline__ float2 unpack(Pair pair);
template <> __device__ __forceinline__ float2 unpack<__nv_bfloat16>(Pair pair) {
    // A bfloat16 is the upper half of a float: a shift and a mask, no conversion unit.
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack<__half>(Pair pair) {
    return __half22float2(*reinterpret_cast<__half2*>(&pair));
}

template <typename T> __device__ __forceinline__ Pair pack(float low, float high);
template <> __device__ __forceinline__ Pair pack<__nv_bfloat16>(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<Pair*>(&pair);
}
template <> __device__ __forceinline__ Pair pack<__half>(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<Pair*>(&pair);
}

// Products of two numbers of T, each rounded once to T.
template <typename T> __device__ __forceinline__ Pair multiply(Pair a, Pair b);
template <> __device__ __forceinline__ Pair multiply<__nv_bfloat16>(Pair a, Pair b) {
    __nv_bfloat162 product = __hmul2(
        *reinterpret_cast<__nv_bfloat162*>(&a), *reinterpret_cast<__nv_bfloat162*>(&b));
    return *reinterpret_cast<Pair*>(&product);
}
template <> __device__ __forceinline__ Pair multiply<__half>(Pair a, Pair b) {
    __half2 product = __hmul2(*reinterpret_cast<__half2*>(&a), *reinterpret_cast<__half2*>(&b));
    return *reinterpret_cast<Pair*>(&product);
}

// Eight numbers of T as they travel: four pairs.
template <typename T> __device__ __forceinline__ void unpack(uint4 eight, float (&out)[8]) {
    const Pair pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = unpack<T>(pairs[i]);
        out[2 * i] = two.x;
        out[2 * i + 1] = two.y;
    }
}

template <typename T> __device__ __forceinline__ uint4 pack(const float (&in)[8]) {
    return make_uint4(pack<T>(in[0], in[1]), pack<T>(in[2], in[3]), pack<T>(in[4], in[5]),
                      pack<T>(in[6], in[7]));
}

// ---- 16-byte moves (the address must be a multiple of 16) --------------------------------------

// What another kernel may have written just now: from L2, never a line that this SM kept.
__device__ __forceinline__ uint4 load_fresh(const void* address) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address)
                 : "memory");
    return v;
}

// What other threads of this block read too: through L1.
__device__ __forceinline__ uint4 load_reused(const void* address) {
    uint4 v;
    asm volatile("ld.global.ca.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address)
                 : "memory");
    return v;
}

// Constants that are read once: they must not push out what L1 holds. The compiler may move this
// load above wait_for_previous_kernel(), so nothing that a kernel writes may be read by it.
__device__ __forceinline__ uint4 load_once(const void* address) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(address));
    return v;
}

__device__ __forceinline__ void store(void* address, uint4 v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

// Shared memory, by its address there. The clobbers keep them on their side of barriers.
__device__ __forceinline__ uint4 load_from_shared(unsigned address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

__device__ __forceinline__ void store_to_shared(unsigned address, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

// ---- reductions --------------------------------------------------------------------------------

// Every lane gets the sum; the order of additions is always the same.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(FULL_MASK, x, distance);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, distance));
    }
    return x;
}

// Every thread of the block gets the sum. blockDim.x is a multiple of 32; `scratch` holds one float
// a warp and may be used again after the next __syncthreads.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    const int warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    const int lane = threadIdx.x % WARP;
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

// ---- dependent launches (Hopper) ---------------------------------------------------------------
//
// A kernel launched with overlap starts while its predecessor still runs. Every kernel of ours
// calls allow_next_kernel() early and wait_for_previous_kernel() before it reads or writes anything
// that another kernel touches; constants (weights) may be read before. Where launches do not
// overlap both do nothing.

__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
