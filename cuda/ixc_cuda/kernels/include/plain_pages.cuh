// A KV format: keys and values in pages as 16-bit elements, straight from memory into the operands
// of mma.sync (mma.cuh), through no shared memory.
//
// Sixteen slots of one KV head are the rows of A: of keys for the scores (slots x head_dim), of
// values, transposed, for the sums (head_dim x slots). In both products the order of head_dim is
// ours to choose, as long as queries and outputs follow; it is chosen so that every load is of 16
// bytes. Lane (g, t) = (lane / 4, lane % 4) takes
//
//     keys     of slots g and g + 8                     the bytes [64 c + 16 t, + 16), c = 0, 1, ..
//     values   of slots 2t, 2t + 1, 2t + 8, 2t + 9      the bytes [128 c + 16 g, + 16)
//
// so that a load instruction of a warp reads whole sectors: 8 slots of 64 bytes, or 4 of 128.
//
// Another format (8 or 4 bits a number) is another such type: it loads fewer bytes, makes the same
// fragments of them, and says by `key_column` and `value_column` which elements they hold.

#pragma once

#include "mma.cuh"

template <typename T, int D>
struct PlainPages {
    static_assert(sizeof(T) == 2 && (D == 64 || D == 128));
    using Element = T;

    struct Keys {
        unsigned words[2][D / 32][4];
    };
    struct Values {
        unsigned words[4][D / 64][4];
    };

    // `first` is the row of the first of 16 slots, `stride` the elements between slots. Slots past
    // `last` repeat it: what pages hold there could be NaN, which no zero weight would hide.
    static __device__ __forceinline__ void load_keys(Keys& keys, const T* first, int stride,
                                                     int last, int lane) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const T* row = first + min(lane / 4 + 8 * half, last) * stride + lane % 4 * 8;
#pragma unroll
            for (int c = 0; c < D / 32; ++c) load_once(keys.words[half][c], row + c * 32);
        }
    }

    static __device__ __forceinline__ void load_values(Values& values, const T* first, int stride,
                                                       int last, int lane) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int slot = lane % 4 * 2 + i % 2 + i / 2 * 8;
            const T* row = first + min(slot, last) * stride + lane / 4 * 8;
#pragma unroll
            for (int c = 0; c < D / 64; ++c) load_once(values.words[i][c], row + c * 64);
        }
    }

    // Step `step` of the scores multiplies 16 elements of head_dim, of which lane (g, t) holds the
    // four from `key_column`; those of two steps, the first even, stand side by side.
    static __device__ __forceinline__ int key_column(int step, int t) {
        return (step / 2 * 4 + t) * 8 + step % 2 * 4;
    }

    static __device__ __forceinline__ void key_fragment(unsigned (&a)[4], const Keys& keys,
                                                        int step) {
        const int c = step / 2, word = step % 2 * 2;
        a[0] = keys.words[0][c][word];
        a[1] = keys.words[1][c][word];
        a[2] = keys.words[0][c][word + 1];
        a[3] = keys.words[1][c][word + 1];
    }

    // Tile `tile` of the sums holds two elements of head_dim for lane (g, t): number `tile` of the
    // D / 16 from `value_column` of each half.
    static __device__ __forceinline__ int value_column(int half, int g) {
        constexpr int kElements = D / 16;
        return half * kElements / 8 * 64 + g * 8 + half * kElements % 8;
    }

    static __device__ __forceinline__ void value_fragment(unsigned (&a)[4], const Values& values,
                                                          int tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int element = i % 2 * (D / 16) + tile;
            const int c = element / 8, word = element % 8 / 2;
            // The same element of two neighbouring slots, side by side.
            const auto& slots = values.words;
            a[i] = __byte_perm(slots[i / 2 * 2][c][word], slots[i / 2 * 2 + 1][c][word],
                               element % 2 ? 0x7632 : 0x5410);
        }
    }

  private:
    // 16 bytes that nobody will read again soon. Volatile, so that loads stay where they are
    // written: well before their use.
    static __device__ __forceinline__ void load_once(unsigned (&words)[4], const T* source) {
        asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "l"(source));
    }
};
