#include "proto/json/json.h"
#include "proto/msg/estimate.h"
#include <stdio.h>
#include <string.h>

static cJSON *memory_object(const struct estimate *estimate)
{
    cJSON *memory = cJSON_CreateObject();
    cJSON_AddNumberToObject(memory, "weights", (double)estimate->memory.weights);
    cJSON_AddNumberToObject(memory, "latent", (double)estimate->memory.latent);
    cJSON_AddNumberToObject(memory, "topology", (double)estimate->memory.topology);
    cJSON_AddNumberToObject(memory, "gradients", (double)estimate->memory.gradients);
    cJSON_AddNumberToObject(memory, "optimizer", (double)estimate->memory.optimizer);
    cJSON_AddNumberToObject(memory, "activations", (double)estimate->memory.activations);
    cJSON_AddNumberToObject(memory, "scratch", (double)estimate->memory.scratch);
    cJSON_AddNumberToObject(memory, "runtime", (double)estimate->memory.runtime);
    cJSON_AddNumberToObject(memory, "total", (double)estimate->memory.total);
    return memory;
}

/* The same job at another density, for comparison. */
static void add_alternative(cJSON *array, const struct job_spec *spec, int64_t n, int64_t m)
{
    struct job_spec other = *spec; /* shares the lists, which are not touched */
    struct estimate estimate;
    char name[32] = "dense";
    if (n == m) {
        snprintf(other.sparsity.method, sizeof other.sparsity.method, "dense");
    } else {
        if (spec->model.hidden % m != 0 || spec->model.intermediate % m != 0)
            return;
        if (spec_density(spec) == 1)
            snprintf(other.sparsity.method, sizeof other.sparsity.method, "static");
        snprintf(name, sizeof name, "%d:%d", (int)n, (int)m);
        other.sparsity.n = n;
        other.sparsity.m = m;
    }
    estimate_job(&other, &estimate);
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "sparsity", name);
    cJSON_AddStringToObject(row, "method", other.sparsity.method);
    cJSON_AddNumberToObject(row, "active_parameters", (double)estimate.active_parameters);
    cJSON_AddNumberToObject(row, "flops_per_token", estimate.flops_per_token);
    cJSON_AddItemToObject(row, "memory_per_rank_bytes", memory_object(&estimate));
    cJSON_AddItemToArray(array, row);
}

void estimate_print(const struct job_spec *spec, const struct estimate *estimate,
                    struct buf *out)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "parameters", (double)estimate->parameters);
    cJSON_AddNumberToObject(object, "active_parameters", (double)estimate->active_parameters);
    cJSON_AddNumberToObject(object, "intermediate", (double)estimate->intermediate);
    cJSON_AddNumberToObject(object, "adapter_parameters", (double)estimate->adapter_parameters);
    cJSON_AddNumberToObject(object, "adapter_share", estimate->adapter_share);
    cJSON_AddNumberToObject(object, "density", estimate->density);
    cJSON_AddNumberToObject(object, "tokens_per_step", (double)estimate->tokens_per_step);
    cJSON_AddNumberToObject(object, "tokens",
                            (double)estimate->tokens_per_step * (double)spec->train.steps);
    cJSON_AddNumberToObject(object, "flops_per_token", estimate->flops_per_token);
    cJSON_AddNumberToObject(object, "flops_per_token_dense", estimate->flops_per_token_dense);
    cJSON_AddItemToObject(object, "memory_per_rank_bytes", memory_object(estimate));
    cJSON_AddNumberToObject(object, "ranks", (double)spec->resources.ranks);
    cJSON_AddNumberToObject(object, "memory_total_bytes",
                            (double)estimate->memory.total * (double)spec->resources.ranks);
    cJSON *alternatives = cJSON_AddArrayToObject(object, "alternatives");
    add_alternative(alternatives, spec, 1, 1);
    add_alternative(alternatives, spec, 2, 4);
    add_alternative(alternatives, spec, 1, 4);
    json_print(object, out);
    cJSON_Delete(object);
}
