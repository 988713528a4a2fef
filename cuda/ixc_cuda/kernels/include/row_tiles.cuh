// TILE rows of a matrix by COLUMNS gathered vectors, over a range of k: sums by the tensor cores,
// from a ring of shared memory that cp.async fills.
//
// A stage holds CHUNK columns of both, a row after the other. A lane reads 16 bytes of a row at a
// time, as operands of two products: which k the tensor cores take them for does not matter, as it
// is the same on both sides. Odd rows have their pieces of 64 bytes swapped in pairs, so that eight
// lanes that read 64 bytes each of two neighbouring rows meet all 32 banks once.
//
// The warps share the tile: WARPS_M parts of its rows, WARPS_N of the vectors; where that leaves
// warps over they share each chunk's columns.

#pragma once

#include "mma.cuh"
#include "vectors.cuh"

enum : int { WARPS = 8, THREADS = WARPS * WARP, WINDOW = 32 };

template <typename T, int TILE_, int COLUMNS_, int CHUNK_, int STAGES_, int WARPS_M, int WARPS_N>
class RowTiles {
  public:
    static constexpr int TILE = TILE_, COLUMNS = COLUMNS_, CHUNK = CHUNK_, STAGES = STAGES_;
    static constexpr int SHARES = WARPS / (WARPS_M * WARPS_N);  // of a chunk's columns
    static constexpr int STAGE_BYTES = (TILE + COLUMNS) * CHUNK * 2;
    static constexpr int PITCH = TILE + 4;  // of the sums in shared memory: free of bank conflicts
    static constexpr int SUMS_BYTES = SHARES * COLUMNS * PITCH * 4;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES;
    static_assert(SUMS_BYTES <= SHARED_BYTES, "the sums take the ring's place");
    static_assert(CHUNK % (SHARES * WINDOW) == 0 && CHUNK % (2 * WINDOW) == 0, "whole windows");

    // `shared` is SHARED_BYTES, aligned to 128. Weights are rows of `pitch` elements, of which
    // those beyond num_rows are zeros; columns [first, end) are summed over, multiples of 8.
    __device__ RowTiles(unsigned char* shared, const T* weights, int num_rows, int pitch, int first,
                        int end)
        : shared_(shared), end_(end), first_(first), weights_(weights) {
#pragma unroll
        for (int i = 0; i < WEIGHT_COPIES; ++i) {
            const int row = row_of(i);
            valid_ |= (row < num_rows) << i;
            weight_places_[i] = row < num_rows ? row * pitch : 0;
        }
    }

    __device__ int chunks() const { return (end_ - first_ + CHUNK - 1) / CHUNK; }

    // Weights may be asked for before the vectors are there: of the first STAGES - 1 chunks.
    __device__ void begin_weights() {
#pragma unroll 1
        for (int chunk = 0; chunk < STAGES - 1; ++chunk) {
            copy_weights(chunk);
        }
    }

    // The vectors are rows of `x`, of `pitch` elements: `which` of them, or the first ones where
    // that is null; those beyond num_vectors are zeros.
    __device__ void begin_vectors(const T* x, int pitch, const int* which, int num_vectors) {
        vectors_ = x;
#pragma unroll
        for (int i = 0; i < VECTOR_COPIES; ++i) {
            const int vector = row_of(i);
            const bool valid = vector < num_vectors;
            const int row = !valid ? 0 : which != nullptr ? which[vector] : vector;
            valid_ |= valid << (WEIGHT_COPIES + i);
            vector_places_[i] = row * pitch;
        }
#pragma unroll 1
        for (int chunk = 0; chunk < STAGES - 1; ++chunk) {
            copy_vectors(chunk);
            copy_async_commit();
        }
    }

