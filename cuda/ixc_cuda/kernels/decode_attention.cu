// Attention of decoded tokens over paged keys and values, several query rows a sequence.
//
//     out[row, head] = sum over s < visible(row) of softmax(q . k_s / sqrt(D)) v_s
//     visible(row i of the sequence's n rows) = context length - (n - 1 - i)
//
// queries, out   (sequences * n, kv_heads, group, D)    the heads of a group share a KV head
// keys, values   (pages, page_size, kv_heads, D)        one layer's pages, in the format `Pages`
// page_tables    (sequences, table_stride) int32        a sequence's pages in order
// lengths        (sequences) int32                      context lengths; 0 is absent, not written
// shares, spans  the division of the work (decode_plan.cuh)
// sums           (2 * workers, kv_heads, n * group, D) float32, and
// stats          (2 * workers, kv_heads, n * group) of {maximum, sum of weights}: partial results
// arrivals       (sequences, kv_heads, passes) int32    zero before and after
//
// grid = (kv_heads, passes, workers): a worker's heads next to each other, since together they read
// whole rows of pages, and its passes, each for 8 * QueryTiles of the n * group rows, since one
// finds in the L2 what another has read. A block of four warps walks its worker's tiles for one KV
// head. Its warps know nothing of each other until a sequence ends: each takes sixteen slots of
// every tile, from memory into registers, and keeps its own softmax. Scores are K Q^T and outputs
// V^T P^T, so that the slots fill the long side of the tensor cores' products and the few query
// rows the side of eight.
//
// Bound by reading the pages: 4 * D bytes a slot and KV head at 16 * D operations of the tensor
// cores per query tile. A warp has 16 slots of keys and of values under way at any time, 8 KiB for
// D = 128; twelve such warps on a multiprocessor cover three times the latency of memory.

#include "decode_plan.cuh"
#include "decode_softmax.cuh"
#include "mma.cuh"
#include "plain_pages.cuh"
#include "vectors.cuh"

namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpSlots = 16;
constexpr int kTileRows = 8;  // query rows of one product

static_assert(kWarps * kWarpSlots == kTileSlots);

// What a worker has of one sequence: tiles [first_tile, end_tile).
struct Stretch {
    int sequence;
    int first_tile;
    int end_tile;
    int length;  // slots of the sequence
};

template <typename T, int D, int QueryTiles>
struct SharedMemory {
    static constexpr int kRows = QueryTiles * kTileRows;
    // Rows are padded so that the lanes of a quarter warp meet different banks.
    alignas(16) T queries[kRows][D + 32];
    alignas(16) float sums[kWarps][kTileRows][D + 4];
    float maxima[kWarps][kRows];
    float weights[kWarps][kRows];
    bool is_last;
};

// Four columns of a query row's sum over some slots: weights are relative to 2^maximum.
struct Part {
    float maximum;
    float weight;
    float4 sum;
};

// a x + b y
__device__ __forceinline__ float4 scaled_sum(float4 x, float a, float4 y, float b) {
    return make_float4(a * x.x + b * y.x, a * x.y + b * y.y, a * x.z + b * y.z, a * x.w + b * y.w);
}

// The parts of a row in their order; `source(i)` is the row of partial results that part i is in.
template <int D, int AtOnce, typename Source>
__device__ __forceinline__ Part merge_parts(const float* sums, const float2* stats,
                                            const Source& source, int parts) {
    Part all{kLowest, 0.0f, {}};
    for (int first = 0; first < parts; first += AtOnce) {
        float2 stat[AtOnce];
        float4 sum[AtOnce];
#pragma unroll
        for (int k = 0; k < AtOnce; ++k) {
            const int row = source(min(first + k, parts - 1));
            stat[k] = __ldcg(stats + row);
            sum[k] = __ldcg(reinterpret_cast<const float4*>(sums + row * D));
        }
#pragma unroll
        for (int k = 0; k < AtOnce; ++k) {
            const float raised = fmaxf(all.maximum, stat[k].x);
            const float shrink = exp2_fast(all.maximum - raised);
            const float factor = first + k < parts ? exp2_fast(stat[k].x - raised) : 0.0f;
            all.maximum = raised;
            all.weight = all.weight * shrink + stat[k].y * factor;
            all.sum = scaled_sum(all.sum, shrink, sum[k], factor);
        }
    }
    return all;
}

// The row's result; zeros for a row that sees nothing.
template <typename T>
__device__ __forceinline__ void store4(T* target, const Part& part) {
    const float factor = part.weight > 0.0f ? 1.0f / part.weight : 0.0f;
    *reinterpret_cast<uint2*>(target) =
        make_uint2(pack<T>(part.sum.x * factor, part.sum.y * factor),
                   pack<T>(part.sum.z * factor, part.sum.w * factor));
}

// Counts one up. What the block wrote before is seen by the blocks of those who count later.
__device__ __forceinline__ int arrive(int* counter) {
    int before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    return before;
}

}  // namespace

