// Causal attention of prompt chunks over pages, for Hopper's own copies and products (sm_90a).
//
//     out[row, head] = sum over slots s <= position(row) of softmax(q . k_s / sqrt(D)) v_s
//
// queries, out  (rows, kv_heads, Group, D)               the heads of a group share a KV head
// keys, values  (pages, page_size, kv_heads, D)          one layer's pages
// page_tables   (sequences, table_stride) int32          a sequence's pages in order
// tiles         (tiles) of {first row, positions, context, sequence}
//
// A tile with a KV head is one piece of work: up to 128 / Group consecutive positions of a sequence
// with all their heads, 128 rows of the products, so that short chunks fill it. `context` is the
// number of slots that the tile's last position sees. One block a multiprocessor takes pieces from a
// counter, heaviest first, until none is left (and the taker of the last ticket sets it to 0).
//
// Bound by the tensor cores: 4 * D operations per (query head, slot) pair. The rest has to hide
// behind them, exp2 above all, which takes half as long as the products:
//
//   warpgroup 0 (one warp of it) copies: queries once a tile, keys and values in blocks of 128 slots
//       through a ring of two buffers each, and is ahead of the others by up to two blocks, into
//       the next tile
//   warpgroups 1 and 2 have 64 rows each. A step issues the scores of block j and, behind them, the
//       sum over values of block j - 1; while the latter runs, it computes block j's softmax.
//       Barriers make them take turns at issuing, so that one's softmax falls into the other's
//       products.

#include "hopper.cuh"
#include "mma.cuh"

namespace {

constexpr int kThreads = 384;
constexpr int kReaders = 256;  // threads of the two warpgroups that compute
constexpr int kReaderWarps = kReaders / 32;
constexpr int kTileRows = 128;
constexpr int kBlockSlots = 128;
constexpr int kStages = 2;
constexpr float kHidden = -1.0f / 0.0f;  // the score of a slot that a row does not see

// A 64 wide block of 128 rows, as the copy engine lays it out: rows of 128 bytes, swizzled.
constexpr int kColumnBytes = 128 * 128;

// Named barriers of the readers.
constexpr int kTurn = 1;  // and 2: whose turn it is to issue products
constexpr int kTail = 3;  // the values past the context are zero

static_assert(kTileRows == 128 && kBlockSlots == 128, "the columns' height");

template <int D>
struct SharedMemory {
    static constexpr int kTileBytes = D / 64 * kColumnBytes;
    unsigned char queries[kTileBytes];
    unsigned char keys[kStages][kTileBytes];
    unsigned char values[kStages][kTileBytes];
    unsigned char out[kTileBytes];  // in rows of D, chunks swizzled: on its way to memory
    unsigned long long queries_full, queries_empty;
    unsigned long long keys_full[kStages], keys_empty[kStages];
    unsigned long long values_full[kStages], values_empty[kStages];
    int4 tile;
    int head;
};

// What the copying warp needs to find a sequence's slots. (Another KV format is another such type.)
struct PagedSlots {
    const int* page_table;
    int page_shift;
    int box_slots;  // how many slots one copy brings: a page, or a block of a larger page
    int head;
    int context;

    // Boxes are copied by a lane each: 64 columns of the slots from `first` on in a block.
    template <int D>
    __device__ __forceinline__ int first() const {
        return threadIdx.x % 32 / (D / 64) * box_slots;
    }

    // Which row of all pages this lane's box of block `block` starts at; -1 where it has none.
    template <int D>
    __device__ __forceinline__ int locate(int block) const {
        const int slot = block * kBlockSlots + first<D>();
        if (first<D>() >= kBlockSlots || slot >= context) return -1;
        const int page = __ldg(page_table + (slot >> page_shift));
        return (page << page_shift) + (slot & ((1 << page_shift) - 1));
    }

    // Block `block`, whose place `locate` has found, by all lanes of a warp.
    template <int D>
    __device__ __forceinline__ void copy_block(unsigned shared, const TensorMap& map,
                                               unsigned full, int block, int row) const {
        const int lane = threadIdx.x % 32, column = lane % (D / 64);
        const int left = min(context - block * kBlockSlots, kBlockSlots);
        const int boxes = (left + box_slots - 1) / box_slots;
        if (lane == 0) arrive_expecting(full, boxes * box_slots * D * 2);
        __syncwarp();
        if (row >= 0) {
            copy_box(shared + column * kColumnBytes + first<D>() * 128, map, full, column * 64,
                     head, row);
        }
    }
};

// Scores (64 x 128) of this warpgroup's rows and a block of keys.
template <typename T, int D>
__device__ __forceinline__ void issue_scores(float (&scores)[64], unsigned queries, unsigned keys) {
    const unsigned long long a = describe_swizzled(queries, 0);
    const unsigned long long b = describe_swizzled(keys, 0);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        const int offset = k / 4 * kColumnBytes + k % 4 * 32;
        Products<T>::multiply_shared(scores, advance(a, offset), advance(b, offset), k > 0);
    }
    commit_products();
}

