/* The emulator's machine: memory, and fibers for the threads of a block. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

emulated_thread emulated_now;
unsigned char *emulated_shared;

/* --- fibers: a switch of stacks; swapcontext would make a system call each time --- */

#ifndef __x86_64__
#error "the emulator's fibers are written for x86-64"
#endif
extern "C" void fiber_switch(void **save, void *load);
asm(R"(
.text
.type fiber_switch, @function
fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fiber_switch, .-fiber_switch
)");

namespace {
constexpr size_t STACK_BYTES = 96 * 1024, WARP = 32;

struct barrier {
    size_t arrived = 0, generation = 0;
};

struct warp {
    barrier gate;
    size_t alive = 0;
    unsigned char slots[32][16];
};

struct fiber {
    void *stack = nullptr; /* its top while the fiber rests */
    dim3 thread;
    bool done = true;
};

std::vector<fiber> fibers;
std::vector<unsigned char> stacks;
std::vector<warp> warps;
barrier block_gate;
size_t alive, current;
int any_now, any_before;
void *scheduler;
const std::function<void()> *body;

[[noreturn]] void die(const char *text)
{
    std::fprintf(stderr, "emulator: %s\n", text);
    std::abort();
}

void fiber_main()
{
    (*body)();
    fiber &self = fibers[current];
    self.done = true;
    alive--;
    warp &mine = warps[current / WARP];
    mine.alive--;
    /* Threads that left do not hold up those that wait. */
    if (mine.alive > 0 && mine.gate.arrived == mine.alive) {
        mine.gate.arrived = 0;
        mine.gate.generation++;
    }
    if (alive > 0 && block_gate.arrived == alive) {
        block_gate.arrived = 0;
        block_gate.generation++;
    }
    fiber_switch(&self.stack, scheduler);
    die("a fiber that was done ran on");
}

/* A stack on which fiber_switch finds six registers and the address of fiber_main. */
void *stack_make(unsigned char *from)
{
    void **top = (void **)(((uintptr_t)from + STACK_BYTES) / 16 * 16);
    *--top = nullptr; /* as if fiber_main had been called */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    return top;
}

void wait(barrier &gate, size_t expected)
{
    const size_t generation = gate.generation;
    if (++gate.arrived == expected) {
        gate.arrived = 0;
        gate.generation++;
        return;
    }
    while (gate.generation == generation) {
        emulated_thread kept = emulated_now;
        fiber_switch(&fibers[current].stack, scheduler);
        emulated_now = kept;
    }
}

void run_block(size_t threads)
{
    alive = threads;
    block_gate = barrier();
    any_now = any_before = 0;
    for (size_t w = 0; w < warps.size(); w++) {
        warps[w].gate = barrier();
        warps[w].alive = std::min(WARP, threads - w * WARP);
    }
    const emulated_thread base = emulated_now;
    for (size_t t = 0; t < threads; t++) {
        fiber &f = fibers[t];
        f.stack = stack_make(stacks.data() + t * STACK_BYTES);
        f.done = false;
    }
    size_t before = SIZE_MAX, generations = 0;
    while (alive > 0) {
        for (current = 0; current < threads; current++) {
            if (fibers[current].done)
                continue;
            emulated_now = base;
            emulated_now.thread = fibers[current].thread;
            fiber_switch(&scheduler, fibers[current].stack);
        }
        size_t now = block_gate.generation + alive;
        for (const warp &w : warps)
            now += w.gate.generation * 1000003;
        if (now == before && ++generations > 2)
            die("threads of a block wait for each other at different barriers");
        if (now != before)
            generations = 0;
        before = now;
    }
}
} // namespace

void emulated_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel)
{
    const size_t threads = (size_t)block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || shared > 227 * 1024 || grid.x == 0 || grid.y == 0)
        die("a launch that no device takes");
    if (fibers.size() < threads) {
        fibers.resize(threads);
        stacks.resize(threads * STACK_BYTES);
    }
    warps.resize((threads + WARP - 1) / WARP);
    std::vector<unsigned char> dynamic(shared + 16);
    emulated_shared = (unsigned char *)(((uintptr_t)dynamic.data() + 15) / 16 * 16);
    body = &kernel;
    for (size_t t = 0; t < threads; t++)
        fibers[t].thread = dim3((unsigned)(t % block.x), (unsigned)(t / block.x % block.y),
                                (unsigned)(t / block.x / block.y));
    emulated_now.block_size = block;
    emulated_now.grid_size = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                emulated_now.block = dim3(x, y, z);
                std::memset(dynamic.data(), 0xff, dynamic.size());
                run_block(threads);
            }
}

void emulated_block_barrier() { wait(block_gate, alive); }

int __syncthreads_or(int value)
{
    any_now |= value != 0;
    wait(block_gate, alive);
    const int out = any_now;
    wait(block_gate, alive);
    any_now = 0;
    wait(block_gate, alive);
    return out;
}

const unsigned char *emulated_warp_exchange(const void *mine, size_t bytes)
{
    warp &w = warps[current / WARP];
    if (w.alive < WARP)
        die("a warp operation of all lanes without all lanes");
    if (bytes > 0)
        std::memcpy(w.slots[current % WARP], mine, bytes);
    wait(w.gate, w.alive);
    return w.slots[0];
}

void emulated_warp_done()
{
    warp &w = warps[current / WARP];
    wait(w.gate, w.alive);
}

/* --- the runtime --- */

extern "C" {
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *ordinal)
{
    *ordinal = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int ordinal) { return ordinal == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int)
{
    *out = cudaDeviceProp();
    std::strcpy(out->name, "emulated");
    out->major = 9;
    out->multiProcessorCount = 4;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **out, size_t bytes)
{
    if (bytes > (size_t)1 << 34)
        return cudaErrorMemoryAllocation;
    *out = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*out)
        std::memset(*out, 0xff, bytes);
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *memory)
{
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaMalloc(out, bytes); }
cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind)
{
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t)
{
    return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    std::memset(memory, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    *out = nullptr;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
}
