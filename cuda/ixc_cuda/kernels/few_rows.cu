// y = f(norm(x)) W^T for 1 to 16 rows of x: a decode step's linear layers.
//
//     x (m, k), W (n, k) row-major, y (m, n), or y (m, n / 2) where W is w1 over w3 and
//     y = silu(w1 x) * (w3 x). norm (k): x is first divided by its root mean square, rounded to T,
//     and multiplied by norm, rounded. `add`: y holds a residual, to which the product is added.
//
// What bounds it: reading W once. All else is made to hide behind that.
//
//   * The tensor cores do the arithmetic, 16 rows of W by 8 rows of x at a time, because they cost a
//     twentieth of the instructions and are idle otherwise; absent rows of x are zeros.
//   * W flows through a ring in shared memory, which takes nearly all of it and is filled before the
//     kernel in front has ended.
//   * x lies in registers, which take nearly all of those: a warp always meets the same columns of W.
//
// A block owns a slice of k, 1 / SLICES of it, and walks over tiles of 16 rows of W; its eight warps
// share a chunk's columns, 32 at a time. The SLICES blocks of a cluster walk over the same tiles;
// each tile's sums end in one of them (its owner), through distributed shared memory, always in the
// same order, so results do not depend on timing.
//
// Grid: as many blocks as give the longest walk that all multiprocessors together need.

#include "cluster.cuh"
#include "mma.cuh"
#include "row_operand.cuh"
#include "row_ring.cuh"
#include "vectors.cuh"
#include "weight_tiles.cuh"

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

using Ring = RowRing<WARPS>;  // all warps fill it and read it

// What a block keeps in shared memory in front of its ring.
template <typename T, int COLUMNS, int SLICES> struct alignas(128) Scratch {
    unsigned long long barriers[RING_BARRIER_BYTES / 8];
    typename RowOperand<T, COLUMNS, SLICES>::Scratch operand;
    float partial[2][WARPS][COLUMNS][TILE];  // tiles take turns
    // Sums of the tile that this block owns, of each slice; rounds take turns.
    float received[SLICES > 1 ? 2 : 1][SLICES > 1 ? SLICES : 1][COLUMNS][TILE];
};

