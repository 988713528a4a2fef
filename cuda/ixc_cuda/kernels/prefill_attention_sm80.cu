// Causal attention of prompt chunks over pages, for tensor cores fed by mma.sync (sm_80 and later).
//
//     out[row, head] = sum over slots s <= position(row) of softmax(q . k_s / sqrt(D)) v_s
//
// queries, out  (rows, kv_heads, Group, D)               the heads of a group share a KV head
// keys, values  (pages, page_size, kv_heads, D)          one layer's pages
// page_tables   (sequences, table_stride) int32          a sequence's pages in order
// tiles         (tiles) of {first row, positions, context, sequence}
//
// One block of 4 warps computes one tile for one KV head: up to 128 / Group consecutive positions of
// a sequence with all their heads, 128 rows of the product, so that short chunks fill it and keys
// and values are read once for the group. `context` is the number of slots that the tile's last
// position sees. grid.x = tiles * kv_heads, heaviest tiles first.
//
// Bound by the tensor cores: 4 * D operations per (query head, slot) pair against 64 KiB of L2
// reads per 128 x 128 pairs. Keys of a tile are read while the previous one's values are used, and
// values while the scores are computed, so one buffer of each suffices; a second resident block
// fills the gaps.

#include "mma.cuh"

namespace {

constexpr int kThreads = 128;
constexpr int kTileRows = 128;
constexpr int kWarpRows = 32;  // two MMA tiles: each fragment of keys or values is used twice
constexpr int kRowTiles = kWarpRows / 16;
constexpr float kHidden = -1.0f / 0.0f;  // the score of a slot that a row does not see

static_assert(kThreads / 32 * kWarpRows == kTileRows);

// Slots of a tile of keys or values. At 128 wide the accumulators fill half the registers, and the
// scores of 64 slots would spill.
template <int D>
constexpr int kSlotsOf = D == 64 ? 64 : 32;

// Byte offset of 16-byte chunk `chunk` of row `row` in a tile of shared memory. The exclusive or
// puts the same chunk of eight neighbouring rows into different banks, as ldmatrix reads them.
template <int D>
__device__ __forceinline__ unsigned chunk_offset(int row, int chunk) {
    return row * (D * 2) + ((chunk ^ (row & 7)) << 4);
}

// Where the slots of one sequence and one KV head lie. (Another KV format is another such type.)
template <typename T, int D>
struct PagedSlots {
    static constexpr int kTileSlots = kSlotsOf<D>;
    const T* base;
    const int* page_table;
    int page_shift;
    int slot_stride;

    __device__ __forceinline__ const T* at(int slot) const {
        const int page = __ldg(page_table + (slot >> page_shift));
        const int offset = slot & ((1 << page_shift) - 1);
        return base + ((static_cast<long long>(page) << page_shift) + offset) * slot_stride;
    }

    // Slots [first, first + kTileSlots) to shared memory; those from `context` on become zeros,
    // since zero times whatever a page holds there could be NaN.
    __device__ __forceinline__ void copy_tile(unsigned shared, int first, int context) const {
        constexpr int kChunks = D / 8;
        constexpr int kRowsAtOnce = kThreads / kChunks;
        const int chunk = threadIdx.x % kChunks;
#pragma unroll 2
        for (int row = threadIdx.x / kChunks; row < kTileSlots; row += kRowsAtOnce) {
            const int slot = first + row;
            const T* source = at(min(slot, context - 1)) + chunk * 8;
            copy_async_16(shared + chunk_offset<D>(row, chunk), source, slot < context);
        }
    }
};

}  // namespace

