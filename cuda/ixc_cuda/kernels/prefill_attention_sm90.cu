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
// counter until none is left (and the taker of the last ticket sets it to 0): all tiles for the first
// `heads_at_once` KV heads, which the L2 can hold, then for the next ones.
//
// Bound by the tensor cores: 4 * D operations per (query head, slot) pair. The rest has to hide
// behind them, exp2 above all, which takes half as long as the products:
//
//   warpgroup 0, warp 0 copies: queries once a tile, keys and values in blocks of 128 slots through
//       a ring of two buffers each, ahead of the others and into the next tile
//   warpgroup 0, warp 1 clears what a tile's last block of values holds past the context
//   warpgroups 1 and 2 have 64 rows each. A step issues the scores of block j and, behind them, the
//       sum over values of block j - 1; while the latter runs, it computes block j's softmax. A
//       tile's last sum runs behind the next tile's first scores. The two fall into step by
//       themselves: one's softmax into the other's products.

#include "prefill_rows.cuh"

namespace {

constexpr int kThreads = 384;
constexpr int kReaders = 256;  // threads of the two warpgroups that compute
constexpr int kReaderWarps = kReaders / 32;
constexpr int kTileRows = 128;
constexpr int kStages = 2;

// 64,512 registers for three warpgroups alike become 128 * 40 and 256 * 232.
constexpr int kCopyRegisters = 40;
constexpr int kReadRegisters = 232;

static_assert(kTileRows == 128 && kBlockSlots == 128, "the height of a column");
static_assert(128 * kCopyRegisters + kReaders * kReadRegisters <= 65536 / kThreads / 8 * 8 * kThreads);

// A tile as its readers see it. The last one has no rows.
struct Tile {
    int first_row, positions, context, head;
    int first_position;  // of the first row

    __device__ __forceinline__ int blocks() const {
        return (context + kBlockSlots - 1) / kBlockSlots;
    }
    // Blocks before this one are seen whole by every row.
    __device__ __forceinline__ int first_hiding() const {
        return (first_position + 1) / kBlockSlots;
    }
};

template <int D>
struct SharedMemory {
    static constexpr int kTileBytes = D / 64 * kColumnBytes;
    unsigned char queries[kTileBytes];
    unsigned char keys[kStages][kTileBytes];
    unsigned char values[kStages][kTileBytes];
    unsigned char out[kTileBytes];  // rows of D on their way to memory, chunks swizzled
    // Counted by tiles. The tail is the last block of values: on its way, and cleared. (By two:
    // that of a short tile can be cleared before a reader has looked for the one before it.)
    unsigned long long tile_full, tile_empty, tail_full, tail_clear[kStages];
    // Counted by blocks.
    unsigned long long keys_full[kStages], keys_empty[kStages];
    unsigned long long values_full[kStages], values_empty[kStages];
    Tile tile;
};

// The n-th use of something that goes round in `kRound` places: its place, and its barrier's phase.
template <int kRound>
struct Use {
    unsigned n = 0;
    __device__ __forceinline__ unsigned place() const { return n % kRound; }
    __device__ __forceinline__ unsigned phase() const { return n / kRound % 2; }
};

__device__ __forceinline__ void wait_full(const unsigned long long* barriers, Use<kStages> use) {
    wait_phase(shared_address(barriers + use.place()), use.phase());
}

__device__ __forceinline__ void wait_empty(const unsigned long long* barriers, Use<kStages> use) {
    wait_phase(shared_address(barriers + use.place()), use.phase() ^ 1);
}

__device__ __forceinline__ void wait_full(const unsigned long long& barrier, Use<1> use) {
    wait_phase(shared_address(&barrier), use.phase());
}

__device__ __forceinline__ void wait_empty(const unsigned long long& barrier, Use<1> use) {
    wait_phase(shared_address(&barrier), use.phase() ^ 1);
}

// One arrival for a warp, once all its lanes are done.
__device__ __forceinline__ void release(const unsigned long long& barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(shared_address(&barrier));
}

// Where the slots of one sequence and one KV head lie. (Another KV format is another such type.)
// A warp's lanes copy a box each: 64 columns of the slots from `first` on in a block.
template <int D>
struct PagedSlots {
    const int* page_table;
    int page_shift;
    int box_slots;  // a page, or a block of a larger page
    int head;
    int context;
    int column = threadIdx.x % 32 % (D / 64);
    int first = threadIdx.x % 32 / (D / 64) * box_slots;

