// From logits to probabilities as integers, whose sums are the same in whatever order they come.
//
//     scaled(x) = (x - largest) / temperature      float32, each step rounded once; at least -40
//     mass(s)   = floor(2^46 exp(s))               the largest logit has 2^46, and 2^17 of them fit
//
// Both never fall as x grows, so a threshold on one is a threshold on the other.

#pragma once

using u64 = unsigned long long;

constexpr int kMassBits = 46;
constexpr int kMostTokens = 1 << 17;
constexpr float kNoMass = -40.0f;  // exp(-40) < 2^-46: such a token is never drawn

// A scaled logit's place in the order: 0 is the best. Bits of non-negative floats sort as integers.
__device__ __forceinline__ unsigned rank_key(float scaled) {
    return __float_as_uint(fabsf(scaled));
}

__device__ __forceinline__ float scaled_of(unsigned key) { return -__uint_as_float(key); }

struct Scale {
    float largest, temperature, inverse;

    __device__ __forceinline__ Scale(float largest, float temperature)
        : largest(largest), temperature(temperature), inverse(__frcp_rn(temperature)) {}

    // The quotient is rounded correctly: one correction by the exact remainder. What overflows on
    // the way, and minus infinity, ends as NaN, for which fmaxf gives the other.
    __device__ __forceinline__ float operator()(float x) const {
        const float distance = __fsub_rn(x, largest);
        const float guess = __fmul_rn(distance, inverse);
        const float remainder = __fmaf_rn(-temperature, guess, distance);
        return fmaxf(__fmaf_rn(remainder, inverse, guess), kNoMass);
    }
};

__device__ __forceinline__ float weight_of(float scaled) { return expf(scaled); }

__device__ __forceinline__ u64 mass_of_weight(float weight) {
    const unsigned bits = __float_as_uint(weight);  // 2^(exponent - 127) * 1.fraction, at most 1
    const u64 fraction = (bits & 0x7fffff) | 0x800000;
    return (fraction << (kMassBits - 23)) >> min(127 - (bits >> 23), 63u);
}

__device__ __forceinline__ u64 mass_of(float scaled) { return mass_of_weight(weight_of(scaled)); }

// The least mass of a descending run that makes a nucleus.
__device__ __forceinline__ u64 nucleus_mass(double top_p, u64 total) {
    if (top_p >= 1) return total;
    const u64 wanted = static_cast<u64>(ceil(top_p * static_cast<double>(total)));
    return max(min(wanted, total), 1ull);
}

// floor(u * total) for u = uniform(seed, position, sample): 53 bits of Philox4x32-10.
__device__ __forceinline__ u64 drawn_mass(u64 seed, unsigned position, unsigned sample, u64 total) {
    unsigned c0 = position, c1 = sample, c2 = 0, c3 = 0;
    unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const u64 bits = ((static_cast<u64>(c0) << 32) | c1) >> 11;
    return (__umul64hi(bits, total) << 11) | ((bits * total) >> 53);
}