template <typename T, int D, int Group>
__global__ void __launch_bounds__(kThreads) prefill_attention_sm80(
    T* __restrict__ out, const T* __restrict__ queries, const T* __restrict__ keys,
    const T* __restrict__ values, const int4* __restrict__ tiles,
    const int* __restrict__ page_tables, int table_stride, int page_shift, int kv_heads,
    float scale_log2) {
    static_assert(sizeof(T) == 2 && (D == 64 || D == 128));
    constexpr int kTileSlots = kSlotsOf<D>;
    extern __shared__ __align__(256) unsigned char shared_memory[];
    const unsigned shared_queries = shared_address(shared_memory);
    const unsigned shared_keys = shared_queries + kTileRows * D * 2;
    const unsigned shared_values = shared_keys + kTileSlots * D * 2;

    const int head = blockIdx.x % kv_heads;
    const int4 tile = __ldg(tiles + blockIdx.x / kv_heads);
    const int first_row = tile.x, rows = tile.y * Group, context = tile.z;
    const int first_position = context - tile.y;
    const int lane = threadIdx.x % 32;
    const int warp_row = threadIdx.x / 32 * kWarpRows;

    const PagedSlots<T, D> key_slots{keys + head * D, page_tables + tile.w * table_stride,
                                     page_shift, kv_heads * D};
    const PagedSlots<T, D> value_slots{values + head * D, key_slots.page_table, page_shift,
                                       kv_heads * D};
    // Row r of the tile is head r % Group of position r / Group.
    const auto row_offset = [&](int row) {
        return (static_cast<long long>(first_row + row / Group) * kv_heads + head) * (Group * D) +
               row % Group * D;
    };

    // Queries; rows past the tile's end become zeros and are not written later.
    constexpr int kChunks = D / 8;
#pragma unroll 4
    for (int index = threadIdx.x; index < kTileRows * kChunks; index += kThreads) {
        const int row = index / kChunks, chunk = index % kChunks;
        const T* source = queries + row_offset(min(row, rows - 1)) + chunk * 8;
        copy_async_16(shared_queries + chunk_offset<D>(row, chunk), source, row < rows);
    }
    key_slots.copy_tile(shared_keys, 0, context);
    copy_async_commit();

    float acc[kRowTiles][D / 8][4] = {};
    float row_max[kRowTiles][2], row_sum[kRowTiles][2] = {};
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) row_max[m][half] = kHidden;
    }

    // ldmatrix addresses: lane l names row l % 16 and chunk l / 16 of queries and values; of keys,
    // whose two 8-slot halves are separate MMA columns, in the other order. Two chunks further is
    // an exclusive or with 32 bytes, since tiles are aligned to their rows.
    const unsigned query_address =
        shared_queries + chunk_offset<D>(warp_row + lane % 16, lane / 16);
    const unsigned key_address =
        shared_keys + chunk_offset<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const unsigned value_address = shared_values + chunk_offset<D>(lane % 16, lane / 16);
    constexpr int kStep = 16 * D * 2;  // bytes of 16 rows

    for (int first = 0; first < context; first += kTileSlots) {
        copy_async_wait<0>();
        __syncthreads();  // this tile's keys are here; the last tile's values are no longer read
        value_slots.copy_tile(shared_values, first, context);
        copy_async_commit();

        // Scores: (32 rows) x (64 slots) a warp.
        float scores[kRowTiles][kTileSlots / 8][4] = {};
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            unsigned a[kRowTiles][4];
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                load_matrix_x4(a[m], (query_address ^ (k * 32)) + m * kStep);
            }
#pragma unroll
            for (int n = 0; n < kTileSlots / 16; ++n) {
                unsigned b[4];
                load_matrix_x4(b, (key_address ^ (k * 32)) + n * kStep);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    mma_16816<T>(scores[m][2 * n], a[m], b[0], b[1]);
                    mma_16816<T>(scores[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }

        copy_async_wait<0>();
        __syncthreads();  // the values are here; the keys are no longer read
        if (first + kTileSlots < context) {
            key_slots.copy_tile(shared_keys, first + kTileSlots, context);
            copy_async_commit();
        }

        // Only tiles that reach past the first row's last slot hide anything.
        if (first + kTileSlots > first_position + 1) {
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = warp_row + m * 16 + i / 2 * 8 + lane / 4;
                    const int last = min(first_position + row / Group, context - 1);
#pragma unroll
                    for (int n = 0; n < kTileSlots / 8; ++n) {
                        const int slot = first + n * 8 + lane % 4 * 2 + i % 2;
                        if (slot > last) scores[m][n][i] = kHidden;
                    }
                }
            }
        }

        // Softmax so far. Every row sees slot 0, so its maximum is finite from the first tile on.
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float largest = row_max[m][half];
#pragma unroll
                for (int n = 0; n < kTileSlots / 8; ++n) {
                    largest = fmaxf(largest, fmaxf(scores[m][n][2 * half],
                                                   scores[m][n][2 * half + 1]));
                }
                largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
                const float shrink = exp2_fast((row_max[m][half] - largest) * scale_log2);
                const float shift = largest * scale_log2;
                row_max[m][half] = largest;
                float sum = row_sum[m][half] * shrink;
#pragma unroll
                for (int n = 0; n < kTileSlots / 8; ++n) {
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        scores[m][n][i] = exp2_fast(scores[m][n][i] * scale_log2 - shift);
                        sum += scores[m][n][i];
                    }
                }
                row_sum[m][half] = sum;
#pragma unroll
                for (int n = 0; n < D / 8; ++n) {
                    acc[m][n][2 * half] *= shrink;
                    acc[m][n][2 * half + 1] *= shrink;
                }
            }
        }

        // acc += probabilities x values. A score fragment's layout is that of an A operand.
#pragma unroll
        for (int k = 0; k < kTileSlots / 16; ++k) {
            unsigned a[kRowTiles][4];
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float* pair = &scores[m][2 * k + i / 2][i % 2 * 2];
                    a[m][i] = pack2<T>(pair[0], pair[1]);
                }
            }
#pragma unroll
            for (int n = 0; n < D / 16; ++n) {
                unsigned b[4];
                load_matrix_x4_transposed(b, (value_address ^ (n * 32)) + k * kStep);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    mma_16816<T>(acc[m][2 * n], a[m], b[0], b[1]);
                    mma_16816<T>(acc[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // Divide by the sums of the four threads that share a row, and write.
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float sum = row_sum[m][half];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            const float factor = 1.0f / sum;
            const int row = warp_row + m * 16 + half * 8 + lane / 4;
            if (row >= rows) continue;
            T* target = out + row_offset(row) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                *reinterpret_cast<unsigned*>(target + n * 8) = pack2<T>(
                    acc[m][n][2 * half] * factor, acc[m][n][2 * half + 1] * factor);
            }
        }
    }
}