    // Which row of all pages this lane's box of block `block` starts at; -1 where it has none.
    __device__ __forceinline__ int locate(int block) const {
        const int slot = block * kBlockSlots + first;
        if (first >= kBlockSlots || slot >= context) return -1;
        const int page = __ldg(page_table + (slot >> page_shift));
        return (page << page_shift) + (slot & ((1 << page_shift) - 1));
    }

    // Block `block`, whose place `locate` has found, by all lanes.
    __device__ __forceinline__ void copy(unsigned shared, const TensorMap& map, unsigned full,
                                         int block, int row) const {
        const int left = min(context - block * kBlockSlots, kBlockSlots);
        const int boxes = (left + box_slots - 1) / box_slots;
        if (threadIdx.x % 32 == 0) arrive_expecting(full, boxes * box_slots * D * 2);
        __syncwarp();
        if (row < 0) return;
        copy_box(shared + column * kColumnBytes + first * 128, map, full, column * 64, head, row);
    }
};

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
    const int4* __restrict__ tiles, int num_tiles, int* __restrict__ next_piece,
    const int* __restrict__ page_tables, int table_stride, int page_shift, int box_slots,
    int kv_heads, int heads_at_once, float scale_log2) {
    static_assert(sizeof(T) == 2 && (D == 64 || D == 128));
    constexpr int kPositions = kTileRows / Group;
    using Shared = SharedMemory<D>;
    static_assert(sizeof(Shared) <= 6 * Shared::kTileBytes + 128, "what the launcher asks for");
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    Shared& shared = *reinterpret_cast<Shared*>(shared_memory);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;

    if (threadIdx.x == 0) {
        const auto init = [](unsigned long long& barrier, int arrivals) {
            init_barrier(shared_address(&barrier), arrivals);
        };
        prefetch_map(query_map);
        prefetch_map(key_map);
        prefetch_map(value_map);
        init(shared.tile_full, 1);
        init(shared.tile_empty, kReaders + 32);  // whoever has read the tile
        init(shared.tail_full, 1);
        for (int i = 0; i < kStages; ++i) {
            init(shared.tail_clear[i], 1);
            init(shared.keys_full[i], 1);
            init(shared.values_full[i], 1);
            init(shared.keys_empty[i], kReaderWarps);
            init(shared.values_empty[i], kReaderWarps);
        }
        publish_barriers();
    }
    __syncthreads();

    Use<1> round;  // of the tile
    Use<kStages> key, value;  // of the block

    if (warp < 4) {
        give_registers_back<kCopyRegisters>();
        if (warp == 0) {
            // Tickets come to lane 0. Every block draws one in vain; the last of those is the last
            // of all.
            const int num_pieces = num_tiles * kv_heads;
            const int last_ticket = num_pieces + static_cast<int>(gridDim.x) - 1;
            const auto draw = [&] { return lane == 0 ? atomicAdd(next_piece, 1) : 0; };
            const auto show = [&](int ticket) {
                if (lane == 0 && ticket == last_ticket) *next_piece = 0;
                return __shfl_sync(~0u, ticket, 0);
            };
            const int pieces_at_once = num_tiles * heads_at_once;
            const auto tile_of = [&](int piece) {
                const int known = min(piece, num_pieces - 1);
                return __ldg(tiles + known % pieces_at_once / heads_at_once);
            };
            const auto head_of = [&](int piece) {
                return piece / pieces_at_once * heads_at_once + piece % heads_at_once;
            };

            int piece = show(draw());
            int4 tile = tile_of(piece);
            for (; piece < num_pieces; ++round.n) {
                const int head = head_of(piece), context = tile.z;
                const PagedSlots<D> slots{page_tables + tile.w * table_stride, page_shift,
                                          box_slots, head, context};
                int next_row = slots.locate(0);
                wait_empty(shared.tile_empty, round);
                if (lane == 0) {
                    const unsigned full = shared_address(&shared.tile_full);
                    shared.tile = Tile{tile.x, tile.y, context, head, context - tile.y};
                    arrive_expecting(full, kPositions * Group * D * 2);
                    for (int column = 0; column < D / 64; ++column) {
                        copy_box(shared_address(shared.queries) + column * kColumnBytes, query_map,
                                 full, column * 64, 0, head, tile.x);
                    }
                }
                const int ticket = draw();

                // Keys go one block ahead of values, as they are used.
                const auto copy_keys = [&](int block, int row) {
                    wait_empty(shared.keys_empty, key);
                    slots.copy(shared_address(shared.keys[key.place()]), key_map,
                               shared_address(&shared.keys_full[key.place()]), block, row);
                    ++key.n;
                };
                const int blocks = (context + kBlockSlots - 1) / kBlockSlots;
                copy_keys(0, next_row);
                for (int block = 0; block < blocks; ++block) {
                    const int row = next_row;
                    if (block + 1 < blocks) {
                        next_row = slots.locate(block + 1);
                        copy_keys(block + 1, next_row);
                    }
                    wait_empty(shared.values_empty, value);
                    slots.copy(shared_address(shared.values[value.place()]), value_map,
                               shared_address(&shared.values_full[value.place()]), block, row);
                    ++value.n;
                    if (block == 0) {
                        piece = show(ticket);
                        tile = tile_of(piece);
                    }
                }
                if (lane == 0) arrive(shared_address(&shared.tail_full));
            }
            wait_empty(shared.tile_empty, round);
            if (lane == 0) {
                shared.tile.positions = 0;  // nothing more comes
                arrive(shared_address(&shared.tile_full));
                arrive(shared_address(&shared.tail_full));
            }
        } else if (warp == 1) {
            // What lies in the buffer of a last block past the context was never written, or by
            // whoever had the page before: zero times that could be NaN.
            for (;; ++round.n) {
                wait_full(shared.tail_full, round);
                const Tile tile = shared.tile;
                arrive(shared_address(&shared.tile_empty));
                if (tile.positions == 0) return;
                value.n += tile.blocks() - 1;
                wait_full(shared.values_full, value);
                const int tail = tile.context - (tile.blocks() - 1) * kBlockSlots;
                unsigned char* start = shared.values[value.place()] + tail * 128;
                for (int i = lane; i < (kBlockSlots - tail) * 8; i += 32) {
#pragma unroll
                    for (int column = 0; column < D / 64; ++column) {
                        *reinterpret_cast<int4*>(start + column * kColumnBytes + i * 16) =
                            make_int4(0, 0, 0, 0);
                    }
                }
                ++value.n;
                publish_shared_writes();
                release(shared.tail_clear[round.n % kStages]);
            }
        }
    } else {
        take_registers<kReadRegisters>();
        const int warp_row = (warp - 4) * 16;

        unsigned query[D / 16][4];
        float scores[64];
        unsigned probabilities[kBlockSlots / 16][4];
        float acc[D / 2] = {};
        Softmax softmax;
        Tile tile;

        const auto receive_tile = [&] {
            wait_full(shared.tile_full, round);
            tile = shared.tile;
            load_queries<D>(query, shared_address(shared.queries), warp_row);
            arrive(shared_address(&shared.tile_empty));
        };
        const auto keys = [&] { return shared_address(shared.keys[key.place()]); };
        const auto values = [&] { return shared_address(shared.values[value.place()]); };
        const auto finish_keys = [&] {
            hold(scores);
            release(shared.keys_empty[key.place()]);
            ++key.n;
        };
        const auto finish_values = [&] {
            hold(acc);
            release(shared.values_empty[value.place()]);
            ++value.n;
        };
        const auto hide_unseen = [&](int block) {
            const int row = warp_row + lane / 4, start = block * kBlockSlots + lane % 4 * 2;
            const int first = tile.first_position, last = tile.context - 1;
            hide(scores, min(first + row / Group, last) - start,
                 min(first + (row + 8) / Group, last) - start);
        };
        // To whole rows through shared memory, where each warp has 16 of its own.
        const auto write = [&](const Tile& tile, const float (&factor)[2]) {
            constexpr int kChunks = D / 8;  // of 16 bytes in a row
            unsigned char* staged = shared.out + warp_row * D * 2;
            const auto chunk_offset = [](int row, int chunk) {
                return row * D * 2 + ((chunk ^ (row & 7)) << 4);
            };
#pragma unroll
            for (int n = 0; n < kChunks; n += 2) {
                const auto pair = [&](int i) {
                    const float by = factor[i / 2 % 2];
                    return pack2<T>(acc[4 * n + i] * by, acc[4 * n + i + 1] * by);
                };
                store_matrix_x4(shared_address(staged) + chunk_offset(lane % 16, n + lane / 16),
                                pair(0), pair(2), pair(4), pair(6));
            }
            __syncwarp();
            const int rows = min(tile.positions * Group - warp_row, 16);
#pragma unroll 1
            for (int i = lane; i < rows * kChunks; i += 32) {
                const int row = i / kChunks, chunk = i % kChunks;
                const int position = (warp_row + row) / Group, member = (warp_row + row) % Group;
                const long long target =
                    (static_cast<long long>(tile.first_row + position) * kv_heads + tile.head) *
                        Group +
                    member;
                *reinterpret_cast<int4*>(out + target * D + chunk * 8) =
                    *reinterpret_cast<const int4*>(staged + chunk_offset(row, chunk));
            }
            __syncwarp();
        };

        // The first tile's first scores, with nothing to run beside.
        receive_tile();
        if (tile.positions == 0) return;
        wait_full(shared.keys_full, key);
        open_products();
        issue_scores<T, D>(scores, query, keys());
        wait_products<0>();
        finish_keys();
        if (tile.first_hiding() == 0) hide_unseen(0);
        softmax.apply(scores, scale_log2);
        to_operand<T>(probabilities, scores);
        if (tile.blocks() > 1) wait_full(shared.keys_full, key);

        while (true) {
            // Scores of `block`, and the sum over the one before it.
            const int blocks = tile.blocks(), first_hiding = tile.first_hiding();
            const auto step = [&](int block, bool hides) {
                open_products();
                issue_scores<T, D>(scores, query, keys());
                wait_full(shared.values_full, value);
                open_products();
                issue_sums<T, D>(acc, probabilities, values());
                wait_products<1>();
                finish_keys();
                if (hides) hide_unseen(block);
                softmax.apply(scores, scale_log2);
                // Without a branch in between, the compiler does the softmax after the wait.
                hold(scores);
                if (block + 1 < blocks) wait_full(shared.keys_full, key);
                wait_products<0>();
                finish_values();
                softmax.rescale(acc);
                to_operand<T>(probabilities, scores);
            };
            int block = 1;
            for (; block < first_hiding; ++block) step(block, false);
            for (; block < blocks; ++block) step(block, true);

            // The sum over the last block, behind the next tile's first scores.
            const Tile done = tile;
            const Use<kStages> done_round{round.n};
            const float factor[2] = {1.0f / softmax.total(0), 1.0f / softmax.total(1)};
            ++round.n;
            receive_tile();
            wait_full(shared.tail_clear, done_round);
            if (tile.positions == 0) {
                wait_full(shared.values_full, value);
                open_products();
                issue_sums<T, D>(acc, probabilities, values());
                wait_products<0>();
                finish_values();
                write(done, factor);
                return;
            }
            wait_full(shared.keys_full, key);
            open_products();
            issue_scores<T, D>(scores, query, keys());
            wait_full(shared.values_full, value);
            open_products();
            issue_sums<T, D>(acc, probabilities, values());
            wait_products<1>();
            finish_keys();
            if (tile.first_hiding() == 0) hide_unseen(0);
            softmax = Softmax();
            softmax.apply(scores, scale_log2);
            hold(scores);
            if (tile.blocks() > 1) wait_full(shared.keys_full, key);
            wait_products<0>();
            finish_values();
            write(done, factor);
#pragma unroll
            for (int i = 0; i < D / 2; ++i) acc[i] = 0.0f;
            to_operand<T>(probabilities, scores);
        }
    }
}
