// One row of logits as the sampler sees it: eight tokens at a time, penalties and edits applied.
//
// The logits themselves are never changed. Which tokens are edited stands in a bitmap in shared
// memory, so that a vector without any costs one look at a byte.

#pragma once

#include "vectors.cuh"

constexpr unsigned kWholeWarp = 0xffffffff;
#define INFINITY_F __int_as_float(0x7f800000)
constexpr int kVector = 8;  // tokens; their edit marks are one byte

// What `sampling.py` packs, field by field.
struct RowEntry {
    int slot;  // of counts and settings; negative: the row is absent
    unsigned position;
};

struct SlotSettings {
    unsigned long long seed;
    double top_p;
    float temperature, min_p, repetition, presence, frequency;
    int top_k;
    unsigned sample;
    int edits_begin, num_edits;
    int penalised;  // whether counts are kept and looked at
    int unused[2];
};
static_assert(sizeof(SlotSettings) == 64, "as packed");

// Ordered by id, one for each token; a ban is minus infinity.
struct Edit {
    int id;
    float bias;
};

// Eight logits as they lie in memory.
template <typename T>
struct alignas(16) Packed {
    T values[kVector];
};

// x[which], without putting x into memory.
__device__ __forceinline__ float pick(const float (&x)[kVector], int which) {
    float picked = x[0];
#pragma unroll
    for (int i = 1; i < kVector; ++i) picked = i == which ? x[i] : picked;
    return picked;
}

// What is done to the logits of one row. In shared memory: few tokens ask for it.
struct Edits {
    const int* counts;  // of generated tokens; null: no penalties
    float repetition, presence, frequency;
    const Edit* biases;
    int num_biases;
};

// kAhead: loads that each thread has on their way.
template <typename T, int kAhead_>
struct Row {
    static constexpr int kAhead = kAhead_;
    using Eight = Packed<T>;

    const T* logits;  // at 16 bytes; whatever follows up to a whole vector can be read
    int vocab;
    const unsigned char* marks;  // a bit for each edited token
    bool is_marked;              // otherwise none is edited
    const Edits& edits;

    __device__ __forceinline__ int num_vectors() const { return (vocab + kVector - 1) / kVector; }

    __device__ __forceinline__ Eight packed(int vector) const {
        return reinterpret_cast<const Eight*>(logits)[vector];
    }

    // A vector's raw logits as floats; behind the last token, such as can never be chosen.
    __device__ __forceinline__ void unpack(const Eight& packed, int vector,
                                           float (&x)[kVector]) const {
#pragma unroll
        for (int i = 0; i < kVector; ++i) x[i] = to_float(packed.values[i]);
        if (vector * kVector + kVector > vocab) {
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                if (vector * kVector + i >= vocab) x[i] = -INFINITY_F;
            }
        }
    }

    // The logit of an edited token after penalties, bias and ban: each step rounded to float32.
    __device__ __forceinline__ float edited(int id, float x) const {
        const int count = count_of(id);
        if (count > 0) {
            x = x > 0 ? __fdiv_rn(x, edits.repetition) : __fmul_rn(x, edits.repetition);
            const float of_count = __fmul_rn(edits.frequency, static_cast<float>(count));
            x = __fsub_rn(__fsub_rn(x, edits.presence), of_count);
        }
        int low = 0, high = edits.num_biases;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (edits.biases[middle].id < id) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        const bool biased = low < edits.num_biases && edits.biases[low].id == id;
        return biased ? __fadd_rn(x, edits.biases[low].bias) : x;
    }

    // How often it was generated; more than once is of interest to the frequency penalty alone, and
    // without biases a mark says it all.
    __device__ __forceinline__ int count_of(int id) const {
        if (edits.counts == nullptr) return 0;
        return edits.frequency == 0 && edits.num_biases == 0 ? 1 : edits.counts[id];
    }

    // Puts the edited tokens' logits in place of the raw ones; says whether there were any.
    __device__ __forceinline__ bool edit(int vector, float (&x)[kVector]) const {
        if (!is_marked || marks[vector] == 0) return false;
        for (unsigned left = marks[vector]; left != 0; left &= left - 1) {
            const int which = __ffs(left) - 1;
            const float value = edited(vector * kVector + which, pick(x, which));
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                if (i == which) x[i] = value;
            }
        }
        return true;
    }
};

// The vectors of one warp: neighbours, so that warps in order see tokens in order.
struct WarpRange {
    int begin, end;

    __device__ __forceinline__ static WarpRange of(int num_vectors, int warp, int num_warps) {
        const int each = (num_vectors + num_warps - 1) / num_warps;
        const int begin = min(warp * each, num_vectors);
        return {begin, min(begin + each, num_vectors)};
    }
};

// Calls visit(vector, raw logits) for the warp's vectors, lane by lane, with loads on their way for
// the next few.
template <typename AnyRow, typename Visit>
__device__ __forceinline__ void walk(const AnyRow& row, WarpRange range, Visit visit) {
    constexpr int kAhead = AnyRow::kAhead;
    const int first = range.begin + threadIdx.x % 32;
    typename AnyRow::Eight ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
        if (first + 32 * i < range.end) ahead[i] = row.packed(first + 32 * i);
    }
#pragma unroll 1
    for (int vector = first; vector < range.end; vector += 32) {
        float x[kVector];
        row.unpack(ahead[0], vector, x);
#pragma unroll
        for (int i = 0; i + 1 < kAhead; ++i) ahead[i] = ahead[i + 1];
        if (vector + 32 * kAhead < range.end) ahead[kAhead - 1] = row.packed(vector + 32 * kAhead);
        visit(vector, x);
    }
}
