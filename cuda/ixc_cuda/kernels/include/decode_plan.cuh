// How the work of paged decode attention is divided: written by decode_plan.cu once a step, read by
// decode_attention.cu in every layer.
//
// A sequence is cut into tiles of `kTileSlots` slots, the last one partly filled. The tiles of all
// sequences, in order, are divided evenly among the workers; a worker's tiles are consecutive:
//
//     sequences   |0 0 0 0 0|1|2 2 2 2 2 2|         tiles of three sequences
//     workers     |0 0 0|1 1 1|2 2 2|3 3 3|
//
// A sequence that several workers share is finished by whoever comes last (its span says how many
// there are). So a worker finishes whole sequences, except perhaps the first and the last it has.

#pragma once

constexpr int kTileSlots = 64;

// A worker's tiles.
struct alignas(16) Share {
    int sequence;    // of the first tile
    int first_tile;  // within that sequence
    int tiles;       // of this sequence and those behind it; 0 where there is nothing to do
    int length;      // slots of that sequence
};

// The workers that share a sequence.
struct alignas(8) Span {
    int first_worker;
    int workers;  // 0 for an absent sequence
};

__device__ __forceinline__ int tiles_of(int length) {
    return length > 0 ? (length - 1) / kTileSlots + 1 : 0;
}
