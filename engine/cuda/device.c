/* The life of a CUDA device: its choice, its memory, its scratch and its failures. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/sparselt.h"
#include "proto/base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void cuda_fail(struct device *dev, const char *op, cudaError_t code)
{
    struct cuda_device *cuda = cuda_of(dev);
    if (code != cudaSuccess && cuda->failure.code == 0)
        err_set(&cuda->failure, code == cudaErrorMemoryAllocation ? ERR_NO_MEMORY : ERR_INTERNAL,
                "device \"%s\": %s: %s", dev->ops->name, op, cudaGetErrorString(code));
}

void cuda_launched(struct device *dev, const char *op) { cuda_fail(dev, op, cudaGetLastError()); }

/* --- addresses --- */

/* Place of the first range that starts above memory. */
static size_t range_above(const struct cuda_device *cuda, const unsigned char *memory)
{
    size_t low = 0, high = cuda->range_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cuda->ranges[middle].host <= memory)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void *cuda_find(const struct device *dev, const void *memory)
{
    const struct cuda_device *cuda = cuda_of(dev);
    const unsigned char *at = memory;
    size_t above = range_above(cuda, at);
    if (above == 0)
        return NULL;
    const struct cuda_range *range = &cuda->ranges[above - 1];
    size_t offset = (size_t)(at - range->host);
    return offset < range->bytes ? range->device + offset : NULL;
}

void *cuda_at(const struct device *dev, const void *memory)
{
    void *at = memory ? cuda_find(dev, memory) : NULL;
    assert((at || !memory) && "an op's operand is memory of device_alloc");
    return at;
}

/* --- memory --- */

static void *memory_alloc(struct device *dev, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(dev);
    struct cuda_range range = {.bytes = bytes ? bytes : 1};
    if (cuda->range_count == CUDA_RANGES_MAX)
        return NULL;
    void *host = mmap(NULL, range.bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host == MAP_FAILED)
        return NULL;
    void *device = NULL;
    cudaError_t code = cudaMalloc(&device, range.bytes);
    if (code == cudaSuccess)
        code = cudaMemsetAsync(device, 0, range.bytes, cuda->stream);
    if (code != cudaSuccess) {
        cudaGetLastError(); /* the caller says what there was no memory for */
        cudaFree(device);
        munmap(host, range.bytes);
        return NULL;
    }
    range.host = host;
    range.device = device;
    size_t at = range_above(cuda, range.host);
    memmove(cuda->ranges + at + 1, cuda->ranges + at,
            (cuda->range_count - at) * sizeof *cuda->ranges);
    cuda->ranges[at] = range;
    cuda->range_count++;
    return host;
}

static void range_release(struct cuda_device *cuda, size_t at)
{
    cudaFree(cuda->ranges[at].device);
    munmap(cuda->ranges[at].host, cuda->ranges[at].bytes);
    cuda->range_count--;
    memmove(cuda->ranges + at, cuda->ranges + at + 1,
            (cuda->range_count - at) * sizeof *cuda->ranges);
}

static void memory_free(struct device *dev, void *memory)
{
    struct cuda_device *cuda = cuda_of(dev);
    if (!memory)
        return;
    size_t above = range_above(cuda, memory);
    assert(above > 0 && cuda->ranges[above - 1].host == memory);
    cudaStreamSynchronize(cuda->stream);
    range_release(cuda, above - 1);
}

static void memory_push(struct device *dev, const void *memory, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(dev);
    cuda_fail(dev, "push",
              cudaMemcpyAsync(cuda_at(dev, memory), memory, bytes, cudaMemcpyHostToDevice,
                              cuda->stream));
    cuda_fail(dev, "push", cudaStreamSynchronize(cuda->stream));
}

static void memory_pull(struct device *dev, const void *memory, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(dev);
    /* The host's pages behind a const view are its copy, which pull is there to write. */
    void *to = (void *)(uintptr_t)memory;
    cuda_fail(dev, "pull",
              cudaMemcpyAsync(to, cuda_at(dev, memory), bytes, cudaMemcpyDeviceToHost,
                              cuda->stream));
    cuda_fail(dev, "pull", cudaStreamSynchronize(cuda->stream));
}

static void memory_zero(struct device *dev, void *memory, size_t bytes)
{
    cuda_fail(dev, "zero", cudaMemsetAsync(cuda_at(dev, memory), 0, bytes, cuda_of(dev)->stream));
}

