// Hopper's own machinery (sm_90a): bulk tensor copies (TMA) that end at barriers in shared memory,
// matrix products issued by a warpgroup of 4 warps (wgmma), and registers moved between warpgroups.
//
// All three are asynchronous. A copy's bytes are counted by an mbarrier, whose phases a reader waits
// for by parity; a product's accumulators may be touched only after wait_products.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// ---- barriers in shared memory

__device__ __forceinline__ void init_barrier(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes fresh barriers known to the copy engine; before the block's first __syncthreads.
__device__ __forceinline__ void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrive, and let the phase end only when copies have brought so many bytes.
__device__ __forceinline__ void arrive_expecting(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Until the phase of that parity has ended. (A fresh barrier counts as past its phase 1.)
__device__ __forceinline__ void wait_phase(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "retry:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni end;\n"
        "bra.uni retry;\n"
        "end:\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Barriers among some of a block's warps, by number (0 is __syncthreads).
__device__ __forceinline__ void sync_threads(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

__device__ __forceinline__ void arrive_threads(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// ---- bulk tensor copies

// What the launcher encodes (`ixc_cuda.tensor_map`); a kernel takes it as const __grid_constant__.
struct alignas(64) TensorMap {
    unsigned long long words[16];
};

__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// One box to shared memory. Coordinates are elements, fastest dimension first.
__device__ __forceinline__ void copy_box(unsigned shared, const TensorMap& map, unsigned barrier,
                                         int c0, int c1, int c2) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared),
        "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
}

__device__ __forceinline__ void copy_box(unsigned shared, const TensorMap& map, unsigned barrier,
                                         int c0, int c1, int c2, int c3) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared),
        "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
        : "memory");
}

// What this thread wrote to shared memory becomes visible to copies and products issued later.
__device__ __forceinline__ void publish_shared_writes() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- registers

// A block starts with the same number for every thread; copying needs few, products many.
template <int Registers>
__device__ __forceinline__ void give_registers_back() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

template <int Registers>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// ---- products of a warpgroup

// Describes a matrix in shared memory, whose rows of 128 bytes are swizzled as the copy engine's
// 128-byte mode does it: 8 rows make a pattern of 1024 bytes, aligned to as many, and such patterns
// follow each other. `block_bytes`: where the matrix is wider than 64 elements and the width is not
// what is summed over, from one 64 wide block to the next.
__device__ __forceinline__ unsigned long long describe_swizzled(unsigned shared, int block_bytes) {
    constexpr unsigned long long kSwizzle128 = 1ull << 62;
    constexpr unsigned long long kPattern = static_cast<unsigned long long>(1024 >> 4) << 32;
    const unsigned low = (shared & 0x3ffff) >> 4 | block_bytes >> 4 << 16;
    return kSwizzle128 | kPattern | low;
}

// A descriptor of what lies so many bytes further on.
__device__ __forceinline__ unsigned long long advance(unsigned long long descriptor, int bytes) {
    return descriptor + (bytes >> 4);
}

// Registers written by ordinary instructions may be read by the products that follow.
__device__ __forceinline__ void open_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most `Pending` of this warpgroup's committed groups are still under way.
template <int Pending>
__device__ __forceinline__ void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Keeps the compiler from moving reads of accumulators in front of the wait for them.
template <int N>
__device__ __forceinline__ void hold(float (&registers)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// C (64 x N, float) = A B, or += where `accumulate`. Warp w of the four holds rows 16 w to 16 w + 15
// of C, with g = lane / 4 and t = lane % 4:
//
//     c[4 j + 0] (g, 8 j + 2 t)    c[4 j + 1] the next column    c[4 j + 2], c[4 j + 3] row g + 8
//
// and of A (64 x 16), in registers too, what m16n8k16 of mma.cuh has. B lies in shared memory:
//
//   multiply_rows      (N x 16): the sum goes along its rows
//   multiply_columns   (16 x N): the sum goes down its columns

#define IXC_LIST_8(l, b) l(b), l(b + 1), l(b + 2), l(b + 3), l(b + 4), l(b + 5), l(b + 6), l(b + 7)
#define IXC_LIST_32(l, b) \
    IXC_LIST_8(l, b), IXC_LIST_8(l, b + 8), IXC_LIST_8(l, b + 16), IXC_LIST_8(l, b + 24)
#define IXC_LIST_64(l, b) IXC_LIST_32(l, b), IXC_LIST_32(l, b + 32)
#define IXC_ACCUMULATOR(i) "+f"(c[i])

#define IXC_NAMES_32                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define IXC_NAMES_64                                                                   \
    IXC_NAMES_32                                                                       \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// The operands' numbers follow the accumulators': N / 2 of them.
#define IXC_PRODUCT(n, type, count, a, b, flag, transposed)                              \
    "{\n.reg .pred p;\nsetp.ne.b32 p, " flag ", 0;\n"                                    \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" IXC_NAMES_##count \
    "}, " a ", " b ", p, 1, 1, " transposed ";\n}\n"

template <typename T>
struct Products;

#define IXC_PRODUCTS(element, type)                                                                \
    template <>                                                                                    \
    struct Products<element> {                                                                     \
        static __device__ __forceinline__ void multiply_rows(                                      \
            float (&c)[64], const unsigned (&a)[4], unsigned long long b, int accumulate) {        \
            asm volatile(IXC_PRODUCT("128", type, 64, "{%64, %65, %66, %67}", "%68", "%69", "0")   \
                         : IXC_LIST_64(IXC_ACCUMULATOR, 0)                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));   \
        }                                                                                          \
        static __device__ __forceinline__ void multiply_columns(                                   \
            float (&c)[64], const unsigned (&a)[4], unsigned long long b, int accumulate) {        \
            asm volatile(IXC_PRODUCT("128", type, 64, "{%64, %65, %66, %67}", "%68", "%69", "1")   \
                         : IXC_LIST_64(IXC_ACCUMULATOR, 0)                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));   \
        }                                                                                          \
        static __device__ __forceinline__ void multiply_columns(                                   \
            float (&c)[32], const unsigned (&a)[4], unsigned long long b, int accumulate) {        \
            asm volatile(IXC_PRODUCT("64", type, 32, "{%32, %33, %34, %35}", "%36", "%37", "1")    \
                         : IXC_LIST_32(IXC_ACCUMULATOR, 0)                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));   \
        }                                                                                          \
    };

IXC_PRODUCTS(__nv_bfloat16, "bf16")
IXC_PRODUCTS(__half, "f16")

#undef IXC_PRODUCTS
#undef IXC_PRODUCT
#undef IXC_NAMES_64
#undef IXC_NAMES_32
#undef IXC_ACCUMULATOR
#undef IXC_LIST_64
#undef IXC_LIST_32
#undef IXC_LIST_8
