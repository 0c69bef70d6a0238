/* cuSPARSELt computes C = A B with a structured A (M, K): here A = W row-major, B = x^T and C = y^T, both column-major, which is x and
 * y row-major. */
#include "engine/cuda/sparselt.h"

#include <stdio.h>

#ifdef HEBB_CUSPARSELT
#include "engine/cuda/library.h"
#include "proto/base/mem.h"

#include <stdalign.h>

#include <cusparseLt.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS_MAX = 128, ALIGNMENT = 16 };

struct plan {
    size_t rows, din, dout;
    bool refused;
    cusparseLtMatDescriptor_t w, x, y;
    cusparseLtMatmulDescriptor_t product;
    cusparseLtMatmulAlgSelection_t choice;
    cusparseLtMatmulPlan_t plan;
    size_t compressed, buffer, workspace; /* bytes */
};

struct cuda_sparselt {
    void *library;
    __typeof__(&cusparseLtInit) init;
    __typeof__(&cusparseLtDestroy) destroy;
    __typeof__(&cusparseLtDenseDescriptorInit) dense;
    __typeof__(&cusparseLtStructuredDescriptorInit) structured;
    __typeof__(&cusparseLtMatmulDescriptorInit) product;
    __typeof__(&cusparseLtMatmulAlgSelectionInit) choice;
    __typeof__(&cusparseLtMatmulPlanInit) plan;
    __typeof__(&cusparseLtMatmulPlanDestroy) plan_destroy;
    __typeof__(&cusparseLtMatmulGetWorkspace) workspace;
    __typeof__(&cusparseLtSpMMACompressedSize) compressed_size;
    __typeof__(&cusparseLtSpMMACompress) compress;
    __typeof__(&cusparseLtMatmulSearch) search;
    __typeof__(&cusparseLtMatmul) matmul;
    cusparseLtHandle_t handle;
    bool ready;
    struct plan *plans; /* (PLANS_MAX) */
    size_t count;
    unsigned char *memory; /* compressed matrix, its buffer, the workspace */
    size_t memory_bytes;
};

void sparselt_close(struct cuda_sparselt *lt)
{
    if (!lt)
        return;
    for (size_t i = 0; i < lt->count; i++)
        if (!lt->plans[i].refused)
            lt->plan_destroy(&lt->plans[i].plan);
    if (lt->ready)
        lt->destroy(&lt->handle);
    cudaFree(lt->memory);
    library_close(lt->library);
    free(lt->plans);
    free(lt);
}

struct cuda_sparselt *sparselt_open(char *note, size_t size)
{
    struct cuda_sparselt *lt = mem_zeroed(1, sizeof *lt);
    struct err err = {0};
    if (!lt || !(lt->plans = mem_zeroed(PLANS_MAX, sizeof *lt->plans))) {
        snprintf(note, size, "no memory for cuSPARSELt");
        sparselt_close(lt);
        return NULL;
    }
    const struct library_symbol symbols[] = {
        {"cusparseLtInit", &lt->init},
        {"cusparseLtDestroy", &lt->destroy},
        {"cusparseLtDenseDescriptorInit", &lt->dense},
        {"cusparseLtStructuredDescriptorInit", &lt->structured},
        {"cusparseLtMatmulDescriptorInit", &lt->product},
        {"cusparseLtMatmulAlgSelectionInit", &lt->choice},
        {"cusparseLtMatmulPlanInit", &lt->plan},
        {"cusparseLtMatmulPlanDestroy", &lt->plan_destroy},
        {"cusparseLtMatmulGetWorkspace", &lt->workspace},
        {"cusparseLtSpMMACompressedSize", &lt->compressed_size},
        {"cusparseLtSpMMACompress", &lt->compress},
        {"cusparseLtMatmulSearch", &lt->search},
        {"cusparseLtMatmul", &lt->matmul},
        {NULL, NULL},
    };
    if (library_open(&lt->library, "libcusparseLt.so.0", symbols, &err) != 0) {
        snprintf(note, size, "%s", err.text);
        sparselt_close(lt);
        return NULL;
    }
    lt->ready = lt->init(&lt->handle) == CUSPARSE_STATUS_SUCCESS;
    snprintf(note, size, "cuSPARSELt %s", lt->ready ? "is there" : "does not start on this device");
    if (lt->ready)
        return lt;
    sparselt_close(lt);
    return NULL;
}

