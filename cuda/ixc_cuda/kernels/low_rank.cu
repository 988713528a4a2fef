// y[row] += up (down x[row]) for the rows of a step, each with the adapter it asks for, or none.
//
//     x (rows, k), y (rows, n)
//     groups: of each adapter that rows ask for  its slot, first place in `order`, number of rows
//     order: rows, group by group
//     table: of each slot, `stride` apart, one linear's part of the adapter
//     inner (rows, most_ranks): what the first launch leaves for the second, rounded to T, in
//                               `order`'s order
//
// A group's product is cut into items, a tile of the weights by up to COLUMNS rows, and the grid,
// which is as large as the GPU whatever the groups are, shares the items of all groups; items of
// the same weights are next to each other, and meet in the L2. Few tiles of few ranks would leave
// most of the GPU idle in low_rank_down: there a cluster of blocks shares a tile's columns, and
// each adds up a part of its sums, through distributed shared memory, always in the same order.
//
// Few rows are bound by reading the adapters' weights, many by what comes through the L2. Weights
// are asked for before the kernel in front has ended; so they, `groups`, `order` and `table` must
// not have been written by a kernel just now.

#include "cluster.cuh"
#include "mma.cuh"
#include "row_tiles.cuh"
#include "vectors.cuh"

enum : int {
    MOST_GROUPS = THREADS,
    MOST_BLOCKS = 2,
#if __CUDA_ARCH__ >= 900
    SLICES = 8,
#else
    SLICES = 1,
#endif
};

struct Group {
    int slot, first, rows;
};

struct Block {
    long long weight;  // (outputs, ranks)
    int first_rank, ranks, first_output, outputs;
};

struct Slot {
    long long down;  // (ranks, k)
    int ranks, blocks;
    Block block[MOST_BLOCKS];
};

// Few vectors: small tiles, of which the warps share the columns. Many: they share rows and
// vectors.
template <typename T, int COLUMNS> struct Tiles;
template <typename T> struct Tiles<T, 16> {
    using Type = RowTiles<T, 32, 16, 256, 3, 1, 1>;
};
template <typename T> struct Tiles<T, 64> {
    using Type = RowTiles<T, 128, 64, 64, 3, 4, 2>;
};

__device__ __forceinline__ int quotient(int a, int b) { return (a + b - 1) / b; }

// Every thread's number of items, added up over the threads in front and itself. All of the block.
__device__ void add_up(int mine, int (&ends)[MOST_GROUPS]) {
    __shared__ int sums[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int distance = 1; distance < WARP; distance *= 2) {
        const int before = __shfl_up_sync(FULL_MASK, mine, distance);
        mine += lane >= distance ? before : 0;
    }
    if (lane == WARP - 1) {
        sums[warp] = mine;
    }
    __syncthreads();
    for (int i = 0; i < warp; ++i) {
        mine += sums[i];
    }
    ends[threadIdx.x] = mine;
    __syncthreads();
}

// The group that an item below the last end belongs to.
__device__ __forceinline__ int group_of(int item, const int (&ends)[MOST_GROUPS]) {
    int group = 0;
    for (int step = MOST_GROUPS / 2; step > 0; step /= 2) {
        group += ends[group + step - 1] <= item ? step : 0;
    }
    return group;
}

template <typename T, int COLUMNS>
__global__ void CLUSTER_OF(SLICES) __launch_bounds__(THREADS, 2)
    low_rank_down(const T* x, const Group* groups, const int* order, const Slot* table, T* inner,
                  int num_groups, int stride, int k, int most_ranks) {
    using Product = typename Tiles<T, COLUMNS>::Type;
    constexpr int TILE = Product::TILE, OWN = COLUMNS / SLICES;  // vectors that a block adds up
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ int ends[MOST_GROUPS];
    __shared__ __align__(16) float received[SLICES][OWN][TILE];

    arrive_cluster<SLICES>();
    allow_next_kernel();
    int mine = 0;
    if (threadIdx.x < num_groups && groups[threadIdx.x].rows > 0) {
        const Group group = groups[threadIdx.x];
        const int ranks = table[static_cast<long long>(group.slot) * stride].ranks;
        mine = quotient(ranks, TILE) * quotient(group.rows, COLUMNS);
    }
    add_up(mine, ends);

    const int slice = blockIdx.x % SLICES;
    const int slice_width = quotient(k, SLICES * WINDOW) * WINDOW;
    const int first_column = min(slice * slice_width, k);
    const int end_column = min(first_column + slice_width, k);
    bool waited = false;
    const int num_items = ends[MOST_GROUPS - 1];
    for (int item = blockIdx.x / SLICES; item < num_items; item += gridDim.x / SLICES) {
        const int index = group_of(item, ends);
        const int place = item - (index > 0 ? ends[index - 1] : 0);
        const Group group = groups[index];
        const Slot& slot = table[static_cast<long long>(group.slot) * stride];
        const int parts = quotient(group.rows, COLUMNS);
        const int first_row = place % parts * COLUMNS, first_rank = place / parts * TILE;
        const int num_ranks = slot.ranks - first_rank;

        const T* weight =
            reinterpret_cast<const T*>(slot.down) + static_cast<long long>(first_rank) * k;
        Product product(shared, weight, num_ranks, k, first_column, end_column);
        product.begin_weights();
        if (!waited) {
            wait_for_previous_kernel();
            waited = true;
        }
        product.begin_vectors(x, k, order + group.first + first_row, group.rows - first_row);
        product.multiply();

        wait_cluster<SLICES>();  // the others have read what they had received
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE / 8 * COLUMNS; i += THREADS) {
            const int rank = i % (TILE / 8) * 8, vector = i / (TILE / 8);
            float sums[8];
            product.sums(rank, vector, sums);
            float4* to = reinterpret_cast<float4*>(
                in_block<SLICES>(&received[slice][vector % OWN][rank], vector / OWN));
            to[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
            to[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
        }
        sync_cluster<SLICES>();
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE * OWN; i += THREADS) {
            const int rank = i % TILE, vector = i / TILE + slice * OWN;
            float sum = 0.0f;
#pragma unroll
            for (int from = 0; from < SLICES; ++from) {
                sum += received[from][i / TILE][rank];
            }
            if (first_row + vector < group.rows && rank < num_ranks) {
                const long long row = group.first + first_row + vector;
                inner[row * most_ranks + first_rank + rank] = from_float<T>(sum);
            }
        }
        __syncthreads();
        arrive_cluster<SLICES>();
    }
    if (!waited) {
        wait_for_previous_kernel();
    }
    wait_cluster<SLICES>();
}

