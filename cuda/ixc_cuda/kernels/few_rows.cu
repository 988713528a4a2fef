// y = f(norm(x)) W^T for 1 to 16 rows of x: a decode step's linear layers.
//
//     x (m, k), W (n, k) row-major, y (m, n), or y (m, n / 2) where W is w1 over w3 and
//     y = silu(w1 x) * (w3 x). norm (k): x is first divided by its root mean square, rounded to T,
//     and multiplied by norm, rounded. `add`: y holds a residual, to which the product is added.
//
// What bounds it: reading W once. All else is made to hide behind that.
//
//   * The tensor cores do the arithmetic, 16 rows of W by 8 (or 16) rows of x at a time, because
//     they cost a twentieth of the instructions and are idle otherwise; absent rows of x are zeros.
//   * W flows through a ring in shared memory that is filled before the kernel in front has ended.
//   * x lies in registers: a warp always meets the same columns of W.
//
// A block owns a slice of k, 1 / SLICES of it, and walks over tiles of 16 rows of W; its eight warps
// share a chunk's columns, 32 at a time. The SLICES blocks of a cluster walk over the same tiles;
// each tile's sums end in one of them (its owner), through distributed shared memory, always in the
// same order, so results do not depend on timing.
//
// Grid: as many blocks as give the longest walk that all multiprocessors together need.

#include "cluster.cuh"
#include "mma.cuh"
#include "row_ring.cuh"
#include "vectors.cuh"

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * WARP;
constexpr int TILE = RING_ROWS;  // rows of W
constexpr int WINDOW = 32;       // columns of W that a warp multiplies at a time: 16 bytes a lane
constexpr int WINDOWS_A_CHUNK = CHUNK / (WARPS * WINDOW);  // of one warp
constexpr int X_REGISTERS = 64;                            // of each thread

static_assert(THREADS == RING_THREADS, "every thread fills the ring");
static_assert(CHUNK % (WARPS * WINDOW) == 0, "every warp has whole windows of a chunk");

// From Hopper on kernels overlap: two of them may share the registers.
constexpr int BLOCKS_A_MULTIPROCESSOR = __CUDA_ARCH__ >= 900 ? 2 : 1;

// Store into the shared memory of another block of the cluster, at the place that `local` has here.
__device__ __forceinline__ void store_at(int block, float* local, float value) {
#if __CUDA_ARCH__ >= 900
    unsigned remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(remote)
                 : "r"(shared_address(local)), "r"(block));
    asm volatile("st.shared::cluster.f32 [%0], %1;" : : "r"(remote), "f"(value) : "memory");
#endif
}

// ---- pieces ------------------------------------------------------------------------------------

__device__ __forceinline__ uint4 load_from_shared(unsigned address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

template <typename T> __device__ __forceinline__ float sum_of_squares(uint4 eight) {
    float values[8];
    unpack<T>(eight, values);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        sum = fmaf(values[i], values[i], sum);
    }
    return sum;
}

template <typename T>
__device__ __forceinline__ uint4 normalised(uint4 eight, float scale, uint4 norm) {
    float values[8];
    unpack<T>(eight, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        values[i] *= scale;
    }
    const uint4 plain = pack<T>(values);
    return make_uint4(multiply<T>(plain.x, norm.x), multiply<T>(plain.y, norm.y),
                      multiply<T>(plain.z, norm.z), multiply<T>(plain.w, norm.w));
}