    // Sum over all chunks and leave the sums in shared memory; see `sums`.
    __device__ void multiply() {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        const int g = lane / 4, t = lane % 4;
        const int share = warp / (WARPS_M * WARPS_N), part = warp % (WARPS_M * WARPS_N);
        const int first_row = part % WARPS_M * (TILE / WARPS_M);
        const int first_vector = part / WARPS_M * (COLUMNS / WARPS_N);

        float sums[ROW_TILES][VECTOR_TILES][4] = {};
        const int num_chunks = chunks();
#pragma unroll 1
        for (int chunk = 0; chunk < num_chunks; ++chunk) {
            copy_async_wait<STAGES - 2>();
            __syncthreads();  // the chunk is there for all, and all have read the one before it
            copy_weights(chunk + STAGES - 1);
            copy_vectors(chunk + STAGES - 1);
            copy_async_commit();

            const unsigned stage = shared_address(shared_) + chunk % STAGES * STAGE_BYTES;
#pragma unroll 1
            for (int i = 0; i < CHUNK / WINDOW / SHARES; ++i) {
                const int window = i * SHARES + share;
                uint4 vectors[VECTOR_TILES];
#pragma unroll
                for (int v = 0; v < VECTOR_TILES; ++v) {
                    vectors[v] = load(stage + place(TILE + first_vector + 8 * v + g, window, t));
                }
#pragma unroll
                for (int r = 0; r < ROW_TILES; ++r) {
                    const uint4 low = load(stage + place(first_row + 16 * r + g, window, t));
                    const uint4 high = load(stage + place(first_row + 16 * r + g + 8, window, t));
                    const unsigned left[4] = {low.x, high.x, low.y, high.y};
                    const unsigned right[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
                    for (int v = 0; v < VECTOR_TILES; ++v) {
                        mma_16816<T>(sums[r][v], left, vectors[v].x, vectors[v].y);
                        mma_16816<T>(sums[r][v], right, vectors[v].z, vectors[v].w);
                    }
                }
            }
        }
        copy_async_wait<0>();
        __syncthreads();
        float* place = reinterpret_cast<float*>(shared_) + share * COLUMNS * PITCH;
#pragma unroll
        for (int r = 0; r < ROW_TILES; ++r) {
#pragma unroll
            for (int v = 0; v < VECTOR_TILES; ++v) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int vector = first_vector + 8 * v + 2 * t + i % 2;
                    place[vector * PITCH + first_row + 16 * r + g + i / 2 * 8] = sums[r][v][i];
                }
            }
        }
        __syncthreads();
    }

    // Of eight rows of the tile, from a multiple of eight on, and one vector, over all columns;
    // always in the same order.
    __device__ void sums(int row, int vector, float (&totals)[8]) const {
        const float* place = reinterpret_cast<const float*>(shared_) + vector * PITCH + row;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float4 total = *reinterpret_cast<const float4*>(place + 4 * half);
#pragma unroll
            for (int share = 1; share < SHARES; ++share) {
                const float4 more =
                    *reinterpret_cast<const float4*>(place + share * COLUMNS * PITCH + 4 * half);
                total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
            }
            totals[4 * half] = total.x, totals[4 * half + 1] = total.y;
            totals[4 * half + 2] = total.z, totals[4 * half + 3] = total.w;
        }
    }

  private:
    static constexpr int PIECES = CHUNK / 8;  // of 16 bytes, of a row
    static constexpr int WEIGHT_COPIES = TILE * PIECES / THREADS;
    static constexpr int VECTOR_COPIES = COLUMNS * PIECES / THREADS;
    static constexpr int ROW_TILES = TILE / WARPS_M / 16, VECTOR_TILES = COLUMNS / WARPS_N / 8;
    static_assert(THREADS % PIECES == 0, "a thread copies the same columns of several rows");

    __device__ static int row_of(int copy) {
        return static_cast<int>(threadIdx.x) / PIECES + copy * (THREADS / PIECES);
    }

    // Of 16 bytes, within a stage; vectors stand behind the weights.
    __device__ static unsigned place(int row, int window, int quarter) {
        return row * (CHUNK * 2) + (window ^ (row & 1)) * (2 * WINDOW) + 16 * quarter;
    }

    __device__ static uint4 load(unsigned address) {
        uint4 v;
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(address)
                     : "memory");
        return v;
    }

    template <int COPIES>
    __device__ void copy(int chunk, const T* matrix, const int (&places)[COPIES], unsigned valid,
                         int first_row) const {
        const int piece = threadIdx.x % PIECES;
        const int column = first_ + chunk * CHUNK + 8 * piece;
        if (chunk >= chunks()) {
            return;
        }
        const unsigned stage = shared_address(shared_) + chunk % STAGES * STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const bool inside = column < end_;
            copy_async_16(stage + place(first_row + row_of(i), piece / 4, piece % 4),
                          matrix + places[i] + (inside ? column : 0),
                          inside && (valid >> i & 1));
        }
    }

    __device__ void copy_weights(int chunk) const {
        copy(chunk, weights_, weight_places_, valid_, 0);
    }
    __device__ void copy_vectors(int chunk) const {
        copy(chunk, vectors_, vector_places_, valid_ >> WEIGHT_COPIES, TILE);
    }

    unsigned char* shared_;
    int end_, first_;
    unsigned valid_ = 0;  // a bit a copy: whether there is such a row
    const T *weights_, *vectors_;
    int weight_places_[WEIGHT_COPIES], vector_places_[VECTOR_COPIES];  // of rows
};
