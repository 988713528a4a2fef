// y = x W^T for up to 128 rows of x: the linear layers of a decode step of many sequences (sm_90a).
//
//     x (m, k), W (n, k) row-major, y (m, n), or y (m, n / 2) where W is w1 over w3 and
//     y = silu(w1 x) * (w3 x). `add`: y holds a residual, to which the product is added.
//
// What bounds it: reading W once, and at 128 rows also what the multiprocessors together fetch from
// the L2, where every tile of W meets all of x again. So tiles are as wide as the registers allow.
//
//   * Rows of x are the products' rows, 64 to a warpgroup; rows of W are their columns, so that a
//     tile may have any multiple of eight of them and a matrix is cut evenly. A tile is PARTS
//     products of WIDTH rows of W; for SwiGLU the first part is of w1, the second of w3.
//   * One warp copies: boxes of 64 columns of x and W, through a ring of as many stages as there is
//     room for. The first ones of W are asked for before the kernel in front has ended.
//   * The SLICES blocks of a cluster share a tile's columns. Their sums are exchanged through
//     distributed shared memory: each block adds up and writes a part of every product, always in
//     the same order, so results do not depend on timing.
//
// Shared memory: the ring; a stage is `box_rows` rows of x, then the tile's rows of W, 128 bytes
// each. Behind it two barriers a stage. The products read 64 rows of x a warpgroup: what is missing
// they take from W, and nobody reads what becomes of it. Once its tile is summed, the ring holds the
// sums that come from the other blocks.
//
// Grid: clusters x SLICES. A cluster walks over tiles; if it has several blocks, it has one tile.

#include "cluster.cuh"
#include "exchange.cuh"
#include "mma.cuh"
#include "shared_products.cuh"
#include "vectors.cuh"

constexpr int WARPGROUP = 4 * WARP;
constexpr int GROUP_ROWS = 64;     // of x, that a warpgroup multiplies
constexpr int BARRIER_BYTES = 16;  // of a stage: full, empty