__device__ __forceinline__ uint4 from_lane(uint4 eight, int lane) {
    return make_uint4(__shfl_sync(FULL_MASK, eight.x, lane), __shfl_sync(FULL_MASK, eight.y, lane),
                      __shfl_sync(FULL_MASK, eight.z, lane), __shfl_sync(FULL_MASK, eight.w, lane));
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// What a block keeps in shared memory in front of its ring.
template <int COLUMNS, int SLICES> struct alignas(128) Scratch {
    unsigned long long barriers[RING_BARRIER_BYTES / 8];
    float squares[WARPS][COLUMNS];
    float slice_squares[SLICES][COLUMNS];
    float partial[WARPS][COLUMNS][TILE];
    // Sums of the tile that this block owns, of each slice; two rounds take turns.
    float received[SLICES > 1 ? 2 : 1][SLICES > 1 ? SLICES : 1][COLUMNS][TILE];
};

// ---- the kernel --------------------------------------------------------------------------------

template <typename T, int COLUMNS, int SLICES>
__global__ void CLUSTER_OF(SLICES) __launch_bounds__(THREADS, BLOCKS_A_MULTIPROCESSOR)
    few_rows(const T* x, const T* weight, const T* norm, T* y, int m, int n, int k, float eps,
             int add, int swiglu, int num_stages) {
    constexpr int HALVES = COLUMNS / 8;                   // of the product's columns
    constexpr int WINDOWS = X_REGISTERS / (4 * HALVES);   // of x, in registers
    constexpr int CHUNKS = WINDOWS / WINDOWS_A_CHUNK;     // at most, of a slice
    static_assert(COLUMNS == 8 || COLUMNS == 16, "one or two products of eight columns");
    static_assert((SLICES & (SLICES - 1)) == 0 && SLICES <= 8, "a portable cluster");

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int g = lane / 4, t = lane % 4;
    const int slice = blockIdx.x % SLICES;
    const int cluster = blockIdx.x / SLICES, num_clusters = gridDim.x / SLICES;

    extern __shared__ __align__(128) unsigned char shared[];
    auto& scratch = *reinterpret_cast<Scratch<COLUMNS, SLICES>*>(shared);
    const unsigned ring_start = shared_address(shared) + sizeof(Scratch<COLUMNS, SLICES>);
    const unsigned norm_start = ring_start + num_stages * STAGE_BYTES;

    RowRing ring(shared_address(scratch.barriers), ring_start, num_stages);
    __syncthreads();
    arrive_cluster<SLICES>();
    allow_next_kernel();

    // The slice's columns, and the tiles that this cluster walks over. Where W is w1 over w3 a tile
    // is eight rows of each.
    const int slice_width = (k + SLICES * WINDOW - 1) / (SLICES * WINDOW) * WINDOW;
    const int first_column = slice * slice_width;
    const int width = min(slice_width, k - first_column);
    const int chunks = (width + CHUNK - 1) / CHUNK;
    const int outputs = swiglu ? n / 2 : n;
    const int tile_outputs = swiglu ? TILE / 2 : TILE;
    const int tiles = (outputs + tile_outputs - 1) / tile_outputs;
    const auto tile_at = [=](int step) {
        return (step / SLICES * num_clusters + cluster) * SLICES + step % SLICES;
    };

    // Chunks go into the ring in the order in which they come out. A thread sees to the same row of
    // every tile; rows past the end repeat the last one and are not written.
    const int fill_row = max(RowRing::row_of_thread(), 0);
    const auto row_start = [=](int tile) {
        const int within = swiglu ? fill_row % (TILE / 2) : fill_row;
        const int from_w3 = swiglu && fill_row >= TILE / 2 ? outputs : 0;
        const long long row = min(tile * tile_outputs + within, outputs - 1) + from_w3;
        return reinterpret_cast<const unsigned char*>(weight + row * k + first_column);
    };
    int fill_step = 0, fill_chunk = 0;
    const unsigned char* fill_source = row_start(tile_at(0));
    const auto fill = [&] {
        if (tile_at(fill_step) >= tiles) {
            return;
        }
        ring.fill(fill_source, 2 * min(CHUNK, width - fill_chunk * CHUNK));
        fill_source += ROW_BYTES;
        if (++fill_chunk == chunks) {
            fill_chunk = 0;
            fill_source = row_start(tile_at(++fill_step));
        }
    };

    // What no other kernel writes can be fetched before the one in front has ended.
#pragma unroll 1
    for (int i = 0; i < num_stages; ++i) {
        fill();
    }
    if (norm != nullptr) {
        for (int i = threadIdx.x; i < width / 8; i += THREADS) {
            copy_async_16(norm_start + 16 * i, norm + first_column + 8 * i);
        }
        copy_async_commit();
    }
    wait_for_previous_kernel();

    // x as the product's second operand: lane (g, t) holds columns 8t to 8t + 7 of each of its
    // windows, of row g (and g + 8). The product's own order of k is another, but W's is the same.
    uint4 columns[HALVES][WINDOWS];
    const auto column_of = [=](int window) {  // within the slice
        return window / WINDOWS_A_CHUNK * CHUNK +
               (window % WINDOWS_A_CHUNK * WARPS + warp) * WINDOW + 8 * t;
    };
    const auto load_x = [=](int row, int window) {
        const bool inside = row < m && column_of(window) < width;
        const T* source = x + static_cast<long long>(row) * k + first_column;
        return inside ? load_fresh(source + column_of(window)) : make_uint4(0, 0, 0, 0);
    };
    const auto normalise = [=](uint4& eight, int window, float scale) {
        if (column_of(window) < width) {
            const uint4 factors = load_from_shared(norm_start + 2 * column_of(window));
            eight = normalised<T>(eight, scale, factors);
        }
    };
    // A row's 1 / rms, once scratch.squares has every warp's sum.
    const auto gather_squares = [&] {
        copy_async_wait<0>();
        __syncthreads();
        if constexpr (SLICES > 1) {
            if (threadIdx.x < SLICES * COLUMNS) {
                const int row = threadIdx.x % COLUMNS;
                float sum = 0.0f;
                for (int i = 0; i < WARPS; ++i) {
                    sum += scratch.squares[i][row];
                }
                store_at(threadIdx.x / COLUMNS, &scratch.slice_squares[slice][row], sum);
            }
            arrive_cluster<SLICES>();
            wait_cluster<SLICES>();
        }
    };
    const auto scale_of = [&](int row) {
        float sum = 0.0f;
        if constexpr (SLICES > 1) {
            for (int i = 0; i < SLICES; ++i) {
                sum += scratch.slice_squares[i][row];
            }
        } else {
            for (int i = 0; i < WARPS; ++i) {
                sum += scratch.squares[i][row];
            }
        }
        return row < m ? rsqrtf(sum / static_cast<float>(k) + eps) : 0.0f;
    };

    wait_cluster<SLICES>();  // from here on the others' shared memory may be written
    if (HALVES == 1 && m == 1) {
        // A single row is an eighth of the operand: every lane sees to an eighth of the windows,
        // then hands them to the lanes of row 0.
        constexpr int OWN = (WINDOWS + 7) / 8;
        uint4 own[OWN];
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            own[i] = load_x(0, 8 * i + g);
            sum += sum_of_squares<T>(own[i]);
        }
        if (norm != nullptr) {
            sum = warp_sum(sum);
            if (lane == 0) {
                scratch.squares[warp][0] = sum;
            }
            gather_squares();
            const float scale = scale_of(0);
#pragma unroll
            for (int i = 0; i < OWN; ++i) {
                normalise(own[i], 8 * i + g, scale);
            }
        }
#pragma unroll
        for (int i = 0; i < WINDOWS; ++i) {
            columns[0][i] = from_lane(own[i / 8], i % 8 * 4 + t);
            if (g > 0) {
                columns[0][i] = make_uint4(0, 0, 0, 0);
            }
        }
    } else {
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
#pragma unroll
            for (int i = 0; i < WINDOWS; ++i) {
                columns[half][i] = load_x(8 * half + g, i);
            }
        }
        if (norm != nullptr) {
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                float sum = 0.0f;
#pragma unroll
                for (int i = 0; i < WINDOWS; ++i) {
                    sum += sum_of_squares<T>(columns[half][i]);
                }
                sum += __shfl_xor_sync(FULL_MASK, sum, 1);
                sum += __shfl_xor_sync(FULL_MASK, sum, 2);
                if (t == 0) {
                    scratch.squares[warp][8 * half + g] = sum;
                }
            }
            gather_squares();
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                const float scale = scale_of(8 * half + g);
#pragma unroll
                for (int i = 0; i < WINDOWS; ++i) {
                    normalise(columns[half][i], i, scale);
                }
            }
        }
    }

    // Which element of a tile's sums this thread adds up and, in the owner, writes.
    const int feature = threadIdx.x % TILE, row_of_y = threadIdx.x / TILE;
    const auto place_in_y = [=](int tile) {
        const int output = tile * tile_outputs + feature;
        const bool inside = row_of_y < m && feature < tile_outputs && output < outputs;
        return inside ? static_cast<long long>(row_of_y) * outputs + output : -1ll;
    };

    float residual = 0.0f;
    for (int step = 0; tile_at(step) < tiles; ++step) {
        // A residual is asked for as early as possible: a round's first tile says which.
        const int owned_tile = tile_at(step / SLICES * SLICES + slice);
        const long long place = owned_tile < tiles ? place_in_y(owned_tile) : -1ll;
        if (add && step % SLICES == 0 && place >= 0) {
            residual = to_float(y[place]);
        }

        float sums[HALVES][2][4] = {};
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            if (chunk < chunks) {
                const unsigned stage = ring.wait();
#pragma unroll
                for (int i = 0; i < WINDOWS_A_CHUNK; ++i) {
                    const int window = chunk * WINDOWS_A_CHUNK + i;
                    uint4 low = make_uint4(0, 0, 0, 0), high = low;  // rows g and g + 8 of W
                    if (column_of(window) < width) {
                        const unsigned offset = 2 * (column_of(window) - chunk * CHUNK);
                        low = load_from_shared(stage + RowRing::row_offset(g) + offset);
                        high = load_from_shared(stage + RowRing::row_offset(g + 8) + offset);
                    }
                    const unsigned first[4] = {low.x, high.x, low.y, high.y};
                    const unsigned second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
                    for (int half = 0; half < HALVES; ++half) {
                        const uint4& b = columns[half][window];
                        mma_16816<T>(sums[half][0], first, b.x, b.y);
                        mma_16816<T>(sums[half][1], second, b.z, b.w);
                    }
                }
                ring.release();
                __syncthreads();
                fill();
            }
        }

        // The warps' sums into one, by one thread an element.
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                scratch.partial[warp][8 * half + 2 * t + i % 2][g + i / 2 * 8] =
                    sums[half][0][i] + sums[half][1][i];
            }
        }
        __syncthreads();
        float value = 0.0f;
        if (row_of_y < COLUMNS) {
            for (int i = 0; i < WARPS; ++i) {
                value += scratch.partial[i][row_of_y][feature];
            }
        }

        // The slices' sums into one, in the block that owns the tile.
        if constexpr (SLICES > 1) {
            const int round = step / SLICES % 2;
            if (row_of_y < COLUMNS) {
                store_at(step % SLICES, &scratch.received[round][slice][row_of_y][feature], value);
            }
            if (step % SLICES != SLICES - 1 && tile_at(step + 1) < tiles) {
                continue;
            }
            arrive_cluster<SLICES>();
            wait_cluster<SLICES>();
            value = 0.0f;
            if (row_of_y < COLUMNS) {
                for (int i = 0; i < SLICES; ++i) {
                    value += scratch.received[round][i][row_of_y][feature];
                }
            }
        }

        if (swiglu) {
            // The rows of w1 are the tile's first eight, those of w3 the lanes eight further on.
            const float up = rounded<T>(__shfl_down_sync(FULL_MASK, value, TILE / 2));
            value = rounded<T>(silu(rounded<T>(value))) * up;
        }
        if (place >= 0) {
            y[place] = from_float<T>(value + residual);
        }
    }
}
