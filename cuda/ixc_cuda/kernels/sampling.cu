// The next token of each row of logits, by the rules of ixc_runtime/sampling/sampler.py.
//
//     logits       (rows, vocab), rows `stride` apart: float32, float16 or bfloat16; not changed
//     row_entries  (rows)         slot and output position; slot < 0: an absent row, token 0
//     settings     (slots)        64 bytes each
//     edits        (any number)   token and bias, each slot's together and ordered by token
//     counts       (slots, vocab) int32: how often each token was generated, kept up to date here
//     seen         (slots, vocab / 32) a bit for each token with a count
//     out_ids      (rows)         int64
//     out_finite   (rows)         1, or 0 where the row has a NaN, +inf or nothing but -inf
//
// Grid: kBlocks blocks a row, a cluster of neighbours. Each warp walks a run of tokens.
//
//     1. survey    the best token of each thread, of each warp and so of the row; greedy ends here
//     2. collect   the tokens above a floor that enough threads' best ones reach (all of top_k, and
//                  usually the nucleus), and the row's mass where top_k does not bound it
//     3. settle    among these few: each counts the better ones, and knows whether it is kept
//     or           no rule at all, or too many candidates: thresholds by their digits, draw by scan
//
// All sums are of integers, so that neither the number of blocks nor the order of anything shows in
// the result. Bound by reading the row: once for greedy, twice otherwise, the second time from L2;
// few rows by the chain of barriers (see design/sampling.md).

#include "sampling_stages.cuh"

constexpr int kNoToken = 0x7fffffff;

__device__ __forceinline__ float max_or_nan(float a, float b) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
}

// An order of floats as integers, for the warp's reductions.
__device__ __forceinline__ unsigned ordered(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits ^ (bits >> 31 ? 0xffffffff : 0x80000000);
}

__device__ __forceinline__ float unordered(unsigned key) {
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000 : 0xffffffff));
}

// Marks the tokens with a penalty, a bias or a ban.
__device__ __forceinline__ void mark_edited(unsigned* marks, int words, const unsigned* seen,
                                            const Edits& edits) {
    for (int word = threadIdx.x; word < words; word += kThreads) {
        marks[word] = seen == nullptr ? 0 : seen[word];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < edits.num_biases; i += kThreads) {
        const int id = edits.biases[i].id;
        atomicOr(&marks[id / 32], 1u << (id % 32));
    }
    __syncthreads();
}

// The best token of this thread, by group and by warp, to all of the row's blocks.
template <int kBlocks, typename AnyRow>
__device__ __forceinline__ void survey(Shared& shared, const AnyRow& row, WarpRange range, int rank,
                                       bool greedy) {
    float best = -INFINITY_F, largest = -INFINITY_F;
    int best_vector = 0;
    walk(row, range, [&](int vector, float (&x)[kVector]) {
        float of_vector = x[0];
#pragma unroll
        for (int i = 1; i < kVector; ++i) of_vector = max_or_nan(of_vector, x[i]);
        largest = max_or_nan(largest, of_vector);
        if (row.edit(vector, x)) {
            of_vector = x[0];
#pragma unroll
            for (int i = 1; i < kVector; ++i) of_vector = fmaxf(of_vector, x[i]);
        }
        if (of_vector > best) {
            best = of_vector;
            best_vector = vector;
        }
    });

    const int lane = threadIdx.x % 32, row_warp = rank * kWarps + threadIdx.x / 32;
    const unsigned kind = largest <= 3.4028235e38f ? (largest > -INFINITY_F ? kFinite : kEmpty)
                                                   : kBroken;
    const unsigned warp_kind = __reduce_max_sync(kWholeWarp, kind);
    const float warp_best = unordered(__reduce_max_sync(kWholeWarp, ordered(best)));
    int id = kNoToken;
    if (greedy && best == warp_best && best > -INFINITY_F) {
        float x[kVector];
        row.unpack(row.packed(best_vector), best_vector, x);
        row.edit(best_vector, x);
#pragma unroll
        for (int i = kVector - 1; i >= 0; --i) {
            if (x[i] == best) id = best_vector * kVector + i;
        }
    }
    const int warp_best_id = __reduce_min_sync(kWholeWarp, id);

    // A group is as many neighbouring threads as the row has blocks; each writes to one of them.
    float of_group = best;
#pragma unroll
    for (int step = 1; step < kBlocks; step *= 2) {
        of_group = fmaxf(of_group, __shfl_xor_sync(kWholeWarp, of_group, step));
    }
    const int group = (rank * kThreads + threadIdx.x) / kBlocks;
    sync_cluster<kBlocks>();  // the row's blocks have all started
    in_block<kBlocks>(shared.group_best, threadIdx.x % kBlocks)[group] = of_group;
    if (lane < kBlocks) {
        in_block<kBlocks>(shared.warp_best, lane)[row_warp] = warp_best;
        in_block<kBlocks>(shared.warp_best_id, lane)[row_warp] = warp_best_id;
        in_block<kBlocks>(shared.warp_kind, lane)[row_warp] = warp_kind;
    }
    sync_cluster<kBlocks>();
}

struct Best {
    float logit;
    int id;  // of greedy rows alone; the lowest of equals
    Kind kind;
};

// The row's best token from its warps' best: each warp finds it for itself.
template <int kBlocks>
__device__ __forceinline__ Best best_of_row(const Shared& shared) {
    unsigned best = 0, kind = kEmpty;
    for (int warp = threadIdx.x % 32; warp < kWarps * kBlocks; warp += 32) {
        best = max(best, ordered(shared.warp_best[warp]));
        kind = max(kind, shared.warp_kind[warp]);
    }
    const float logit = unordered(__reduce_max_sync(kWholeWarp, best));
    int id = kNoToken;
    for (int warp = threadIdx.x % 32; warp < kWarps * kBlocks; warp += 32) {
        if (shared.warp_best[warp] == logit) id = min(id, shared.warp_best_id[warp]);
    }
    id = __reduce_min_sync(kWholeWarp, id);
    return {logit, id == kNoToken ? 0 : id,
            static_cast<Kind>(__reduce_max_sync(kWholeWarp, kind))};
}