// The n-th stage that comes round, and the parity of its barriers' phase.
struct Turn {
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void advance(int num_stages) {
        if (++stage == num_stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

__device__ __forceinline__ Pair load_fresh_pair(const Pair* address) {
    Pair pair;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(pair) : "l"(address) : "memory");
    return pair;
}

template <typename T> __device__ __forceinline__ float gated(float gate, float up) {
    const float x = rounded<T>(gate);
    return rounded<T>(x / (1.0f + expf(-x))) * rounded<T>(up);
}

template <typename T, int ROW_GROUPS, int WIDTH, int PARTS, int SLICES, bool SWIGLU>
__global__ void CLUSTER_OF(SLICES)
    __launch_bounds__(ROW_GROUPS * WARPGROUP + WARP, ROW_GROUPS * PARTS * WIDTH <= 256 ? 2 : 1)
        many_rows(const __grid_constant__ TensorMap x_map,
                  const __grid_constant__ TensorMap weight_map, T* y, int m, int outputs, int k,
                  int box_rows, int add, int num_stages) {
    constexpr int READERS = ROW_GROUPS * WARPGROUP;
    constexpr int TILE = PARTS * WIDTH;   // rows of W
    constexpr int EIGHTS = WIDTH / 8;     // of a part's columns: a thread has four sums of each
    constexpr int OWN = EIGHTS / SLICES;  // of each part, that this block writes
    static_assert(WIDTH % 8 == 0 && EIGHTS % SLICES == 0, "blocks share a product evenly");
    static_assert((SLICES & (SLICES - 1)) == 0 && SLICES <= 8, "a portable cluster");
    static_assert(PARTS == (SWIGLU ? 2 : 1) || PARTS == 2, "w1 and w3 are two products");
    static_assert(TILE >= 56, "behind the rows of x lie as many as a warpgroup reads beyond them");

    extern __shared__ __align__(1024) unsigned char shared[];
    const int warp = __shfl_sync(FULL_MASK, threadIdx.x / WARP, 0), lane = threadIdx.x % WARP;
    const int slice = blockIdx.x % SLICES;
    const int cluster = blockIdx.x / SLICES, num_clusters = gridDim.x / SLICES;

    const unsigned ring = shared_address(shared);
    const int stage_bytes = (box_rows + TILE) * ROW_BYTES;
    const auto rows_at = [=](int stage) { return ring + stage * stage_bytes; };
    const auto weights_at = [=](int stage) { return rows_at(stage) + box_rows * ROW_BYTES; };
    const auto full = [=](int stage) {
        return ring + num_stages * stage_bytes + stage * BARRIER_BYTES;
    };
    const auto empty = [=](int stage) { return full(stage) + 8; };

    if (threadIdx.x == 0) {
        prefetch_map(weight_map);
        prefetch_map(x_map);
#pragma unroll 1
        for (int i = 0; i < num_stages; ++i) {
            init_barrier(full(i), 1);
            init_barrier(empty(i), READERS / WARP);
        }
        publish_barriers();
    }
    __syncthreads();
    allow_next_kernel();

    // This block's boxes of 64 columns, and the tiles that its cluster walks over.
    const int boxes = (k + ROW_ELEMENTS - 1) / ROW_ELEMENTS;
    const int first_box = slice * boxes / SLICES, end_box = (slice + 1) * boxes / SLICES;
    constexpr int TILE_OUTPUTS = SWIGLU ? WIDTH : TILE;
    const int tiles = (outputs + TILE_OUTPUTS - 1) / TILE_OUTPUTS;

    if (warp == READERS / WARP) {
        if (lane == 0) {
            const unsigned long long once = read_once_policy(), often = read_often_policy();
            const auto copy_weights = [&](int stage, int tile, int box) {
                arrive_expecting(full(stage), stage_bytes);
#pragma unroll
                for (int part = 0; part < PARTS; ++part) {
                    const int row =
                        SWIGLU ? part * outputs + tile * WIDTH : tile * TILE + part * WIDTH;
                    copy_box(weights_at(stage) + part * WIDTH * ROW_BYTES, weight_map, full(stage),
                             box * ROW_ELEMENTS, row, once);
                }
            };
            const auto copy_rows = [&](int stage, int box) {
                copy_box(rows_at(stage), x_map, full(stage), box * ROW_ELEMENTS, 0, often);
            };
            int tile = cluster, box = first_box;
            const auto next = [&] {
                if (++box == end_box) {
                    box = first_box;
                    tile += num_clusters;
                }
            };

            // What no other kernel writes is fetched before the one in front has ended.
            int filled = 0;
#pragma unroll 1
            for (; filled < num_stages && tile < tiles; ++filled, next()) {
                copy_weights(filled, tile, box);
            }
            wait_for_previous_kernel();
#pragma unroll 1
            for (int i = 0, of_x = first_box; i < filled; ++i) {
                copy_rows(i, of_x);
                of_x = of_x + 1 == end_box ? first_box : of_x + 1;
            }
#pragma unroll 1
            for (Turn turn; tile < tiles; turn.advance(num_stages), next()) {
                wait_phase(empty(turn.stage), turn.parity);
                copy_weights(turn.stage, tile, box);
                copy_rows(turn.stage, box);
            }
        }
        __syncwarp();
        if constexpr (SLICES > 1) {
            sync_cluster<SLICES>();
            sync_cluster<SLICES>();
        }
        return;
    }

    wait_for_previous_kernel();
    const int first_row = warp / 4 * GROUP_ROWS;  // of the warpgroup, in x
    const int row = warp * 16 + lane / 4;         // of this thread's sums, and the row 8 further on
    const int pair = lane % 4 * 2;                // of columns, in every eight
    const auto release = [&](int stage) {
        __syncwarp();
        if (lane == 0) {
            arrive(empty(stage));
        }
    };

    // Where two of the outputs that this block writes belong, in the row of `half`; null if nowhere.
    const auto place_of = [&](int tile, int part, int eight, int half) -> Pair* {
        const int first = tile * TILE_OUTPUTS + part * WIDTH;
        const int output = first + 8 * (slice * OWN + eight);
        const bool inside = row + 8 * half < m && output < outputs;
        T* place = y + static_cast<long long>(row + 8 * half) * outputs + output + pair;
        return inside ? reinterpret_cast<Pair*>(place) : nullptr;
    };
    const auto read_residual = [&](const Pair* place) -> Pair {
        return !SWIGLU && add && place != nullptr ? load_fresh_pair(place) : 0u;
    };
    const auto write = [&](Pair* place, Pair residual, float low, float high) {
        if (place != nullptr) {
            const float2 before = unpack<T>(residual);
            *place = pack<T>(low + before.x, high + before.y);
        }
    };

    constexpr int WRITTEN_PARTS = SWIGLU ? 1 : PARTS;
    constexpr int WRITTEN = WRITTEN_PARTS * OWN * 2;  // pairs of outputs

    Turn turn;
    for (int tile = cluster; tile < tiles; tile += num_clusters) {
        float sums[PARTS][WIDTH / 2];
        int reading = 0;  // the stage whose products may still be under way
#pragma unroll 1
        for (int box = first_box; box < end_box; ++box) {
            wait_phase(full(turn.stage), turn.parity);
            const auto rows = describe_swizzled(rows_at(turn.stage) + first_row * ROW_BYTES, 0);
            const auto columns = describe_swizzled(weights_at(turn.stage), 0);
            open_products();
#pragma unroll
            for (int step = 0; step < ROW_ELEMENTS / 16; ++step) {
#pragma unroll
                for (int part = 0; part < PARTS; ++part) {
                    SharedProduct<T, WIDTH>::multiply(
                        sums[part], advance(rows, 32 * step),
                        advance(columns, part * WIDTH * ROW_BYTES + 32 * step),
                        box > first_box || step > 0);
                }
            }
            commit_products();
            wait_products<1>();
            if (box > first_box) {
                release(reading);
            }
            reading = turn.stage;
            turn.advance(num_stages);
        }
        wait_products<0>();
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            hold(sums[part]);
        }
        release(reading);

        Pair residuals[SLICES > 1 ? WRITTEN : 1];
        // Each block's part of the sums to that block, four floats of a thread at a time, in the
        // order of the threads. Warps whose rows are all beyond m have nothing to give.
        if constexpr (SLICES > 1) {
            const bool has_rows = warp * 16 < m;
            const auto place_from = [&](int source, int part, int eight) {
                return (((source * PARTS + part) * OWN + eight) * READERS + threadIdx.x) * 16;
            };
            sync_cluster<SLICES>();  // all have read their rings
            if (has_rows) {
#pragma unroll
                for (int block = 0; block < SLICES; ++block) {
                    const unsigned there = address_in(block, ring);
#pragma unroll
                    for (int i = 0; i < PARTS * OWN; ++i) {
                        const int part = i / OWN, eight = i % OWN;
                        const float* four = sums[part] + 4 * (block * OWN + eight);
                        store_at(there + place_from(slice, part, eight), four[0], four[1], four[2],
                                 four[3]);
                    }
                }
            }
            arrive_cluster<SLICES>();
#pragma unroll
            for (int i = 0; i < WRITTEN; ++i) {
                residuals[i] = read_residual(place_of(tile, i / (OWN * 2), i / 2 % OWN, i % 2));
            }
            wait_cluster<SLICES>();
            if (!has_rows) {
                return;
            }
#pragma unroll
            for (int i = 0; i < PARTS * OWN; ++i) {
                const int part = i / OWN, eight = i % OWN;
                float4 total = load_sums(ring + place_from(0, part, eight));
#pragma unroll
                for (int source = 1; source < SLICES; ++source) {
                    const float4 more = load_sums(ring + place_from(source, part, eight));
                    total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
                }
                float* own = sums[part] + 4 * eight;
                own[0] = total.x, own[1] = total.y, own[2] = total.z, own[3] = total.w;
            }
        }

#pragma unroll
        for (int i = 0; i < WRITTEN; ++i) {
            const int part = i / (OWN * 2), eight = i / 2 % OWN, half = i % 2;
            const int at = 4 * eight + 2 * half;
            float low = sums[part][at], high = sums[part][at + 1];
            if constexpr (SWIGLU) {
                low = gated<T>(low, sums[1][at]);
                high = gated<T>(high, sums[1][at + 1]);
            }
            Pair* place = place_of(tile, part, eight, half);
            write(place, SLICES > 1 ? residuals[i] : read_residual(place), low, high);
        }
        if constexpr (SLICES > 1) {
            return;
        }
    }
}