static int memory_check(struct device *dev, struct err *err)
{
    struct cuda_device *cuda = cuda_of(dev);
    cuda_fail(dev, "an op", cudaStreamSynchronize(cuda->stream));
    if (cuda->failure.code != 0)
        return err_set(err, cuda->failure.code, "%s", cuda->failure.text);
    return 0;
}

static void *memory_address(struct device *dev, const void *memory) { return cuda_at(dev, memory); }
static void *memory_queue(struct device *dev) { return cuda_of(dev)->stream; }

static const struct device_memory cuda_memory = {
    .alloc = memory_alloc,
    .free = memory_free,
    .push = memory_push,
    .pull = memory_pull,
    .zero = memory_zero,
    .check = memory_check,
    .address = memory_address,
    .queue = memory_queue,
};

/* --- scratch --- */

struct cuda_scratch cuda_scratch_take(struct device *dev, size_t total)
{
    struct cuda_device *cuda = cuda_of(dev);
    struct cuda_scratch scratch = {.dev = dev, .size = dev->scratch_bytes};
    if (total <= dev->scratch_bytes) {
        scratch.base = cuda_at(dev, dev->scratch);
        return scratch;
    }
    if (total > cuda->spare_bytes) {
        cudaFree(cuda->spare); /* waits for the ops that use it */
        void *spare = NULL;
        cudaError_t code = cudaMalloc(&spare, total);
        cuda_fail(dev, "scratch", code);
        cuda->spare = code == cudaSuccess ? spare : NULL;
        cuda->spare_bytes = code == cudaSuccess ? total : 0;
    }
    scratch.base = cuda->spare;
    scratch.size = cuda->spare_bytes;
    return scratch;
}

void *cuda_piece(struct cuda_scratch *scratch, size_t bytes)
{
    if (!scratch->base)
        return NULL;
    void *piece = scratch->base + scratch->used;
    scratch->used += cuda_round(bytes);
    assert(scratch->used <= scratch->size);
    return piece;
}

size_t cuda_input_bytes(const struct device *dev, const void *memory, size_t bytes)
{
    return cuda_find(dev, memory) ? 0 : cuda_round(bytes);
}

const void *cuda_input(struct cuda_scratch *scratch, const void *memory, size_t bytes)
{
    struct device *dev = scratch->dev;
    const void *at = cuda_find(dev, memory);
    if (at)
        return at;
    void *copy = cuda_piece(scratch, bytes);
    if (copy)
        cuda_fail(dev, "input",
                  cudaMemcpyAsync(copy, memory, bytes, cudaMemcpyHostToDevice,
                                  cuda_of(dev)->stream));
    return copy;
}

void *cuda_output(struct cuda_scratch *scratch, void *memory, size_t bytes)
{
    void *at = cuda_find(scratch->dev, memory);
    return at ? at : cuda_piece(scratch, bytes);
}

void cuda_output_done(struct device *dev, void *memory, const void *at, size_t bytes)
{
    if (cuda_find(dev, memory) || !at)
        return;
    cudaStream_t stream = cuda_of(dev)->stream;
    cuda_fail(dev, "output", cudaMemcpyAsync(memory, at, bytes, cudaMemcpyDeviceToHost, stream));
    cuda_fail(dev, "output", cudaStreamSynchronize(stream));
}

const uint8_t *cuda_columns(struct device *dev, const struct pattern_table *patterns)
{
    struct cuda_device *cuda = cuda_of(dev);
    for (size_t i = 0; i < cuda->table_count; i++)
        if (cuda->tables[i].n == patterns->n && cuda->tables[i].m == patterns->m)
            return cuda->tables[i].columns;
    assert(cuda->table_count < CUDA_TABLES_MAX);
    void *columns = NULL;
    const size_t bytes = patterns->count * patterns->n;
    cudaError_t code = cudaMalloc(&columns, bytes);
    if (code == cudaSuccess)
        code = cudaMemcpy(columns, patterns->column, bytes, cudaMemcpyHostToDevice);
    cuda_fail(dev, "patterns", code);
    if (code != cudaSuccess) {
        cudaFree(columns);
        return NULL;
    }
    cuda->tables[cuda->table_count++] =
        (struct cuda_table){.n = patterns->n, .m = patterns->m, .columns = columns};
    return columns;
}

/* --- life --- */

