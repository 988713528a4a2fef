// The stages of sampling one row, as `sampling.cu` puts them together. Each is called by all
// threads of a block.

#pragma once

#include "sampling_block.cuh"

// ---- few candidates: the usual case

// A logit that about `wanted` of the groups' best reach, so that at least as many tokens do; or the
// logit under which no token has any mass.
__device__ __forceinline__ float candidates_floor(const Shared& shared, int wanted,
                                                  const Scale& scale) {
    const float mine = shared.group_best[threadIdx.x];
    float low = scale.largest + kNoMass * scale.temperature, high = scale.largest;
#pragma unroll 1
    for (int round = 0; round < 24; ++round) {
        const float middle = low + 0.5f * (high - low);
        const int reached = __syncthreads_count(mine >= middle);
        if (reached >= wanted) {
            low = middle;
            if (reached <= wanted + wanted / 8) break;
        } else {
            high = middle;
        }
    }
    return low;
}

// Hands the row's first block every token of this warp's range that reaches the floor, and, where
// `all_mass`, the mass of the whole range.
template <int kBlocks, typename AnyRow>
__device__ __forceinline__ void collect(Shared& shared, const AnyRow& row, WarpRange range,
                                        int row_warp, const Scale& scale, float floor,
                                        bool all_mass) {
    const float scaled_floor = scale(floor);
    // Division rounds: a little below the floor a scaled logit may still equal the floor's.
    const float surely_below = floor - 1e-5f * (scale.largest - floor);
    Candidate* candidates = in_block<kBlocks>(shared.candidates, 0);
    unsigned* num_candidates = in_block<kBlocks>(&shared.num_candidates, 0);
    u64 total = 0;
    walk(row, range, [&](int vector, float (&x)[kVector]) {
        row.edit(vector, x);
        unsigned reaching = 0;
#pragma unroll
        for (int i = 0; i < kVector; ++i) reaching |= (x[i] >= surely_below) << i;
        for (; reaching != 0; reaching &= reaching - 1) {
            const int which = __ffs(reaching) - 1;
            const float scaled = scale(pick(x, which));
            const u64 mass = mass_of(scaled);
            if (scaled < scaled_floor || mass == 0) continue;
            const unsigned place = atomicAdd(num_candidates, 1);
            if (place >= kCandidates) continue;
            candidates[place] = {rank_key(scaled), vector * kVector + which, mass};
        }
        if (!all_mass) return;
#pragma unroll
        for (int i = 0; i < kVector; ++i) total += mass_of(scale(x[i]));
    });
    if (all_mass) {
        total = warp_sum(total);
        if (threadIdx.x % 32 == 0) in_block<kBlocks>(shared.warp_mass, 0)[row_warp] = total;
    }
}

// Each candidate finds out for itself whether it may be drawn, from the number and the mass of the
// better ones; `draw` says which mass is meant, of the sum that is left. `chosen(id)` is called by
// the thread of the token drawn. False where tokens beyond the candidates might be needed.
template <typename Draw, typename Chosen>
__device__ __forceinline__ bool settle(Shared& shared, u64 row_mass, float scaled_floor,
                                       Draw draw, Chosen chosen) {
    const SlotSettings& rules = shared.settings;
    const int count = shared.num_candidates;
    if (count > kCandidates) return false;

    // As many threads to a candidate as there are: a power of two of one warp.
    int shares = 1;
    while (shares < 32 && 2 * shares * count <= kThreads) shares *= 2;
    const int which = threadIdx.x / shares, share = threadIdx.x % shares;
    const bool present = which < count;
    const Candidate mine = present ? shared.candidates[which] : Candidate{0, 0, 0};

    u64 mass_above = 0;
    int above = 0;
    for (int other = share; present && other < count; other += shares) {
        const Candidate candidate = shared.candidates[other];
        if (candidate.key < mine.key) {
            mass_above += candidate.mass;
            ++above;
        }
    }
    mass_above = sum_over(shares, mass_above);
    above = sum_over(shares, above);

    bool kept = present && (rules.top_k == 0 || above < rules.top_k);
    const u64 listed = block_sum(shared, kept && share == 0 ? mine.mass : 0);
    if (rules.top_k == 0) {
        // Whatever is not listed is below the floor: is it outside the nucleus, or below min_p?
        const bool nucleus_listed = listed >= nucleus_mass(rules.top_p, row_mass);
        if (!nucleus_listed && weight_of(scaled_floor) >= rules.min_p) return false;
    } else {
        row_mass = listed;
    }
    kept = kept && mass_above < nucleus_mass(rules.top_p, row_mass) &&
           weight_of(scaled_of(mine.key)) >= rules.min_p;

    // The draw, in order of id: what is left of the mass, and how much of it lies in front.
    const u64 left = block_sum(shared, kept && share == 0 ? mine.mass : 0);
    if (present && share == 0 && !kept) shared.candidates[which].mass = 0;
    __syncthreads();
    u64 before = 0;
    for (int other = share; present && other < count; other += shares) {
        const Candidate candidate = shared.candidates[other];
        if (candidate.id < mine.id) before += candidate.mass;
    }
    before = sum_over(shares, before);
    const u64 target = draw(left);
    if (kept && share == 0 && before <= target && target - before < mine.mass) chosen(mine.id);
    return true;
}

// ---- many candidates

