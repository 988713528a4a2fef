// W (n, k) as tiles of TILE rows; where W is w1 over w3, of half as many rows of each. And how a warp
// reads them out of the ring.

#pragma once

#include "mma.cuh"
#include "row_ring.cuh"

constexpr int TILE = RING_ROWS;
constexpr int WINDOW = 32;  // columns that a warp multiplies at a time: 16 bytes a lane
constexpr int WINDOWS_A_CHUNK = CHUNK / (WARPS * WINDOW);  // of one warp

static_assert(CHUNK % (WARPS * WINDOW) == 0, "every warp has whole windows of a chunk");
static_assert(row_offset(8) == 4 * ROW_BYTES, "rows g and g + 8: as far apart for all g");

struct WeightTiles {
    int outputs, outputs_a_tile, count;

    __device__ WeightTiles(int n, bool swiglu)
        : outputs(swiglu ? n / 2 : n), outputs_a_tile(swiglu ? TILE / 2 : TILE),
          count((outputs + outputs_a_tile - 1) / outputs_a_tile) {}

    // The row of W that is row `i` of a tile; past the end the last one again, which is not written.
    __device__ long long row(int tile, int i) const {
        const bool of_w3 = i >= outputs_a_tile;
        return min(tile * outputs_a_tile + i % outputs_a_tile, outputs - 1) +
               (of_w3 ? outputs : 0);
    }
};

// Lane (g, t) of a warp (g = lane / 4, t = lane % 4) multiplies columns 8t to 8t + 7 of rows g and
// g + 8 of the tile. Where its part of the warp's i-th window of a chunk stands in the chunk:
__device__ __forceinline__ int column_in_chunk(int i) {
    const int warp = threadIdx.x / WARP, t = threadIdx.x % 4;
    return (i * WARPS + warp) * WINDOW + 8 * t;
}

// What a lane reads of a window is the first operand of two products of sixteen columns each: the
// order of columns in a product is free, as long as x's is the same.
struct Window {
    unsigned first[4], second[4];

    // `place` is of row g of the tile; zeros where the columns are not `inside`.
    __device__ Window(unsigned place, bool inside) {
        uint4 low{}, high{};
        if (inside) {
            low = load_from_shared(place);
            high = load_from_shared(place + row_offset(8));
        }
        first[0] = low.x, first[1] = high.x, first[2] = low.y, first[3] = high.y;
        second[0] = low.z, second[1] = high.z, second[2] = low.w, second[3] = high.w;
    }
};
