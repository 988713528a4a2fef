// y[row] += up (down x[row]) for the rows of a step, each with the adapter it asks for, or none.
//
//     x (rows, k), y (rows, n), adapters (rows): an index into the tables, -1 is none
//     downs: of each adapter  address of (ranks, k), ranks
//     ups: of each block      address of (outputs, ranks), adapter, first rank, ranks, first output,
//                             outputs
//     inner (rows, most_ranks): what the first launch leaves for the second, rounded to T
//
// An adapter's rows are gathered 16 at a time and multiplied by the tensor cores, so that its
// weights are read once for them. Grid of low_rank_down: tiles of 8 ranks x adapters; the warps
// share k. Grid of low_rank_up: tiles of 128 outputs x blocks; a warp has 16 of them. An adapter
// that no row asks for costs an empty block. Bound by the adapters' weights at few rows.

#include "mma.cuh"
#include "vectors.cuh"

// (Not all of these are used by each kernel, which constants would be warned of.)
enum : int {
    WARPS = 8,
    THREADS = WARPS * WARP,
    WINDOW = 32,    // columns multiplied at a time: 16 bytes a lane
    BATCH = 16,     // rows of x multiplied at a time
    DOWN_TILE = 8,  // ranks of a block
    UP_TILE = 16,   // outputs of a warp
    MOST_ROWS = 1024,
};

struct Down {
    long long weight, ranks;
};

struct Up {
    long long weight, adapter, first_rank, ranks, first_output, outputs;
};

// The rows that ask for `adapter`, in order; returns how many. All threads of the block.
__device__ int gather_rows(const int* adapters, int rows, int adapter, short (&found)[MOST_ROWS]) {
    __shared__ int count;
    if (threadIdx.x < WARP) {
        int so_far = 0;
        for (int first = 0; first < rows; first += WARP) {
            const int row = first + threadIdx.x;
            const bool mine = row < rows && adapters[row] == adapter;
            const unsigned all = __ballot_sync(FULL_MASK, mine);
            if (mine) {
                found[so_far + __popc(all & ((1u << threadIdx.x) - 1))] = static_cast<short>(row);
            }
            so_far += __popc(all);
        }
        if (threadIdx.x == 0) {
            count = so_far;
        }
    }
    __syncthreads();
    return count;
}

// Rows g and g + 8 of a matrix (`low`, `high`; null is zeros) by 16 gathered vectors (null likewise),
// over windows first, first + step, ...: each lane reads 16 bytes of each at a time, and which k the
// tensor core takes them for does not matter, as it is the same on both sides.
template <typename T>
__device__ __forceinline__ void multiply_rows(float (&sums)[2][4], const T* low, const T* high,
                                              const T* const (&vectors)[2], int k, int first,
                                              int step) {
    const int t = threadIdx.x % 4;
#pragma unroll 4
    for (int window = first; window * WINDOW < k; window += step) {
        const int column = window * WINDOW + 8 * t;
        const auto load = [=](const T* row) {
            return row != nullptr && column < k ? load_fresh(row + column) : make_uint4(0, 0, 0, 0);
        };
        const uint4 a = load(low), b = load(high);
        const unsigned left[4] = {a.x, b.x, a.y, b.y}, right[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 v = load(vectors[half]);
            mma_16816<T>(sums[half], left, v.x, v.y);
            mma_16816<T>(sums[half], right, v.z, v.w);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    low_rank_down(const T* x, const int* adapters, const Down* downs, T* inner, int rows, int k,
                  int most_ranks) {
    __shared__ short found[MOST_ROWS];
    __shared__ float partial[WARPS][BATCH][DOWN_TILE];
    allow_next_kernel();
    wait_for_previous_kernel();

    const Down down = downs[blockIdx.y];
    const int first_rank = blockIdx.x * DOWN_TILE;
    if (first_rank >= down.ranks) {
        return;
    }
    const int num_found = gather_rows(adapters, rows, blockIdx.y, found);
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const T* weight = reinterpret_cast<const T*>(down.weight);
    const T* low = first_rank + g < down.ranks
                       ? weight + static_cast<long long>(first_rank + g) * k
                       : nullptr;

    for (int start = 0; start < num_found; start += BATCH) {
        const T* vectors[2];
        for (int half = 0; half < 2; ++half) {
            const int index = start + 8 * half + g;
            vectors[half] =
                index < num_found ? x + static_cast<long long>(found[index]) * k : nullptr;
        }
        float sums[2][4] = {};
        multiply_rows<T>(sums, low, nullptr, vectors, k, warp, WARPS);

        // The warps' sums into one, by one thread an element, always in the same order.
        for (int i = 0; i < 4; ++i) {
            partial[warp][8 * (i / 2) + 2 * t + i % 2][g] = sums[i / 2][i % 2];
        }
        __syncthreads();
        if (threadIdx.x < BATCH * DOWN_TILE) {
            const int index = start + threadIdx.x / DOWN_TILE;
            const int rank = first_rank + threadIdx.x % DOWN_TILE;
            float sum = 0.0f;
            for (int i = 0; i < WARPS; ++i) {
                sum += partial[i][threadIdx.x / DOWN_TILE][threadIdx.x % DOWN_TILE];
            }
            if (index < num_found && rank < down.ranks) {
                inner[static_cast<long long>(found[index]) * most_ranks + rank] = from_float<T>(sum);
            }
        }
        __syncthreads();
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    low_rank_up(const T* inner, const int* adapters, const Up* ups, T* y, int rows, int n,
                int most_ranks) {
    __shared__ short found[MOST_ROWS];
    allow_next_kernel();
    wait_for_previous_kernel();

    const Up up = ups[blockIdx.y];
    if (blockIdx.x * WARPS * UP_TILE >= up.outputs) {
        return;
    }
    const int num_found = gather_rows(adapters, rows, static_cast<int>(up.adapter), found);
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const int first_output = (blockIdx.x * WARPS + warp) * UP_TILE;
    const T* weight = reinterpret_cast<const T*>(up.weight);
    const auto row_of = [=](int output) {
        return output < up.outputs ? weight + output * up.ranks : nullptr;
    };

    for (int start = 0; start < num_found; start += BATCH) {
        const T* vectors[2];
        for (int half = 0; half < 2; ++half) {
            const int index = start + 8 * half + g;
            vectors[half] = index < num_found ? inner + up.first_rank +
                                                    static_cast<long long>(found[index]) * most_ranks
                                              : nullptr;
        }
        float sums[2][4] = {};
        multiply_rows<T>(sums, row_of(first_output + g), row_of(first_output + g + 8), vectors,
                         static_cast<int>(up.ranks), 0, 1);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int index = start + 8 * (i / 4) + 2 * t + i % 2;
            const int output = first_output + g + i / 2 % 2 * 8;
            if (index < num_found && output < up.outputs) {
                T* place = y + static_cast<long long>(found[index]) * n + up.first_output + output;
                *place = from_float<T>(to_float(*place) + sums[i / 4][i % 4]);
            }
        }
    }
}
