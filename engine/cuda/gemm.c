/* Dense products by cuBLASLt. A plan (descriptors and algorithm) is made at a shape's first use and kept. cuBLASLt is
 * column-major: a row-major C = A B is its C^T = B^T A^T, so A and B change places and M and N too. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/library.h"
#include "proto/base/mem.h"

#include <assert.h>
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS_MAX = 1024, WORKSPACE_BYTES = 64 << 20, ALIGN_MAX = 256 };

/* What a plan depends on; no padding, compared as bytes. */
struct plan_key {
    uint64_t M, N, K;
    uint32_t ta, tb, ab_bf16, c_bf16, tf32, unused;
    uint32_t align_a, align_b, align_c, align_d; /* of the pointers, at most ALIGN_MAX */
};

struct plan {
    struct plan_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d; /* of cuBLASLt's a and b; c has d's */
    cublasLtMatmulAlgo_t algorithm;
};

struct cuda_gemm_state {
    void *library;
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtMatmul) matmul;
    __typeof__(&cublasLtMatmulDescCreate) desc_create;
    __typeof__(&cublasLtMatmulDescDestroy) desc_destroy;
    __typeof__(&cublasLtMatmulDescSetAttribute) desc_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout_create;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
    __typeof__(&cublasLtMatmulPreferenceCreate) preference_create;
    __typeof__(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    __typeof__(&cublasLtGetStatusString) status;
    cublasLtHandle_t handle;
    void *workspace;
    struct plan *plans; /* (PLANS_MAX), the newest last */
    size_t count;
};

int cuda_gemm_open(struct cuda_device *cuda, struct err *err)
{
    struct cuda_gemm_state *g = mem_zeroed(1, sizeof *g);
    cuda->gemm = g;
    if (!g || !(g->plans = mem_zeroed(PLANS_MAX, sizeof *g->plans)))
        return err_set(err, ERR_NO_MEMORY, "no memory for the plans of products");
    const struct library_symbol symbols[] = {
        {"cublasLtCreate", &g->create},
        {"cublasLtDestroy", &g->destroy},
        {"cublasLtMatmul", &g->matmul},
        {"cublasLtMatmulDescCreate", &g->desc_create},
        {"cublasLtMatmulDescDestroy", &g->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &g->desc_set},
        {"cublasLtMatrixLayoutCreate", &g->layout_create},
        {"cublasLtMatrixLayoutDestroy", &g->layout_destroy},
        {"cublasLtMatmulPreferenceCreate", &g->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &g->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &g->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &g->heuristic},
        {"cublasLtGetStatusString", &g->status},
        {NULL, NULL},
    };
    int rc = library_open(&g->library, "libcublasLt.so." HEBB_CUBLAS_MAJOR, symbols, err);
    if (rc != 0)
        return err_wrap(err, rc, "/resources/device is \"cuda\": cuBLASLt is needed");
    cublasStatus_t status = g->create(&g->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return err_set(err, ERR_UNSUPPORTED, "/resources/device is \"cuda\": cublasLtCreate: %s",
                       g->status(status));
    cudaError_t code = cudaMalloc(&g->workspace, WORKSPACE_BYTES);
    if (code != cudaSuccess)
        return err_set(err, ERR_NO_MEMORY, "device memory for products: %s",
                       cudaGetErrorString(code));
    return 0;
}

static void plan_release(struct cuda_gemm_state *g, struct plan *plan)
{
    if (plan->product)
        g->desc_destroy(plan->product);
    if (plan->a)
        g->layout_destroy(plan->a);
    if (plan->b)
        g->layout_destroy(plan->b);
    if (plan->d)
        g->layout_destroy(plan->d);
    memset(plan, 0, sizeof *plan);
}

void cuda_gemm_close(struct cuda_device *cuda)
{
    struct cuda_gemm_state *g = cuda->gemm;
    if (!g)
        return;
    for (size_t i = 0; i < g->count; i++)
        plan_release(g, &g->plans[i]);
    cudaFree(g->workspace);
    if (g->handle)
        g->destroy(g->handle);
    library_close(g->library);
    free(g->plans);
    free(g);
    cuda->gemm = NULL;
}

static uint32_t align_of(const void *pointer)
{
    uint32_t align = ALIGN_MAX;
    while (align > 1 && (uintptr_t)pointer % align != 0)
        align /= 2;
    return align;
}

static cudaDataType_t type_of(uint32_t half) { return half ? CUDA_R_16BF : CUDA_R_32F; }

/* Descriptors and the algorithm that cuBLASLt thinks best; 0, or a status with the plan released. */
static cublasStatus_t plan_make(struct cuda_gemm_state *g, struct plan *plan)
{
    const struct plan_key *k = &plan->key;
    const cublasOperation_t first = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    /* Row-major (rows, cols) is column-major (cols, rows) with leading dimension cols. */
    const uint64_t b_cols = k->tb ? k->K : k->N, b_rows = k->tb ? k->N : k->K;
    const uint64_t a_cols = k->ta ? k->M : k->K, a_rows = k->ta ? k->K : k->M;
    const size_t workspace = WORKSPACE_BYTES;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t s = g->desc_create(
        &plan->product, k->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->desc_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->desc_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->layout_create(&plan->a, type_of(k->ab_bf16), b_cols, b_rows, (int64_t)b_cols);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->layout_create(&plan->b, type_of(k->ab_bf16), a_cols, a_rows, (int64_t)a_cols);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->layout_create(&plan->d, type_of(k->c_bf16), k->N, k->M, (int64_t)k->N);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->preference_create(&preference);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &k->align_b, sizeof k->align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &k->align_a, sizeof k->align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &k->align_c, sizeof k->align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &k->align_d, sizeof k->align_d},
    };
    for (size_t i = 0; s == CUBLAS_STATUS_SUCCESS && i < sizeof wishes / sizeof *wishes; i++)
        s = g->preference_set(preference, wishes[i].name, wishes[i].value, wishes[i].bytes);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = g->heuristic(g->handle, plan->product, plan->a, plan->b, plan->d, plan->d, preference,
                         1, &result, &found);
    if (s == CUBLAS_STATUS_SUCCESS && found < 1)
        s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS)
        plan->algorithm = result.algo;
    else
        plan_release(g, plan);
    if (preference)
        g->preference_destroy(preference);
    return s;
}

