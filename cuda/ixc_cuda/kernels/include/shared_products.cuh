// Products of two matrices that the copy engine has brought to shared memory (sm_90a).
//
// Beside hopper.cuh, whose products take the first operand from registers: here both come from
// shared memory, in rows of 64 elements that are summed over, swizzled over 128 bytes.

#pragma once

#include "hopper.cuh"

// Elements of a row in shared memory, the bytes of one, and the rows that the swizzle repeats after.
constexpr int ROW_ELEMENTS = 64;
constexpr int ROW_BYTES = ROW_ELEMENTS * 2;
constexpr int PATTERN_ROWS = 8;

// ---- copies

// Read once: the first that the L2 may drop.
__device__ __forceinline__ unsigned long long read_once_policy() {
    unsigned long long policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// Read by every multiprocessor: the last.
__device__ __forceinline__ unsigned long long read_often_policy() {
    unsigned long long policy;
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// The box that begins at that column and row of a matrix; what lies outside of it becomes zeros.
__device__ __forceinline__ void copy_box(unsigned shared, const TensorMap& map, unsigned barrier,
                                         int column, int row, unsigned long long policy) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared),
        "l"(&map), "r"(barrier), "r"(column), "r"(row), "l"(policy)
        : "memory");
}

// ---- products

// C (64 x WIDTH, float) = A B^T over 16 of their elements, or += where `accumulate`: A's 64 rows and
// B's WIDTH rows are what the descriptors name. Warp w of the four holds rows 16 w to 16 w + 15 of
// C, and with g = lane / 4 and t = lane % 4
//
//     c[4 j + 0] (g, 8 j + 2 t)    c[4 j + 1] the next column    c[4 j + 2], c[4 j + 3] row g + 8
template <typename T, int WIDTH> struct SharedProduct;

#define IXC_C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define IXC_C16(i) IXC_C4(i), IXC_C4(i + 4), IXC_C4(i + 8), IXC_C4(i + 12)
#define IXC_C28 IXC_C16(0), IXC_C4(16), IXC_C4(20), IXC_C4(24)
#define IXC_C32 IXC_C16(0), IXC_C16(16)
#define IXC_C48 IXC_C32, IXC_C16(32)
#define IXC_C56 IXC_C48, IXC_C4(48), IXC_C4(52)
#define IXC_C60 IXC_C56, IXC_C4(56)
#define IXC_C64 IXC_C48, IXC_C16(48)

#define IXC_NAMES_28                                                                           \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
    "%20, %21, %22, %23, %24, %25, %26, %27"
#define IXC_NAMES_32 IXC_NAMES_28 ", %28, %29, %30, %31"
#define IXC_NAMES_48 \
    IXC_NAMES_32     \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define IXC_NAMES_56 IXC_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define IXC_NAMES_60 IXC_NAMES_56 ", %56, %57, %58, %59"
#define IXC_NAMES_64 IXC_NAMES_60 ", %60, %61, %62, %63"

// The other operands' numbers follow the accumulators': WIDTH / 2 of them.
#define IXC_SHARED_PRODUCT(element, type, width, count, a, b, flag)                             \
    template <> struct SharedProduct<element, width> {                                          \
        static __device__ __forceinline__ void multiply(float (&c)[count],                      \
                                                        unsigned long long rows,                \
                                                        unsigned long long columns,             \
                                                        int accumulate) {                       \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " flag ", 0;\n"                      \
                         "wgmma.mma_async.sync.aligned.m64n" #width "k16.f32." type "." type    \
                         " {" IXC_NAMES_##count "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"          \
                         : IXC_C##count                                                         \
                         : "l"(rows), "l"(columns), "r"(accumulate));                           \
        }                                                                                       \
    };

#define IXC_SHARED_PRODUCTS(element, type)                           \
    IXC_SHARED_PRODUCT(element, type, 56, 28, "%28", "%29", "%30")   \
    IXC_SHARED_PRODUCT(element, type, 64, 32, "%32", "%33", "%34")   \
    IXC_SHARED_PRODUCT(element, type, 96, 48, "%48", "%49", "%50")   \
    IXC_SHARED_PRODUCT(element, type, 112, 56, "%56", "%57", "%58")  \
    IXC_SHARED_PRODUCT(element, type, 120, 60, "%60", "%61", "%62")  \
    IXC_SHARED_PRODUCT(element, type, 128, 64, "%64", "%65", "%66")

IXC_SHARED_PRODUCTS(__nv_bfloat16, "bf16")
IXC_SHARED_PRODUCTS(__half, "f16")

#undef IXC_SHARED_PRODUCTS
#undef IXC_SHARED_PRODUCT
#undef IXC_NAMES_64
#undef IXC_NAMES_60
#undef IXC_NAMES_56
#undef IXC_NAMES_48
#undef IXC_NAMES_32
#undef IXC_NAMES_28
#undef IXC_C64
#undef IXC_C60
#undef IXC_C56
#undef IXC_C48
#undef IXC_C32
#undef IXC_C28
#undef IXC_C16
#undef IXC_C4