__device__ __forceinline__ void add_to_bin(Shared& shared, int bin, u64 weight, int parts) {
    const int column = threadIdx.x % kColumns;
    for (int part = 0; part < parts; ++part) {
        atomicAdd(&shared.bins[part][bin][column],
                  static_cast<unsigned>(weight >> part * kPartBits) & ((1 << kPartBits) - 1));
    }
}

// The key of the token at which the weights, summed from the best token down, reach
// `wanted(sum of all)`: digit by digit from the highest. Keys beyond `limit` do not count.
template <int kBlocks, typename AnyRow, typename Wanted>
__device__ __forceinline__ unsigned select_key(Shared& shared, const AnyRow& row, WarpRange range,
                                               int rank, const Scale& scale, unsigned limit,
                                               bool by_mass, Wanted wanted) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned prefix = 0;
    u64 missing = 0;
#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
        unsigned* cells = reinterpret_cast<unsigned*>(shared.bins);
        for (int i = threadIdx.x; i < 3 * kBins * kColumns; i += kThreads) cells[i] = 0;
        sync_cluster<kBlocks>();  // and nobody reads the last digit's sums any more
        walk(row, range, [&](int vector, float (&x)[kVector]) {
            row.edit(vector, x);
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                const float scaled = scale(x[i]);
                const unsigned key = rank_key(scaled);
                // Two shifts: one by 32 would be undefined.
                if (key > limit || key >> shift >> 8 != prefix) continue;
                const int bin = key >> shift & (kBins - 1);
                if (by_mass) {
                    add_to_bin(shared, bin, mass_of(scaled), 3);
                } else {
                    add_to_bin(shared, bin, 1, 1);
                }
            }
        });
        __syncthreads();

        // Each block tells all of the row's its own sums.
        for (int bin = warp; bin < kBins; bin += kWarps) {
            u64 sum = 0;
            if (lane < kColumns) {
                for (int part = 0; part < 3; ++part) {
                    sum += static_cast<u64>(shared.bins[part][bin][lane]) << part * kPartBits;
                }
            }
            sum = warp_sum(sum);
            if (lane < kBlocks) in_block<kBlocks>(&shared.bin_sums[rank][bin], lane)[0] = sum;
        }
        sync_cluster<kBlocks>();
        u64 in_bin = 0;
        for (int block = 0; block < kBlocks && threadIdx.x < kBins; ++block) {
            in_bin += shared.bin_sums[block][threadIdx.x];
        }
        if (shift == 24) missing = wanted(block_sum(shared, in_bin));
        const u64 before = block_sum_before(shared, in_bin);
        if (before < missing && missing <= before + in_bin) {
            shared.found_digit = threadIdx.x;
            shared.found_before = before;
        }
        __syncthreads();
        prefix = prefix << 8 | shared.found_digit;
        missing -= shared.found_before;
    }
    return prefix;
}

// Draws among all tokens of the row whose key is at most `limit` and that reach min_p: first the
// mass of each warp's range, then, in the one range where the drawn mass lies, the token.
template <int kBlocks, typename AnyRow, typename Draw, typename Chosen>
__device__ __forceinline__ void draw_from_row(Shared& shared, const AnyRow& row, WarpRange range,
                                              int row_warp, const Scale& scale, unsigned limit,
                                              float min_p, Draw draw, Chosen chosen) {
    constexpr int kRowWarps = kWarps * kBlocks;
    const int lane = lane_read_anew();
    const auto kept_mass = [&](float x) -> u64 {
        const float scaled = scale(x), weight = weight_of(scaled);
        return rank_key(scaled) <= limit && weight >= min_p ? mass_of_weight(weight) : 0;
    };

    u64 own = 0;
    walk(row, range, [&](int vector, float (&x)[kVector]) {
        row.edit(vector, x);
#pragma unroll
        for (int i = 0; i < kVector; ++i) own += kept_mass(x[i]);
    });
    own = warp_sum(own);
    if (lane < kBlocks) in_block<kBlocks>(shared.warp_mass, lane)[row_warp] = own;
    sync_cluster<kBlocks>();

    u64 in_front = 0, total = 0;
    for (int warp = lane; warp < kRowWarps; warp += 32) {
        total += shared.warp_mass[warp];
        if (warp < row_warp) in_front += shared.warp_mass[warp];
    }
    in_front = warp_sum(in_front);
    const u64 target = draw(warp_sum(total));
    if (target < in_front || target - in_front >= own) return;

    u64 missing = target - in_front;
    for (int first = range.begin; first < range.end; first += 32) {
        const int vector = first + lane;
        float x[kVector];
        u64 of_vector = 0;
        if (vector < range.end) {
            row.unpack(row.packed(vector), vector, x);
            row.edit(vector, x);
#pragma unroll
            for (int i = 0; i < kVector; ++i) of_vector += kept_mass(x[i]);
        }
        const u64 inclusive = inclusive_in_warp(of_vector);
        const u64 of_warp = __shfl_sync(kWholeWarp, inclusive, 31);
        if (missing >= of_warp) {
            missing -= of_warp;
            continue;
        }
        u64 before = inclusive - of_vector;
        if (missing < before || missing >= inclusive) return;
        for (int i = 0; i < kVector; ++i) {
            const u64 mass = kept_mass(pick(x, i));
            if (missing - before < mass) {
                chosen(vector * kVector + i);
                return;
            }
            before += mass;
        }
    }
}
