// What a decode step needs to know of its sequences, looked up by their places.
//
//     inputs        (3, rows) int64: place, context with the new token, the token; one below 0 is
//                   the place's last one, a context of 0 nobody's row
//     page_tables   (places, pages) int32        last_ids (places) int64
//     frequencies   (places, half) float32
//
//     token_ids     (rows) int64                 context_lengths (rows) int32
//     slots         (rows) int64: of the new token's key and value; -1 for nobody
//     tables        (rows, pages) int32: of each row's pages, as many as its context has
//     cos, sin      (rows, half) float32: of position * frequency
//
// Grid: a block a row. Bound by its launch: a few hundred bytes a row.

#include "vectors.cuh"

constexpr int PLACE = 0, CONTEXT = 1, TOKEN = 2;

__global__ void step_inputs(const long long* inputs, const int* page_tables,
                            const float* frequencies, const long long* last_ids,
                            long long* token_ids, int* context_lengths, long long* slots,
                            int* tables, float* cos, float* sin, int stride, int pages,
                            int page_size, int half) {
    const int row = blockIdx.x;
    allow_next_kernel();
    wait_for_previous_kernel();
    const long long place = inputs[PLACE * stride + row];
    const int context = static_cast<int>(inputs[CONTEXT * stride + row]);
    const int index = max(context - 1, 0);
    const int* pages_of_place = page_tables + place * pages;

    if (threadIdx.x == 0) {
        const long long token = inputs[TOKEN * stride + row];
        token_ids[row] = token >= 0 ? token : last_ids[place];
        context_lengths[row] = context;
        const long long page = pages_of_place[index / page_size];
        slots[row] = context > 0 ? page * page_size + index % page_size : -1;
    }
    for (int i = threadIdx.x; i < (context + page_size - 1) / page_size; i += blockDim.x) {
        tables[static_cast<long long>(row) * pages + i] = pages_of_place[i];
    }
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        // The angle is rounded once, as the reference rounds it: no fused multiplication here.
        const float angle = __fmul_rn(static_cast<float>(index), frequencies[place * half + i]);
        cos[row * half + i] = cosf(angle);
        sin[row * half + i] = sinf(angle);
    }
}
