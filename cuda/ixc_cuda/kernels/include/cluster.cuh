// Several blocks that work on one thing: a thread-block cluster, or a single block.
//
// Peers reach each other's shared memory by ordinary pointers, once all of them have started; a
// block may leave as soon as nobody will reach into its memory any more.

#pragma once

// The blocks of a cluster are neighbours in the grid. One architecture knows clusters, the other
// never instantiates more than one block.
#if __CUDA_ARCH__ >= 900
#define CLUSTER_OF(count) __cluster_dims__(count, 1, 1)
#else
#define CLUSTER_OF(count)
#endif

// The two halves of a barrier of all threads of all the cluster's blocks; what they wrote before
// the first half is seen after the second. Of a single block: nothing.
template <int kBlocks>
__device__ __forceinline__ void arrive_cluster() {
    if constexpr (kBlocks > 1) {
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    }
}

template <int kBlocks>
__device__ __forceinline__ void wait_cluster() {
    if constexpr (kBlocks > 1) {
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
}

// Both at once; of a single block a __syncthreads.
template <int kBlocks>
__device__ __forceinline__ void sync_cluster() {
    if constexpr (kBlocks == 1) {
        __syncthreads();
    } else {
        arrive_cluster<kBlocks>();
        wait_cluster<kBlocks>();
    }
}

// The same variable in the shared memory of the cluster's block `rank`.
template <int kBlocks, typename T>
__device__ __forceinline__ T* in_block(T* variable, int rank) {
    if constexpr (kBlocks == 1) {
        return variable;
    } else {
        unsigned long long mapped;
        asm("mapa.u64 %0, %1, %2;"
            : "=l"(mapped)
            : "l"(reinterpret_cast<unsigned long long>(variable)), "r"(rank));
        return reinterpret_cast<T*>(mapped);
    }
}