// acc (64 x D) += probabilities x a block of values.
template <typename T, int D>
__device__ __forceinline__ void issue_sums(float (&acc)[D / 2],
                                           const unsigned (&probabilities)[kBlockSlots / 16][4],
                                           unsigned values) {
    const unsigned long long b = describe_swizzled(values, kColumnBytes);
#pragma unroll
    for (int k = 0; k < kBlockSlots / 16; ++k) {
        Products<T>::multiply_registers(acc, probabilities[k], advance(b, k * 16 * 128));
    }
    commit_products();
}

// A row's largest score and sum so far; a thread has parts of two rows, 8 apart.
struct Softmax {
    float row_max[2] = {kHidden, kHidden};
    float row_sum[2] = {0.0f, 0.0f};  // of this thread's columns
    float shrink[2];                  // what the last block did to earlier sums

    // Scores become probabilities, but for the division by the final sum. Every row sees slot 0, so
    // its maximum is finite from the first block on.
    __device__ __forceinline__ void apply(float (&scores)[64], float scale_log2) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float largest = row_max[half];
#pragma unroll
            for (int n = 0; n < 16; ++n) {
                largest = fmaxf(largest, fmaxf(scores[4 * n + 2 * half],
                                               scores[4 * n + 2 * half + 1]));
            }
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
            shrink[half] = exp2_fast((row_max[half] - largest) * scale_log2);
            row_max[half] = largest;
            const float shift = largest * scale_log2;
            float sum = row_sum[half] * shrink[half];
#pragma unroll
            for (int n = 0; n < 16; ++n) {
#pragma unroll
                for (int i = 4 * n + 2 * half; i < 4 * n + 2 * half + 2; ++i) {
                    scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -shift));
                    sum += scores[i];
                }
            }
            row_sum[half] = sum;
        }
    }

    __device__ __forceinline__ float total(int half) const {
        float sum = row_sum[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        return sum + __shfl_xor_sync(~0u, sum, 2);
    }
};

// The layout of a C operand is that of an A operand, 16 columns at a time.
template <typename T>
__device__ __forceinline__ void to_operand(unsigned (&a)[kBlockSlots / 16][4],
                                           const float (&scores)[64]) {
#pragma unroll
    for (int k = 0; k < kBlockSlots / 16; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a[k][i] = pack2<T>(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
        }
    }
}

// Hide the columns after `last`, counted from this thread's first one.
__device__ __forceinline__ void hide(float (&scores)[64], int last_0, int last_1) {
#pragma unroll
    for (int i = 0; i < 64; ++i) {
        if (i / 4 * 8 + i % 2 > (i / 2 % 2 == 0 ? last_0 : last_1)) scores[i] = kHidden;
    }
}

__device__ __forceinline__ void store_matrix_x4(unsigned address, unsigned a, unsigned b,
                                                unsigned c, unsigned d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

}  // namespace