template <typename Pages, int D, int QueryTiles>
__global__ void __launch_bounds__(kThreads, QueryTiles == 1 ? 3 : 2) decode_attention(
    typename Pages::Element* out, const typename Pages::Element* queries,
    const typename Pages::Element* keys, const typename Pages::Element* values,
    const int* page_tables, const int* lengths, const Share* shares, const Span* spans, float* sums,
    float2* stats, int* arrivals, int table_stride, int page_shift, int group, int query_rows,
    float scale_log2) {
    using T = typename Pages::Element;
    constexpr int kRows = QueryTiles * kTileRows;
    __shared__ SharedMemory<T, D, QueryTiles> shared;

    allow_next_kernel();
    wait_for_previous_kernel();
    const int head = blockIdx.x, kv_heads = gridDim.x, worker = blockIdx.z;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Share share = shares[worker];
    const int stride = kv_heads * D;  // between slots

    // This pass's rows: row r of a sequence is head r % group of its query row r / group.
    const int all_rows = query_rows * group, first_row = blockIdx.y * kRows;
    const int rows = min(kRows, all_rows - first_row);
    const auto row_offset = [&](int sequence, int row) {
        const int r = first_row + row;
        const long long query_row = static_cast<long long>(sequence) * query_rows + r / group;
        return ((query_row * kv_heads + head) * group + r % group) * D;
    };
    const auto partial_row = [&](int slot, int row) {
        return (slot * kv_heads + head) * all_rows + first_row + row;
    };

    // What of a stretch is this warp's: sixteen slots of every tile.
    const auto first_slot = [&](const Stretch& s) {
        return s.first_tile * kTileSlots + warp * kWarpSlots;
    };
    const auto end_slot = [&](const Stretch& s) { return min(s.end_tile * kTileSlots, s.length); };
    const auto page_of = [&](const Stretch& s, int slot) {
        return page_tables[s.sequence * table_stride + (min(slot, s.length - 1) >> page_shift)];
    };
    const auto offset_of = [&](int page, int slot) {
        const int in_page = slot & ((1 << page_shift) - 1);
        return ((static_cast<long long>(page) << page_shift) + in_page) * stride + head * D;
    };
    typename Pages::Keys key_words;
    typename Pages::Values value_words;
    // A stretch's first loads: sixteen slots, and the queries; rows that do not exist become zeros.
    const auto set_out = [&](const Stretch& s, int page) {
        const int slot = first_slot(s);
        if (slot < end_slot(s)) {
            const long long offset = offset_of(page, slot);
            Pages::load_keys(key_words, keys + offset, stride, s.length - 1 - slot, lane);
            Pages::load_values(value_words, values + offset, stride, s.length - 1 - slot, lane);
        }
#pragma unroll 1
        for (int i = threadIdx.x; i < kRows * (D / 8); i += kThreads) {
            const int row = i / (D / 8), column = i % (D / 8) * 8;
            copy_async_16(shared_address(&shared.queries[row][column]),
                          queries + row_offset(s.sequence, row) + column, row < rows);
        }
        copy_async_commit();
    };

    // Absent sequences are passed over; while tiles are left there is one that is present.
    const auto stretch_behind = [&](const Stretch& s, int left) {
        int sequence = s.sequence, length;
        do length = lengths[++sequence];
        while (length <= 0);
        return Stretch{sequence, 0, min(tiles_of(length), left), length};
    };

    if (share.tiles == 0) return;
    Stretch now{share.sequence, share.first_tile,
                min(tiles_of(share.length), share.first_tile + share.tiles), share.length};
    int left = share.tiles - (now.end_tile - now.first_tile);
    int page = page_of(now, first_slot(now));
    set_out(now, page);

    while (true) {
        // Where the next stretch lies is looked up while this one's data are on their way.
        Stretch next{};
        int first_page_of_next = 0;
        if (left > 0) {
            next = stretch_behind(now, left);
            first_page_of_next = page_of(next, first_slot(next));
        }
        const Span span = spans[now.sequence];
        copy_async_wait<0>();
        __syncthreads();  // the queries are here

        Softmax<D, QueryTiles> softmax;
        softmax.reset();
        if (int slot = first_slot(now); slot < end_slot(now)) {
            int next_page = page_of(now, slot + kTileSlots);
            while (true) {
                const int next_slot = slot + kTileSlots;
                const bool has_next = next_slot < end_slot(now);

                // Scores: 16 slots x all query rows.
                float scores[QueryTiles][4] = {};
#pragma unroll
                for (int step = 0; step < D / 16; step += 2) {
                    unsigned even[4], odd[4];
                    Pages::key_fragment(even, key_words, step);
                    Pages::key_fragment(odd, key_words, step + 1);
#pragma unroll
                    for (int n = 0; n < QueryTiles; ++n) {
                        const uint4 b = *reinterpret_cast<const uint4*>(
                            &shared.queries[n * kTileRows + g][Pages::key_column(step, t)]);
                        mma_16816<T>(scores[n], even, b.x, b.y);
                        mma_16816<T>(scores[n], odd, b.z, b.w);
                    }
                }

                // The next keys set out as soon as these are done with.
                if (has_next) {
                    page = next_page;
                    next_page = page_of(now, next_slot + kTileSlots);
                    Pages::load_keys(key_words, keys + offset_of(page, next_slot), stride,
                                     now.length - 1 - next_slot, lane);
                }

                unsigned weights[QueryTiles][2];
#pragma unroll
                for (int n = 0; n < QueryTiles; ++n) {
                    // Only the sequence's last slots are hidden from anyone.
                    if (slot + kWarpSlots > now.length - (query_rows - 1)) {
                        hide_slots(scores[n], slot + g, now.length - (query_rows - 1),
                                   first_row + n * kTileRows + 2 * t, group);
                    }
                    softmax.weigh(n, scores[n], scale_log2);
                    weights[n][0] = transpose_8x8(pack<T>(scores[n][0], scores[n][1]));
                    weights[n][1] = transpose_8x8(pack<T>(scores[n][2], scores[n][3]));
                }

                // acc += V^T P^T
#pragma unroll
                for (int m = 0; m < D / 16; ++m) {
                    unsigned a[4];
                    Pages::value_fragment(a, value_words, m);
#pragma unroll
                    for (int n = 0; n < QueryTiles; ++n) {
                        mma_16816<T>(softmax.acc[n][m], a, weights[n][0], weights[n][1]);
                    }
                }
                if (!has_next) break;
                slot = next_slot;
                Pages::load_values(value_words, values + offset_of(page, slot), stride,
                                   now.length - 1 - slot, lane);
            }
        }

        // The warps' results come together, one query tile after the other.
#pragma unroll
        for (int n = 0; n < QueryTiles; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float weight = sum_over_slots(softmax.sum[n][e]);
                if (g == 0) {
                    shared.maxima[warp][n * kTileRows + 2 * t + e] = softmax.maximum[n][e];
                    shared.weights[warp][n * kTileRows + 2 * t + e] = weight;
                }
            }
        }
        __syncthreads();  // and all are done with the queries
        if (left > 0) set_out(next, first_page_of_next);
        const auto maximum_of = [&](int row) {
            float maximum = shared.maxima[0][row];
            for (int w = 1; w < kWarps; ++w) maximum = fmaxf(maximum, shared.maxima[w][row]);
            return maximum;
        };
        // A worker's partial results: the first of its sequences began elsewhere, or the last goes
        // on elsewhere; a sequence that does both is the only one it has.
        const bool is_whole = span.workers == 1;
        const int partial = 2 * worker + (now.first_tile == 0);
#pragma unroll
        for (int n = 0; n < QueryTiles; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int row = 2 * t + e;
                const float factor =
                    exp2_fast(softmax.maximum[n][e] - maximum_of(n * kTileRows + row));
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float* target = &shared.sums[warp][row][Pages::value_column(half, g)];
#pragma unroll
                    for (int m = 0; m < D / 16; ++m) {
                        target[m] = softmax.acc[n][m][2 * half + e] * factor;
                    }
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < kTileRows * (D / 4); i += kThreads) {
                const int tile_row = i / (D / 4), column = i % (D / 4) * 4;
                const int row = n * kTileRows + tile_row;
                if (row >= rows) continue;
                Part part{maximum_of(row), 0.0f, {}};
#pragma unroll
                for (int w = 0; w < kWarps; ++w) {
                    const float factor = exp2_fast(shared.maxima[w][row] - part.maximum);
                    part.weight += shared.weights[w][row] * factor;
                    const auto* sum =
                        reinterpret_cast<const float4*>(&shared.sums[w][tile_row][column]);
                    part.sum = scaled_sum(part.sum, 1.0f, *sum, 1.0f);
                }
                if (is_whole) {
                    store4<T>(out + row_offset(now.sequence, row) + column, part);
                } else {
                    const int target = partial_row(partial, row);
                    *reinterpret_cast<float4*>(sums + target * D + column) = part.sum;
                    if (column == 0) stats[target] = make_float2(part.maximum, part.weight);
                }
            }
            if (n + 1 < QueryTiles) __syncthreads();  // `sums` is free again
        }

        // Whoever comes last to a shared sequence puts the parts together, in order: the result is
        // the same whoever that is.
        if (!is_whole) {
            int* arrived = arrivals + (now.sequence * kv_heads + head) * gridDim.y + blockIdx.y;
            __syncthreads();
            if (threadIdx.x == 0) {
                shared.is_last = arrive(arrived) == span.workers - 1;
                if (shared.is_last) *arrived = 0;
            }
            __syncthreads();
            for (int i = threadIdx.x; shared.is_last && i < rows * (D / 4); i += kThreads) {
                const int row = i / (D / 4), column = i % (D / 4) * 4;
                const auto source = [&](int part) {
                    return partial_row(2 * (span.first_worker + part) + (part == 0), row);
                };
                const Part part = merge_parts<D, QueryTiles == 1 ? 8 : 4>(
                    sums + column, stats, source, span.workers);
                store4<T>(out + row_offset(now.sequence, row) + column, part);
            }
        }

        if (left == 0) break;
        left -= next.end_tile;
        now = next;
        page = first_page_of_next;
    }
}