static int refuse(struct err *err, const char *name, const char *why)
{
    return err_set(err, ERR_UNSUPPORTED, "/resources/device is \"%s\": %s", name, why);
}

/* Takes device number index, round and round, of those that the process sees. */
static int choose(struct cuda_device *cuda, const char *name, unsigned index, struct err *err)
{
    int count = 0;
    struct cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count < 1)
        return refuse(err, name,
                      code == cudaSuccess ? "no CUDA device is here" : cudaGetErrorString(code));
    int ordinal = (int)(index % (unsigned)count);
    code = cudaSetDevice(ordinal);
    if (code == cudaSuccess)
        code = cudaGetDeviceProperties(&properties, ordinal);
    if (code != cudaSuccess)
        return refuse(err, name, cudaGetErrorString(code));
    if (properties.major < 8)
        return refuse(err, name, "this CUDA device is older than compute capability 8.0");
    cuda->sms = properties.multiProcessorCount;
    cuda->major = properties.major;
    cuda->minor = properties.minor;
    memcpy(cuda->name, properties.name, sizeof cuda->name - 1);
    code = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    void *sum = NULL;
    if (code == cudaSuccess)
        code = cudaMallocHost(&sum, sizeof *cuda->sum);
    cuda->sum = sum;
    return code == cudaSuccess ? 0
                               : err_set(err, ERR_INTERNAL, "device \"%s\": %s", name,
                                         cudaGetErrorString(code));
}

static void cuda_close(struct device *dev)
{
    struct cuda_device *cuda = cuda_of(dev);
    if (!cuda)
        return;
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    while (cuda->range_count > 0)
        range_release(cuda, cuda->range_count - 1);
    for (size_t i = 0; i < cuda->table_count; i++)
        cudaFree(cuda->tables[i].columns);
    cudaFree(cuda->spare);
    sparselt_close(cuda->sparselt);
    cuda_gemm_close(cuda);
    cudaFreeHost(cuda->sum);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
    dev->private_data = NULL;
}

static int cuda_open(struct device *dev, bool bf16, struct err *err)
{
    struct cuda_device *cuda = mem_zeroed(1, sizeof *cuda);
    if (!cuda)
        return err_set(err, ERR_NO_MEMORY, "no memory for device \"%s\"", dev->ops->name);
    cuda->bf16 = bf16;
    dev->private_data = cuda;
    int rc = choose(cuda, dev->ops->name, dev->index, err);
    if (rc == 0)
        rc = cuda_gemm_open(cuda, err);
    if (rc == 0 && bf16)
        cuda->sparselt = sparselt_open(cuda->note, sizeof cuda->note);
    if (rc != 0)
        cuda_close(dev);
    return rc;
}

static int open_bf16(struct device *dev, struct err *err) { return cuda_open(dev, true, err); }
static int open_fp32(struct device *dev, struct err *err) { return cuda_open(dev, false, err); }

static bool cuda_choice_text(const struct device *dev, size_t index, char *text, size_t size)
{
    const struct cuda_device *cuda = cuda_of(dev);
    if (index == 0) {
        snprintf(text, size, "%s, compute capability %d.%d, %d multiprocessors; %s", cuda->name, cuda->major,
                 cuda->minor, cuda->sms, cuda->note);
        return true;
    }
    if (index > cuda->choice_count)
        return false;
    const struct cuda_choice *c = &cuda->choices[index - 1];
    snprintf(text, size,
             "forward %zu x %zu, %zu tokens, %u:%u: %s; dense %.1f us, cuSPARSELt %.1f us, results differ by %.1e",
             c->dout, c->din, c->rows, c->n, c->m, c->sparse ? "cuSPARSELt" : "dense with zeros",
             c->dense_seconds * 1e6, c->sparse_seconds * 1e6, c->difference);
    return true;
}

/* --- the rows --- */

size_t cuda_act_size_bf16(size_t rows, size_t dim)
{
    return size_round_up(rows * dim, MEM_ALIGN) / 2; /* two to a real, whole cache lines */
}

size_t cuda_act_size_fp32(size_t rows, size_t dim) { return rows * dim; }

/* The largest need of an op: a product's weight as its factor and its dense gradient in fp32, the head's weight and
 * logits, a norm's partial sums, attention's row sums. */
