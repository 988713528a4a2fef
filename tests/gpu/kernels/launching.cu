// Kernels that show what a launch brings with it; tests/gpu/test_launching.py says what they must
// see. Each runs in a handful of threads: nothing here is about speed.

struct alignas(64) TensorMap {
    unsigned long long words[16];
};

// One parameter of every kind, written to `seen` one after another. The parameter map's address
// must be a multiple of 64 for the copy engine.
template <int N>
__global__ void arguments(
    long long* seen, const void* null, int a, long long b, float c, double d, unsigned char e,
    unsigned long long f, bool g, const __grid_constant__ TensorMap map, short h) {
    seen[0] = null == nullptr;
    seen[1] = a;
    seen[2] = b;
    seen[3] = static_cast<long long>(c * 2);
    seen[4] = static_cast<long long>(d * 2);
    seen[5] = e;
    seen[6] = static_cast<long long>(f);
    seen[7] = g;
    seen[8] = static_cast<long long>(map.words[15]);
    seen[9] = static_cast<long long>(reinterpret_cast<unsigned long long>(&map) % 64);
    seen[10] = h;
    seen[11] = N;
}

// reversed[i] = count - 1 - i, by way of `count` floats of shared memory.
__global__ void through_shared_memory(float* reversed, int count) {
    extern __shared__ float room[];
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        room[i] = static_cast<float>(i);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        reversed[i] = room[count - 1 - i];
    }
}

// next[i] = previous[i] + 1, and the kernel behind may start before this one ends.
__global__ void increment(float* next, const float* previous, int count) {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        next[i] = previous[i] + 1;
    }
}

// The box at (row, column) of a matrix of 16-bit words, as the copy engine leaves it in shared
// memory.
__global__ void copy_box(
    unsigned short* out, const __grid_constant__ TensorMap map, int row, int column, int count) {
    extern __shared__ __align__(1024) unsigned short box[];
    __shared__ alignas(8) unsigned long long barrier;
    const unsigned at = __cvta_generic_to_shared(&barrier);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(count * 2)
                     : "memory");
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
            " [%0], [%1, {%2, %3}], [%4];" ::"r"(
                static_cast<unsigned>(__cvta_generic_to_shared(box))),
            "l"(&map), "r"(column), "r"(row), "r"(at)
            : "memory");
    }
    int arrived = 0;
    while (!arrived) {
        asm volatile(
            "{ .reg .pred p;"
            "  mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;"
            "  selp.b32 %0, 1, 0, p; }"
            : "=r"(arrived)
            : "r"(at)
            : "memory");
    }
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        out[i] = box[i];
    }
}