static bool plan_init(struct cuda_sparselt *lt, struct plan *p)
{
    const int64_t rows = (int64_t)p->rows, din = (int64_t)p->din, dout = (int64_t)p->dout;
    cusparseLtHandle_t *h = &lt->handle;
    cusparseStatus_t s = lt->structured(h, &p->w, dout, din, din, ALIGNMENT, CUDA_R_16BF,
                                        CUSPARSE_ORDER_ROW, CUSPARSELT_SPARSITY_50_PERCENT);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->dense(h, &p->x, din, rows, din, ALIGNMENT, CUDA_R_16BF, CUSPARSE_ORDER_COL);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->dense(h, &p->y, dout, rows, dout, ALIGNMENT, CUDA_R_16BF, CUSPARSE_ORDER_COL);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->product(h, &p->product, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE,
                        &p->w, &p->x, &p->y, &p->y, CUSPARSE_COMPUTE_32F);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->choice(h, &p->choice, &p->product, CUSPARSELT_MATMUL_ALG_DEFAULT);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->plan(h, &p->plan, &p->product, &p->choice);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->compressed_size(h, &p->plan, &p->compressed, &p->buffer);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->workspace(h, &p->plan, &p->workspace);
    return s == CUSPARSE_STATUS_SUCCESS;
}

/* Room for a plan's pieces; grows at a shape's first use only. */
static bool memory_reserve(struct cuda_sparselt *lt, const struct plan *p)
{
    const size_t bytes = cuda_round(p->compressed) + cuda_round(p->buffer) + cuda_round(p->workspace);
    void *memory = NULL;
    if (bytes <= lt->memory_bytes)
        return true;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
        cudaGetLastError(); /* the dense path needs none of it */
        return false;
    }
    cudaFree(lt->memory);
    lt->memory = memory;
    lt->memory_bytes = bytes;
    return true;
}

static bool run(struct device *dev, struct cuda_sparselt *lt, struct plan *p, void *y, const void *x,
                const void *dense, bool search)
{
    const float one = 1, zero = 0;
    struct cuda_device *cuda = cuda_of(dev);
    unsigned char *buffer = lt->memory + cuda_round(p->compressed);
    unsigned char *workspace = buffer + cuda_round(p->buffer);
    cusparseStatus_t s =
        lt->compress(&lt->handle, &p->plan, dense, lt->memory, buffer, cuda->stream);
    if (s == CUSPARSE_STATUS_SUCCESS && search)
        s = lt->search(&lt->handle, &p->plan, &one, lt->memory, x, &zero, y, y, workspace, &cuda->stream, 1);
    if (s == CUSPARSE_STATUS_SUCCESS)
        s = lt->matmul(&lt->handle, &p->plan, &one, lt->memory, x, &zero, y, y, workspace, &cuda->stream, 1);
    return s == CUSPARSE_STATUS_SUCCESS;
}

bool sparselt_forward(struct device *dev, void *y, const void *x, const void *dense, size_t rows,
                      size_t din, size_t dout)
{
    struct cuda_sparselt *lt = cuda_of(dev)->sparselt;
    struct plan *p = NULL;
    for (size_t i = 0; lt && i < lt->count && !p; i++)
        if (lt->plans[i].rows == rows && lt->plans[i].din == din && lt->plans[i].dout == dout)
            p = &lt->plans[i];
    if (p)
        return !p->refused && run(dev, lt, p, y, x, dense, false);
    if (!lt || lt->count == PLANS_MAX)
        return false;
    p = &lt->plans[lt->count++];
    *p = (struct plan){.rows = rows, .din = din, .dout = dout};
    p->refused = !plan_init(lt, p) || !memory_reserve(lt, p);
    if (!p->refused) /* the search is done once, at the shape's first use; it can change the workspace */
        p->refused = !run(dev, lt, p, y, x, dense, true) ||
                     lt->workspace(&lt->handle, &p->plan, &p->workspace) != CUSPARSE_STATUS_SUCCESS ||
                     !memory_reserve(lt, p);
    return !p->refused;
}

#else

struct cuda_sparselt *sparselt_open(char *note, size_t size)
{
    snprintf(note, size, "this build has no cuSPARSELt");
    return NULL;
}

void sparselt_close(struct cuda_sparselt *lt) { (void)lt; }

bool sparselt_forward(struct device *dev, void *y, const void *x, const void *dense, size_t rows,
                      size_t din, size_t dout)
{
    (void)dev, (void)y, (void)x, (void)dense, (void)rows, (void)din, (void)dout;
    return false;
}

#endif