template <typename T, int D, int Group>
__global__ void __launch_bounds__(kThreads, 1) prefill_attention_sm90(
    const __grid_constant__ TensorMap query_map, const __grid_constant__ TensorMap key_map,
    const __grid_constant__ TensorMap value_map, T* __restrict__ out,
    const int4* __restrict__ tiles, int num_pieces, int* __restrict__ next_piece,
    const int* __restrict__ page_tables, int table_stride, int page_shift, int box_slots,
    int kv_heads, float scale_log2) {
    static_assert(sizeof(T) == 2 && (D == 64 || D == 128));
    constexpr int kPositions = kTileRows / Group;
    using Shared = SharedMemory<D>;
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    Shared& shared = *reinterpret_cast<Shared*>(shared_memory);
    const auto keys_full = [&](unsigned i) { return shared_address(&shared.keys_full[i % kStages]); };
    const auto keys_empty = [&](unsigned i) { return shared_address(&shared.keys_empty[i % kStages]); };
    const auto values_full = [&](unsigned i) { return shared_address(&shared.values_full[i % kStages]); };
    const auto values_empty = [&](unsigned i) { return shared_address(&shared.values_empty[i % kStages]); };
    const auto keys = [&](unsigned i) { return shared_address(shared.keys[i % kStages]); };
    const auto values = [&](unsigned i) { return shared_address(shared.values[i % kStages]); };
    // How often the ring has been gone round is the phase.
    const auto phase = [](unsigned i) { return i / kStages % 2; };
    const unsigned queries_full = shared_address(&shared.queries_full);
    const unsigned queries_empty = shared_address(&shared.queries_empty);
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);

    if (threadIdx.x == 0) {
        prefetch_map(query_map);
        prefetch_map(key_map);
        prefetch_map(value_map);
        init_barrier(queries_full, 1);
        init_barrier(queries_empty, kReaderWarps);
        for (int i = 0; i < kStages; ++i) {
            init_barrier(keys_full(i), 1);
            init_barrier(values_full(i), 1);
            init_barrier(keys_empty(i), kReaderWarps);
            init_barrier(values_empty(i), kReaderWarps);
        }
        publish_barriers();
    }
    __syncthreads();

    if (warpgroup == 0) {
        give_registers_back<24>();
        if (threadIdx.x >= 32) return;
        const int lane = threadIdx.x;
        unsigned key_block = 0, value_block = 0;  // counted over all tiles: the ring's position
        // Tickets come to lane 0. Every block draws one in vain; the last of those is the last of all.
        const int last_ticket = num_pieces + static_cast<int>(gridDim.x) - 1;
        const auto draw = [&] { return lane == 0 ? atomicAdd(next_piece, 1) : 0; };
        const auto show = [&](int ticket) {
            if (lane == 0 && ticket == last_ticket) *next_piece = 0;
            return __shfl_sync(~0u, ticket, 0);
        };

        int piece = show(draw());
        int4 tile = __ldg(tiles + min(piece, num_pieces - 1) / kv_heads);
        unsigned round = 0;
        for (; piece < num_pieces; ++round) {
            const int head = piece % kv_heads;
            const PagedSlots slots{page_tables + tile.w * table_stride, page_shift, box_slots, head,
                                   tile.z};
            int next_row = slots.locate<D>(0);
            wait_phase(queries_empty, (round + 1) % 2);
            if (lane == 0) {
                shared.tile = tile;
                shared.head = head;
                arrive_expecting(queries_full, kPositions * Group * D * 2);
                for (int column = 0; column < D / 64; ++column) {
                    copy_box(shared_address(shared.queries) + column * kColumnBytes, query_map,
                             queries_full, column * 64, 0, head, tile.x);
                }
            }
            const int ticket = draw();

            // Keys go one block ahead of values, as they are used.
            const auto copy_keys = [&](int block, int row) {
                wait_phase(keys_empty(key_block), phase(key_block) ^ 1);
                slots.copy_block<D>(keys(key_block), key_map, keys_full(key_block), block, row);
                ++key_block;
            };
            copy_keys(0, next_row);
            const int blocks = (tile.z + kBlockSlots - 1) / kBlockSlots;
            for (int block = 0; block < blocks; ++block) {
                const int row = next_row;
                if (block + 1 < blocks) {
                    next_row = slots.locate<D>(block + 1);
                    copy_keys(block + 1, next_row);
                }
                wait_phase(values_empty(value_block), phase(value_block) ^ 1);
                slots.copy_block<D>(values(value_block), value_map, values_full(value_block),
                                    block, row);
                ++value_block;
                if (block == 0) {
                    piece = show(ticket);
                    tile = __ldg(tiles + min(piece, num_pieces - 1) / kv_heads);
                }
            }
        }
        wait_phase(queries_empty, (round + 1) % 2);
        if (lane == 0) {
            shared.tile.y = 0;  // nothing more comes
            arrive(queries_full);
        }
    } else {
        take_registers<240>();
        const int reader = warpgroup - 1;  // 0 or 1
        const int thread = threadIdx.x - 128;
        const int lane = threadIdx.x % 32;
        const int warp_row = thread / 32 * 16;
        const unsigned queries = shared_address(shared.queries) + reader * 64 * 128;
        unsigned key_block = 0, value_block = 0;
        const auto release = [&](unsigned barrier) {
            if (lane == 0) arrive(barrier);
        };
        if (reader == 0) arrive_threads(kTurn, kReaders);  // the first turn is its own

        for (unsigned round = 0;; ++round) {
            wait_phase(queries_full, round % 2);
            const int4 tile = shared.tile;
            const int head = shared.head;
            if (tile.y == 0) return;
            const int rows = tile.y * Group, context = tile.z;
            const int first_position = context - tile.y;
            const int blocks = (context + kBlockSlots - 1) / kBlockSlots;
            // Blocks before this one are seen whole by every row.
            const int first_hiding = (first_position + 1) / kBlockSlots;

            float acc[D / 2] = {};
            float scores[64];
            unsigned probabilities[kBlockSlots / 16][4];
            Softmax softmax;

            const auto hide_unseen = [&](int block) {
                const int row = warp_row + lane / 4;
                const int first = block * kBlockSlots + lane % 4 * 2;
                hide(scores, min(first_position + row / Group, context - 1) - first,
                     min(first_position + (row + 8) / Group, context - 1) - first);
            };

            const auto await_keys = [&](int block) {
                if (block < blocks) wait_phase(keys_full(key_block), phase(key_block));
            };

            // Block 0: nothing to overlap with yet.
            await_keys(0);
            open_products();
            issue_scores<T, D>(scores, queries, keys(key_block));
            wait_products<0>();
            hold(scores);
            release(keys_empty(key_block));
            ++key_block;
            if (first_hiding == 0) hide_unseen(0);
            softmax.apply(scores, scale_log2);
            to_operand<T>(probabilities, scores);
            await_keys(1);

            const auto step = [&](int block, bool hides) {
                sync_threads(kTurn + reader, kReaders);
                open_products();
                issue_scores<T, D>(scores, queries, keys(key_block));
                wait_phase(values_full(value_block), phase(value_block));
                issue_sums<T, D>(acc, probabilities, values(value_block));
                arrive_threads(kTurn + (reader ^ 1), kReaders);
                wait_products<1>();
                hold(scores);
                release(keys_empty(key_block));
                ++key_block;
                if (hides) hide_unseen(block);
                softmax.apply(scores, scale_log2);
                hold(scores);
                await_keys(block + 1);
                wait_products<0>();
                hold(acc);
                release(values_empty(value_block));
                ++value_block;
#pragma unroll
                for (int i = 0; i < D / 2; ++i) acc[i] *= softmax.shrink[i / 2 % 2];
                to_operand<T>(probabilities, scores);
            };
            int block = 1;
            for (; block < first_hiding; ++block) step(block, false);
            for (; block < blocks; ++block) step(block, true);
            __syncwarp();  // all lanes have read the tile
            release(queries_empty);

            // The last block's values. What lies in their buffer past the context was never
            // written, or by whoever had the page before: zero times that could be NaN.
            wait_phase(values_full(value_block), phase(value_block));
            const int tail = context - (blocks - 1) * kBlockSlots;
            if (tail < kBlockSlots) {
                constexpr int kChunks = D / 8;
                const int chunks = (kBlockSlots - tail) * 8;  // of each column
                unsigned char* column = shared.values[value_block % kStages];
                for (int i = thread; i < chunks * (kChunks / 8); i += kReaders) {
                    const int offset = i / chunks * kColumnBytes + (tail * 8 + i % chunks) * 16;
                    *reinterpret_cast<int4*>(column + offset) = make_int4(0, 0, 0, 0);
                }
                publish_shared_writes();
                sync_threads(kTail, kReaders);
            }
            open_products();
            issue_sums<T, D>(acc, probabilities, values(value_block));
            const float factor[2] = {1.0f / softmax.total(0), 1.0f / softmax.total(1)};
            wait_products<0>();
            hold(acc);
            release(values_empty(value_block));
            ++value_block;

            // Through shared memory to whole rows: each warp has 16 of its own.
            constexpr int kChunks = D / 8;  // of 16 bytes in a row
            const unsigned staged = shared_address(shared.out) + warp_row * D * 2;
            const auto chunk_offset = [](int row, int chunk) {
                return row * D * 2 + ((chunk ^ (row & 7)) << 4);
            };
#pragma unroll
            for (int n = 0; n < kChunks; n += 2) {
                const auto pair = [&](int i) {
                    const float by = factor[i / 2 % 2];
                    return pack2<T>(acc[4 * n + i] * by, acc[4 * n + i + 1] * by);
                };
                store_matrix_x4(staged + chunk_offset(lane % 16, n + lane / 16), pair(0), pair(2),
                                pair(4), pair(6));
            }
            __syncwarp();
#pragma unroll
            for (int i = lane; i < 16 * kChunks; i += 32) {
                const int row = i / kChunks, chunk = i % kChunks;
                const int tile_row = warp_row + row;
                if (tile_row >= rows) continue;
                const int4 piece = *reinterpret_cast<const int4*>(
                    shared.out + warp_row * D * 2 + chunk_offset(row, chunk));
                T* target = out +
                            (static_cast<long long>(tile.x + tile_row / Group) * kv_heads + head) *
                                (Group * D) +
                            tile_row % Group * D + chunk * 8;
                *reinterpret_cast<int4*>(target) = piece;
            }
            __syncwarp();
        }
    }
}
