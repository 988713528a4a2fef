// y = f(norm(x)) W^T for a single row of x: a decode step's linear layers at batch one.
//
//     x (k), W (n, k) row-major, y (n), or y (n / 2) where W is w1 over w3 and
//     y = silu(w1 x) * (w3 x). norm (k): x is first divided by its root mean square, rounded to T,
//     and multiplied by norm, rounded. `add`: y holds a residual, to which the product is added.
//
// What bounds it: reading W once. The ring of few_rows.cu takes nearly all of shared memory and is
// filled before the kernel in front has ended. One row of x is small enough to lie beside it whole,
// so there are no slices, no clusters, and a loop over chunks that is no longer than its body: code
// that does not fit the instruction cache beside the next launch's is waited for.
//
// A block walks over every gridDim.x-th tile of W; its warps share a chunk's columns. All eight
// columns of the tensor cores' second operand are x, so every lane reads the same, and all columns
// of the result are alike. Sums are always taken in the same order.

#include "mma.cuh"
#include "row_norm.cuh"
#include "row_ring.cuh"
#include "vectors.cuh"
#include "weight_tiles.cuh"

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

using Ring = RowRing<1>;

struct alignas(128) Scratch {
    unsigned long long barriers[RING_BARRIER_BYTES / 8];
    float squares[WARPS];
    float partial[2][WARPS][TILE];  // tiles take turns
};

// x lies in PARTS parts of 16 bytes a thread until it is in shared memory.
template <typename T, int PARTS>
__global__ void __launch_bounds__(Ring::BLOCK_THREADS, 1)
    one_row(const T* x, const T* weight, const T* norm, T* y, int n, int k, float eps, int add,
            int swiglu, int num_stages) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int g = lane / 4, t = lane % 4;
    const int block = blockIdx.x, num_blocks = gridDim.x;

    extern __shared__ __align__(128) unsigned char shared[];
    auto& scratch = *reinterpret_cast<Scratch*>(shared);
    const unsigned ring_start = shared_address(shared) + sizeof(Scratch);
    const unsigned x_start = ring_start + num_stages * STAGE_BYTES;

    Ring ring(shared_address(scratch.barriers), ring_start, num_stages);
    __syncthreads();
    allow_next_kernel();

    const WeightTiles tiles(n, swiglu);
    if (Ring::is_filler()) {
        // No kernel writes weights: they are fetched before the one in front has ended.
        const int row_of_tile = max(Ring::row_of_thread(), 0);
#pragma unroll 1
        for (int tile = block; tile < tiles.count; tile += num_blocks) {
            const T* row = weight + tiles.row(tile, row_of_tile) * k;
#pragma unroll 1
            for (int column = 0; column < k; column += CHUNK) {
                ring.fill(row + column, 2 * min(CHUNK, k - column));
            }
        }
        copy_async_wait<0>();
        return;
    }

    // x, normalised if that is wanted, into shared memory.
    uint4 weights[PARTS], own[PARTS];
    const auto column_of = [](int part) {
        return 8 * (static_cast<int>(threadIdx.x) + part * THREADS);
    };
    if (norm != nullptr) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            weights[i] = column_of(i) < k ? load_once(norm + column_of(i)) : uint4{};
        }
    }
    wait_for_previous_kernel();
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        own[i] = column_of(i) < k ? load_fresh(x + column_of(i)) : uint4{};
    }
    if (norm != nullptr) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            sum += sum_of_squares<T>(own[i]);
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            scratch.squares[warp] = sum;
        }
        sync_readers();
        sum = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; ++i) {
            sum += scratch.squares[i];
        }
        const float scale = rsqrtf(sum / static_cast<float>(k) + eps);
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            own[i] = normalised<T>(own[i], scale, weights[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        if (column_of(i) < k) {
            store_to_shared(x_start + 2 * column_of(i), own[i]);
        }
    }
    sync_readers();

    int turn = 0;
    for (int tile = block; tile < tiles.count; tile += num_blocks) {
        // The place in y that a lane of the first warp writes, and what is there already.
        const int output = tile * tiles.outputs_a_tile + lane;
        const bool writes = warp == 0 && lane < tiles.outputs_a_tile && output < tiles.outputs;
        const float residual = add && writes ? to_float(y[output]) : 0.0f;

        float sums[4] = {}, others[4] = {};  // of rows g (two alike) and g + 8 of the tile
#pragma unroll 1
        for (int first = 0; first < k; first += CHUNK) {
            const unsigned row = ring.wait() + row_offset(g);
#pragma unroll
            for (int i = 0; i < WINDOWS_A_CHUNK; ++i) {
                const int column = column_in_chunk(i);
                const bool inside = first + column < k;
                const Window window(row + 2 * column, inside);
                const uint4 b =
                    inside ? load_from_shared(x_start + 2 * (first + column)) : uint4{};
                mma_16816<T>(sums, window.first, b.x, b.y);
                mma_16816<T>(others, window.second, b.z, b.w);
            }
            ring.release();
        }

        // The warps' sums into one.
        auto& partial = scratch.partial[turn];
        turn ^= 1;
        if (t == 0) {
            partial[warp][g] = sums[0] + others[0];
            partial[warp][g + 8] = sums[2] + others[2];
        }
        sync_readers();
        if (warp == 0) {
            float value = 0.0f;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) {
                value += partial[i][lane % TILE];
            }
            if (swiglu) {
                // The rows of w1 are the tile's first eight, those of w3 the lanes eight further on.
                const float up = rounded<T>(__shfl_down_sync(FULL_MASK, value, TILE / 2));
                value = rounded<T>(silu(rounded<T>(value))) * up;
            }
            if (writes) {
                y[output] = from_float<T>(value + residual);
            }
        }
    }
}