template <typename T, int COLUMNS, int SLICES>
__global__ void CLUSTER_OF(SLICES) __launch_bounds__(Ring::BLOCK_THREADS, 1)
    few_rows(const T* x, const T* weight, const T* norm, T* y, int m, int n, int k, float eps,
             int add, int swiglu, int num_stages) {
    using Operand = RowOperand<T, COLUMNS, SLICES>;
    constexpr int OCTETS = Operand::OCTETS;
    // Elements of a tile's sums that a thread adds up.
    constexpr int ELEMENTS = (COLUMNS * TILE + THREADS - 1) / THREADS;
    static_assert(COLUMNS == 8 || COLUMNS == 16, "products of eight columns");
    static_assert((SLICES & (SLICES - 1)) == 0 && SLICES <= 8, "a portable cluster");

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int g = lane / 4, t = lane % 4;
    const int slice = blockIdx.x % SLICES, cluster = blockIdx.x / SLICES;
    const int num_clusters = gridDim.x / SLICES;

    extern __shared__ __align__(128) unsigned char shared[];
    auto& scratch = *reinterpret_cast<Scratch<T, COLUMNS, SLICES>*>(shared);
    const unsigned ring_start = shared_address(shared) + sizeof(Scratch<T, COLUMNS, SLICES>);
    const unsigned norm_start = ring_start + num_stages * STAGE_BYTES;

    Ring ring(shared_address(scratch.barriers), ring_start, num_stages);
    __syncthreads();
    arrive_cluster<SLICES>();
    allow_next_kernel();

    // The slice's columns, and the tiles that this cluster walks over.
    const int slice_width = (k + SLICES * WINDOW - 1) / (SLICES * WINDOW) * WINDOW;
    const int first_column = slice * slice_width;
    const int width = min(slice_width, k - first_column);
    const int chunks = (width + CHUNK - 1) / CHUNK;
    const WeightTiles tiles(n, swiglu);
    const auto tile_at = [=](int step) {
        return (step / SLICES * num_clusters + cluster) * SLICES + step % SLICES;
    };

    // Chunks go into the ring in the order in which they come out. A thread sees to the same row of
    // every tile.
    const int fill_row = max(Ring::row_of_thread(), 0);
    const auto row_start = [=](int tile) {
        return weight + tiles.row(tile, fill_row) * k + first_column;
    };
    int fill_step = 0, fill_chunk = 0;
    const T* fill_source = row_start(tile_at(0));
    const auto fill = [&] {
        if (tile_at(fill_step) >= tiles.count) {
            return;
        }
        ring.fill(fill_source, 2 * min(CHUNK, width - fill_chunk * CHUNK));
        fill_source += CHUNK;
        if (++fill_chunk == chunks) {
            fill_chunk = 0;
            fill_source = row_start(tile_at(++fill_step));
        }
    };

    // What no other kernel writes can be fetched before the one in front has ended.
#pragma unroll 1
    for (int i = 0; i + 1 < num_stages; ++i) {
        fill();
    }
    if (norm != nullptr) {
        for (int i = threadIdx.x; i < width / 8; i += THREADS) {
            copy_async_16(norm_start + 16 * i, norm + first_column + 8 * i);
        }
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
    }
    Operand operand(x, m, k, first_column, width);
    wait_cluster<SLICES>();  // from here on the others' shared memory may be written
    wait_for_previous_kernel();
    if (norm == nullptr) {
        operand.load();
    } else {
        operand.load_normalised(scratch.operand, norm_start, eps, slice);
    }

    // Which elements of a tile's sums this thread adds up and, in the owner, writes.
    const int feature = threadIdx.x % TILE;
    const auto row_of = [=](int element) {
        return static_cast<int>(threadIdx.x) / TILE + element * (THREADS / TILE);
    };
    // Of the tile that is written next: places in y, and what is there already, asked for early.
    long long places[ELEMENTS];
    float residuals[ELEMENTS];
    const auto look_up = [&](int tile) {
        const int output = tile * tiles.outputs_a_tile + feature;
        const bool inside = feature < tiles.outputs_a_tile && output < tiles.outputs;
#pragma unroll
        for (int e = 0; e < ELEMENTS; ++e) {
            places[e] = inside && row_of(e) < m
                            ? static_cast<long long>(row_of(e)) * tiles.outputs + output
                            : -1ll;
            residuals[e] = add && places[e] >= 0 ? to_float(y[places[e]]) : 0.0f;
        }
    };
    const auto write = [&](int e, float value) {
        if (swiglu) {
            // The rows of w1 are the tile's first eight, those of w3 the lanes eight further on.
            const float up = rounded<T>(__shfl_down_sync(FULL_MASK, value, TILE / 2));
            value = rounded<T>(silu(rounded<T>(value))) * up;
        }
        if (places[e] >= 0) {
            y[places[e]] = from_float<T>(value + residuals[e]);
        }
    };
    // In a round each of the cluster's blocks owns a tile. A round's sums are taken while the next
    // round's first tile is computed.
    bool pending = false;
    int round = 0;
    const auto finish_round = [&] {
        wait_cluster<SLICES>();
#pragma unroll
        for (int e = 0; e < ELEMENTS; ++e) {
            float value = 0.0f;
            if (row_of(e) < COLUMNS) {
                for (int i = 0; i < SLICES; ++i) {
                    value += scratch.received[round][i][row_of(e)][feature];
                }
            }
            write(e, value);
        }
        pending = false;
        round ^= 1;
    };

    for (int step = 0; tile_at(step) < tiles.count; ++step) {
        if constexpr (SLICES == 1) {
            look_up(tile_at(step));
        }

        float sums[OCTETS][4] = {};
#pragma unroll
        for (int chunk = 0; chunk < Operand::CHUNKS; ++chunk) {
            if (chunk * CHUNK < width) {
                const unsigned row = ring.wait() + row_offset(g);
#pragma unroll
                for (int i = 0; i < WINDOWS_A_CHUNK; ++i) {
                    const int index = chunk * WINDOWS_A_CHUNK + i;
                    const Window window(row + 2 * column_in_chunk(i),
                                        Operand::column_of(index) < width);
#pragma unroll
                    for (int octet = 0; octet < OCTETS; ++octet) {
                        const uint4& b = operand.columns[octet][index];
                        mma_16816<T>(sums[octet], window.first, b.x, b.y);
                        mma_16816<T>(sums[octet], window.second, b.z, b.w);
                    }
                }
                ring.release();
                fill();
            }
        }
        if (pending) {
            finish_round();
        }

        // The warps' sums into one, by one thread an element.
        auto& partial = scratch.partial[step % 2];
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                partial[warp][8 * octet + 2 * t + i % 2][g + i / 2 * 8] = sums[octet][i];
            }
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < ELEMENTS; ++e) {
            float value = 0.0f;
            if (row_of(e) < COLUMNS) {
#pragma unroll
                for (int i = 0; i < WARPS; ++i) {
                    value += partial[i][row_of(e)][feature];
                }
            }
            if constexpr (SLICES == 1) {
                write(e, value);
            } else if (row_of(e) < COLUMNS) {
                // The slices' sums into one, in the block that owns the tile.
                *in_block<SLICES>(&scratch.received[round][slice][row_of(e)][feature],
                                  step % SLICES) = value;
            }
        }
        if constexpr (SLICES > 1) {
            if (step % SLICES == SLICES - 1 || tile_at(step + 1) >= tiles.count) {
                look_up(tile_at(step / SLICES * SLICES + slice));
                arrive_cluster<SLICES>();
                pending = true;
            }
        }
    }
    if (pending) {
        finish_round();
    }
}