// Whether the next eight outputs are there, and lie so that they travel in one move.
template <typename T>
__device__ __forceinline__ bool is_whole(const T* place, int outputs) {
    return outputs >= 8 && reinterpret_cast<unsigned long long>(place) % 16 == 0;
}

// Up to eight sums to the outputs at `place`; `before` is what was there, where they are whole.
template <typename T>
__device__ __forceinline__ void add_to(T* place, uint4 before, float (&sums)[8], int outputs) {
    if (is_whole(place, outputs)) {
        float values[8];
        unpack<T>(before, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            values[i] += sums[i];
        }
        store(place, pack<T>(values));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (i < outputs) {
            place[i] = from_float<T>(to_float(place[i]) + sums[i]);
        }
    }
}

template <typename T, int COLUMNS>
__global__ void __launch_bounds__(THREADS, 2)
    low_rank_up(const T* inner, const Group* groups, const int* order, const Slot* table, T* y,
                int num_groups, int stride, int n, int most_ranks) {
    using Product = typename Tiles<T, COLUMNS>::Type;
    constexpr int TILE = Product::TILE;
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ int ends[MOST_GROUPS];

    allow_next_kernel();
    const auto tiles_of = [](const Slot& slot, int block) {
        return block < slot.blocks ? quotient(slot.block[block].outputs, TILE) : 0;
    };
    int mine = 0;
    if (threadIdx.x < num_groups && groups[threadIdx.x].rows > 0) {
        const Group group = groups[threadIdx.x];
        const Slot& slot = table[static_cast<long long>(group.slot) * stride];
        mine = (tiles_of(slot, 0) + tiles_of(slot, 1)) * quotient(group.rows, COLUMNS);
    }
    add_up(mine, ends);

    bool waited = false;
    const int num_items = ends[MOST_GROUPS - 1];
    for (int item = blockIdx.x; item < num_items; item += gridDim.x) {
        const int index = group_of(item, ends);
        const int place = item - (index > 0 ? ends[index - 1] : 0);
        const Group group = groups[index];
        const Slot& slot = table[static_cast<long long>(group.slot) * stride];
        const int parts = quotient(group.rows, COLUMNS), tile = place / parts;
        const bool is_second = tile >= tiles_of(slot, 0);
        const Block block = slot.block[is_second];
        const int first_row = place % parts * COLUMNS;
        const int first_output = (tile - (is_second ? tiles_of(slot, 0) : 0)) * TILE;
        const int num_rows = group.rows - first_row, num_outputs = block.outputs - first_output;

        const T* weight = reinterpret_cast<const T*>(block.weight) +
                          static_cast<long long>(first_output) * block.ranks;
        Product product(shared, weight, num_outputs, block.ranks, 0, block.ranks);
        product.begin_weights();
        if (!waited) {
            wait_for_previous_kernel();
            waited = true;
        }
        const long long first_inner = static_cast<long long>(group.first + first_row) * most_ranks;
        const T* vectors = inner + first_inner + block.first_rank;
        product.begin_vectors(vectors, most_ranks, nullptr, num_rows);

        product.multiply();

        // What is added to comes all at once: eight outputs at a time where they lie so.
        constexpr int PIECES = TILE / 8, COPIES = (PIECES * COLUMNS + THREADS - 1) / THREADS;
        int places[COPIES];  // in y; -1 is none
        uint4 before[COPIES];
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const int piece = static_cast<int>(threadIdx.x) + i * THREADS;
            const int vector = piece / PIECES, output = piece % PIECES * 8;
            const bool inside = vector < min(num_rows, COLUMNS) && output < num_outputs;
            places[i] = -1;
            before[i] = make_uint4(0, 0, 0, 0);
            if (inside) {
                const int row = order[group.first + first_row + vector];
                places[i] = row * n + block.first_output + first_output + output;
                if (is_whole(y + places[i], num_outputs - output)) {
                    before[i] = load_fresh(y + places[i]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            if (places[i] >= 0) {
                const int piece = static_cast<int>(threadIdx.x) + i * THREADS;
                const int vector = piece / PIECES, output = piece % PIECES * 8;
                float sums[8];
                product.sums(output, vector, sums);
                add_to(y + places[i], before[i], sums, num_outputs - output);
            }
        }
        __syncthreads();
    }
    if (!waited) {
        wait_for_previous_kernel();
    }
}