template <typename T, int kBlocks>
__global__ void CLUSTER_OF(kBlocks)
    __launch_bounds__(kThreads, kBlocks == 1 && sizeof(T) == 2 ? 2 : 1)
    sample_rows(const T* logits, long long stride, int vocab, const RowEntry* row_entries,
                const SlotSettings* all_settings, const Edit* edits, int* counts, unsigned* seen,
                long long* out_ids, unsigned char* out_finite) {
    static_assert(kBlocks <= kMostBlocks && 32 % kBlocks == 0, "a group lies in one warp");
    extern __shared__ __align__(16) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    unsigned* marks = reinterpret_cast<unsigned*>(memory + sizeof(Shared));

    allow_next_kernel();
    wait_for_previous_kernel();
    const int row_index = blockIdx.x / kBlocks, rank = blockIdx.x % kBlocks;
    const RowEntry entry = row_entries[row_index];
    const bool reports = rank == 0 && threadIdx.x == 0;
    const auto report = [&](long long id, bool finite) {
        out_ids[row_index] = id;
        out_finite[row_index] = finite;
    };
    if (entry.slot < 0) {
        if (reports) report(0, true);
        return;
    }

    const SlotSettings& settings = shared.settings;
    if (threadIdx.x == 0) {
        shared.settings = all_settings[entry.slot];
        if (settings.top_k >= vocab) shared.settings.top_k = 0;  // all of them: no rule
        shared.edits = {settings.penalised ? counts + entry.slot * static_cast<long long>(vocab)
                                           : nullptr,
                        settings.repetition, settings.presence, settings.frequency,
                        edits + settings.edits_begin, settings.num_edits};
        shared.num_candidates = 0;
        shared.position = entry.position;
    }
    __syncthreads();
    const int words = (vocab + 31) / 32;
    seen += static_cast<long long>(entry.slot) * words;
    const bool has_edits = settings.penalised || settings.num_edits > 0;
    if (has_edits) mark_edited(marks, words, settings.penalised ? seen : nullptr, shared.edits);

    // Where rows are many, other blocks' loads fill the wait too.
    constexpr int kAhead = (kBlocks == 1 ? 4 : 8) / sizeof(T);
    const Row<T, kAhead> row{logits + row_index * stride, vocab,
                             reinterpret_cast<const unsigned char*>(marks), has_edits,
                             shared.edits};
    const auto chosen = [&](int id) {
        report(id, true);
        if (settings.penalised) {
            counts[static_cast<long long>(entry.slot) * vocab + id] += 1;
            seen[id / 32] |= 1u << (id % 32);
        }
    };
    const auto draw = [&](u64 total) {
        return drawn_mass(settings.seed, shared.position, settings.sample, total);
    };

    // 1. survey
    const bool greedy = settings.temperature <= 0;
    const int row_warp = rank * kWarps + threadIdx.x / 32;
    const WarpRange range = WarpRange::of(row.num_vectors(), row_warp, kWarps * kBlocks);
    survey<kBlocks>(shared, row, range, rank, greedy);
    const Best best = best_of_row<kBlocks>(shared);
    // Penalties and bans may leave nothing that could be drawn.
    if (best.kind != kFinite || (!greedy && fabsf(best.logit) == INFINITY_F)) {
        if (reports) report(0, false);
        return;
    }
    if (greedy) {
        if (reports) chosen(best.id);
        return;
    }

    // 2. and 3. collect and settle
    const Scale scale(best.logit, settings.temperature);
    constexpr int kNucleusGuess = 192, kMostWanted = 256;  // of kGroups, so that few overflow
    const int wanted = settings.top_k > 0 ? settings.top_k : kNucleusGuess;
    const bool all_kept = settings.top_k == 0 && settings.top_p >= 1 && settings.min_p <= 0;
    if (!all_kept && wanted <= kMostWanted) {
        const float floor = candidates_floor(shared, wanted, scale);
        collect<kBlocks>(shared, row, range, row_warp, scale, floor, settings.top_k == 0);
        sync_cluster<kBlocks>();
        if (rank == 0) {
            u64 row_mass = 0;
            if (settings.top_k == 0) {
                for (int warp = threadIdx.x % 32; warp < kWarps * kBlocks; warp += 32) {
                    row_mass += shared.warp_mass[warp];
                }
                row_mass = warp_sum(row_mass);
            }
            const bool settled = settle(shared, row_mass, scale(floor), draw, chosen);
            if (threadIdx.x < kBlocks) *in_block<kBlocks>(&shared.settled, threadIdx.x) = settled;
        }
        sync_cluster<kBlocks>();
        if (shared.settled) return;
    }

    // or the thresholds by their digits, and a draw from the whole row
    unsigned limit = ~0u;
#pragma unroll 1
    for (int threshold = 0; threshold < 2; ++threshold) {
        const bool by_mass = threshold == 1;
        if (by_mass ? settings.top_p >= 1 : settings.top_k == 0) continue;
        const auto reached = [&](u64 total) {
            return by_mass ? nucleus_mass(settings.top_p, total) : u64(settings.top_k);
        };
        limit = select_key<kBlocks>(shared, row, range, rank, scale, limit, by_mass, reached);
    }
    draw_from_row<kBlocks>(shared, row, range, row_warp, scale, limit, settings.min_p, draw,
                           chosen);
}