static size_t scratch_bytes(const struct device_limits *limits, size_t factor)
{
    const size_t widest = limits->dim_max, vocab = limits->vocab;
    const size_t chunk = limits->rows < CUDA_HEAD_ROWS ? limits->rows : CUDA_HEAD_ROWS;
    size_t matrix, table, logits, sums, part;
    if (!size_mul(&matrix, widest, widest) || !size_mul(&matrix, matrix, factor + sizeof(float)) ||
        !size_mul(&table, vocab, widest) || !size_mul(&table, table, factor) ||
        !size_mul(&logits, chunk, vocab) || !size_mul(&logits, logits, factor + sizeof(float)) ||
        !size_add(&table, table, logits) || !size_mul(&sums, limits->rows, limits->heads) ||
        !size_mul(&sums, sums, sizeof(float)) || !size_mul(&part, widest, CUDA_PARTS * sizeof(double)))
        return SIZE_MAX;
    size_t most = matrix > table ? matrix : table;
    most = most > sums ? most : sums;
    most = most > part ? most : part;
    return size_add(&most, most, 8 * CUDA_ALIGN) ? most : SIZE_MAX;
}

static int cuda_admit(const struct device_limits *limits, struct err *err)
{
    if (limits->head_dim <= CUDA_HEAD_DIM_MAX)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "model.hidden / model.heads is %zu: attention on cuda takes heads of at most %d",
                   limits->head_dim, CUDA_HEAD_DIM_MAX);
}

static size_t scratch_bf16(const struct device_limits *limits, unsigned threads)
{
    (void)threads;
    return scratch_bytes(limits, 2);
}

static size_t scratch_fp32(const struct device_limits *limits, unsigned threads)
{
    (void)threads;
    return scratch_bytes(limits, sizeof(float));
}

#define CUDA_OPS(label, size)                                                                    \
    {                                                                                            \
        .name = label, .act_size = size, .act_load = cuda_act_load,                              \
        .act_store = cuda_act_store, .act_add = cuda_act_add,                                    \
        .embed_forward = cuda_embed_forward, .embed_backward = cuda_embed_backward,              \
        .rmsnorm_forward = cuda_rmsnorm_forward, .rmsnorm_backward = cuda_rmsnorm_backward,      \
        .nm_forward = cuda_nm_forward, .nm_backward_x = cuda_nm_backward_x,                      \
        .nm_backward_w = cuda_nm_backward_w, .nm_pack_size = cuda_nm_pack_size,                  \
        .nm_repack = cuda_nm_repack, .dense_forward = cuda_dense_forward,                        \
        .dense_backward_x = cuda_dense_backward_x, .dense_backward_w = cuda_dense_backward_w,    \
        .rope_forward = cuda_rope_forward, .rope_backward = cuda_rope_backward,                  \
        .attention_forward = cuda_attention_forward,                                             \
        .attention_backward = cuda_attention_backward, .swiglu_forward = cuda_swiglu_forward,    \
        .swiglu_backward = cuda_swiglu_backward, .como_forward = cuda_como_forward,              \
        .como_backward = cuda_como_backward, .bias_backward = cuda_bias_backward,                \
        .head_loss = cuda_head_loss, .head_logits = cuda_head_logits, .adamw = cuda_adamw,       \
        .sum_squares = cuda_sum_squares, .matrix_product = cuda_matrix_product,                  \
        .matrix_square = cuda_matrix_square, .matrix_commute = cuda_matrix_commute,              \
        .matrix_spread = cuda_matrix_spread,                                                     \
        .matrix_collect = cuda_matrix_collect, .tans_moments = cuda_tans_moments,                \
        .muon_momentum = cuda_muon_momentum, .matrix_step = cuda_matrix_step,                    \
    }

static const struct ops ops_bf16 = CUDA_OPS("cuda", cuda_act_size_bf16);
static const struct ops ops_fp32 = CUDA_OPS("cuda-fp32", cuda_act_size_fp32);

const struct device_row device_cuda = {
    .name = "cuda",
    .ops = &ops_bf16,
    .scratch_bytes = scratch_bf16,
    .admit = cuda_admit,
    .open = open_bf16,
    .close = cuda_close,
    .memory = &cuda_memory,
    .choice = cuda_choice_text,
};

const struct device_row device_cuda_fp32 = {
    .name = "cuda-fp32",
    .ops = &ops_fp32,
    .scratch_bytes = scratch_fp32,
    .admit = cuda_admit,
    .open = open_fp32,
    .close = cuda_close,
    .memory = &cuda_memory,
};
