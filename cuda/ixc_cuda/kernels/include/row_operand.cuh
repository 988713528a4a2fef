// Up to COLUMNS rows of x, or a slice of them, in the registers of a block: the second operand of
// all its products, normalised if that is wanted.
//
// Lane (g, t) of a warp holds its columns of each of the warp's windows (weight_tiles.cuh), of rows
// g, g + 8, ...

#pragma once

#include "cluster.cuh"
#include "row_norm.cuh"
#include "weight_tiles.cuh"

constexpr int X_REGISTERS = 128;  // of each thread

template <typename T, int COLUMNS, int SLICES> class RowOperand {
  public:
    static constexpr int OCTETS = COLUMNS / 8;                  // of rows of x
    static constexpr int WINDOWS = X_REGISTERS / (4 * OCTETS);  // of x, in registers
    static constexpr int CHUNKS = WINDOWS / WINDOWS_A_CHUNK;    // at most, of a slice

    struct Scratch {
        float squares[WARPS][COLUMNS];
        float slice_squares[SLICES][COLUMNS];
    };

    // Of the m rows of x (m, k) the columns [first_column, first_column + width), a slice.
    __device__ RowOperand(const T* x, int m, int k, int first_column, int width)
        : x_(x + first_column), m_(m), k_(k), width_(width) {}

    // Where this thread's columns of a window stand in the slice.
    __device__ static int column_of(int window) {
        return window / WINDOWS_A_CHUNK * CHUNK + column_in_chunk(window % WINDOWS_A_CHUNK);
    }

    // As they are; zeros beyond the last row and column.
    __device__ void load() {
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
            const T* row = x_ + static_cast<long long>(row_of(octet)) * k_;
#pragma unroll
            for (int i = 0; i < WINDOWS; ++i) {
                const bool inside = row_of(octet) < m_ && column_of(i) < width_;
                columns[octet][i] = inside ? load_fresh(row + column_of(i)) : uint4{};
            }
        }
    }

    // Each row divided by its root mean square and multiplied by `norm`, the slice's part of which
    // lies in shared memory. All blocks of the cluster.
    __device__ void load_normalised(Scratch& scratch, unsigned norm, float eps, int slice) {
        load();
        const int warp = threadIdx.x / WARP, t = threadIdx.x % 4;
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < WINDOWS; ++i) {
                if (is_used(i)) {
                    sum += sum_of_squares<T>(columns[octet][i]);
                }
            }
            sum += __shfl_xor_sync(FULL_MASK, sum, 1);
            sum += __shfl_xor_sync(FULL_MASK, sum, 2);
            if (t == 0) {
                scratch.squares[warp][row_of(octet)] = sum;
            }
        }
        gather(scratch, slice);
#pragma unroll
        for (int octet = 0; octet < OCTETS; ++octet) {
            const float scale = scale_of(scratch, row_of(octet), eps);
#pragma unroll
            for (int i = 0; i < WINDOWS; ++i) {
                if (is_used(i) && column_of(i) < width_) {
                    const uint4 weights = load_from_shared(norm + 2 * column_of(i));
                    columns[octet][i] = normalised<T>(columns[octet][i], scale, weights);
                }
            }
        }
    }

    uint4 columns[OCTETS][WINDOWS];

  private:
    __device__ static int row_of(int octet) { return 8 * octet + threadIdx.x % WARP / 4; }

    // Whether a window lies in one of the slice's chunks: the same for all threads.
    __device__ bool is_used(int window) const { return window / WINDOWS_A_CHUNK * CHUNK < width_; }

    // Add up the warps' sums of squares, and tell all blocks of the cluster.
    __device__ static void gather(Scratch& scratch, int slice) {
        __syncthreads();
        if (threadIdx.x < SLICES * COLUMNS) {
            const int row = threadIdx.x % COLUMNS;
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) {
                sum += scratch.squares[i][row];
            }
            *in_block<SLICES>(&scratch.slice_squares[slice][row], threadIdx.x / COLUMNS) = sum;
        }
        sync_cluster<SLICES>();
    }

    __device__ float scale_of(const Scratch& scratch, int row, float eps) const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < SLICES; ++i) {
            sum += scratch.slice_squares[i][row];
        }
        return row < m_ ? rsqrtf(sum / static_cast<float>(k_) + eps) : 0.0f;
    }

    const T* x_;
    int m_, k_, width_;
};
