// Several blocks that work on one row: a thread-block cluster, or a single block.
//
// Peers reach each other's shared memory by ordinary pointers, once all of them have started; a
// block may leave as soon as nobody will reach into its memory any more.

#pragma once

// The blocks of a row are neighbours in the grid. One architecture knows clusters, the other never
// instantiates more than one block a row.
#if __CUDA_ARCH__ >= 900
#define ROW_BLOCKS(count) __cluster_dims__(count, 1, 1)
#else
#define ROW_BLOCKS(count)
#endif

// Waits for all threads of all the row's blocks; what they wrote before is seen after.
template <int kBlocks>
__device__ __forceinline__ void sync_row() {
    if constexpr (kBlocks == 1) {
        __syncthreads();
    } else {
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
}

// The same variable in the shared memory of the row's block `rank`.
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
