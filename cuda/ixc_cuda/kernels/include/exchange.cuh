// Four floats at a time from one block of a cluster into the shared memory of another (sm_90).
//
// What was stored is seen once both have passed a barrier of the cluster (cluster.cuh).

#pragma once

// Where `local` of this block lies in another block of the cluster.
__device__ __forceinline__ unsigned address_in(int block, unsigned local) {
    unsigned remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(local), "r"(block));
    return remote;
}

__device__ __forceinline__ void store_at(unsigned address, float a, float b, float c, float d) {
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(address), "f"(a), "f"(b), "f"(c), "f"(d)
                 : "memory");
}

__device__ __forceinline__ float4 load_sums(unsigned address) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}