/* The plan of key, made if it is new; the oldest goes where there is no room. */
static cublasStatus_t plan_find(struct cuda_gemm_state *g, const struct plan_key *key,
                                const struct plan **out)
{
    for (size_t i = g->count; i-- > 0;) {
        if (memcmp(&g->plans[i].key, key, sizeof *key) == 0) {
            *out = &g->plans[i];
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    struct plan plan = {.key = *key};
    cublasStatus_t status = plan_make(g, &plan);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (g->count == PLANS_MAX) {
        plan_release(g, &g->plans[0]);
        memmove(g->plans, g->plans + 1, (PLANS_MAX - 1) * sizeof *g->plans);
        g->count--;
    }
    g->plans[g->count] = plan;
    *out = &g->plans[g->count++];
    return CUBLAS_STATUS_SUCCESS;
}

void cuda_gemm(struct device *dev, const char *op, const struct cuda_product *gemm)
{
    struct cuda_device *cuda = cuda_of(dev);
    struct cuda_gemm_state *g = cuda->gemm;
    const void *c = gemm->c ? gemm->c : gemm->d;
    if (!gemm->a || !gemm->b || !gemm->d) /* no scratch: the failure is kept already */
        return;
    const struct plan_key key = {
        .M = gemm->M,
        .N = gemm->N,
        .K = gemm->K,
        .ta = gemm->ta,
        .tb = gemm->tb,
        .ab_bf16 = gemm->ab_bf16,
        .c_bf16 = gemm->c_bf16,
        .tf32 = gemm->tf32,
        .align_a = align_of(gemm->a),
        .align_b = align_of(gemm->b),
        .align_c = align_of(c),
        .align_d = align_of(gemm->d),
    };
    const struct plan *plan = NULL;
    cublasStatus_t status = plan_find(g, &key, &plan);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = g->matmul(g->handle, plan->product, &gemm->alpha, gemm->b, plan->a, gemm->a,
                           plan->b, &gemm->beta, c, plan->d, gemm->d, plan->d, &plan->algorithm,
                           g->workspace, WORKSPACE_BYTES, cuda->stream);
    if (status != CUBLAS_STATUS_SUCCESS && cuda->failure.code == 0)
        err_set(&cuda->failure, ERR_INTERNAL,
                "device \"%s\": %s: cublasLtMatmul (%zu x %zu x %zu): %s", dev->ops->name, op,
                gemm->M, gemm->N, gemm->K, g->status(status));
}
