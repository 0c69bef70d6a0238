#include "worker/tools/bench.h"

#include "proto/json/json.h"

#include <stdio.h>
#include <unistd.h>

enum { JSON_MAX = 1 << 20 };

static void json_bound(cJSON *item, const struct bench_bound *bound)
{
    cJSON_AddStringToObject(item, "bound_by", bound->by);
    cJSON_AddNumberToObject(item, "bound_share", bound->share);
}

static void json_products(cJSON *root, const struct bench *bench)
{
    cJSON *rows = cJSON_AddArrayToObject(root, "products");
    for (size_t i = 0; bench->has_products && i < BENCH_ROWS; i++) {
        const struct bench_row *row = &bench->rows[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "product", row->product);
        cJSON_AddNumberToObject(item, "tokens", (double)bench->tokens);
        cJSON_AddNumberToObject(item, "din", (double)row->din);
        cJSON_AddNumberToObject(item, "dout", (double)row->dout);
        cJSON_AddNumberToObject(item, "n", row->n);
        cJSON_AddNumberToObject(item, "m", row->m);
        cJSON_AddStringToObject(item, "layout", row->n < row->m ? "row" : "dense");
        cJSON_AddNumberToObject(item, "effective_gflops", row->effective_gflops);
        cJSON_AddNumberToObject(item, "peak_share", row->peak_share);
        cJSON_AddNumberToObject(item, "ratio_to_dense", row->ratio_to_dense);
        json_bound(item, &row->bound);
        cJSON_AddItemToArray(rows, item);
    }
}

static void json_step(cJSON *root, const struct bench *bench)
{
    const struct bench_step *step = &bench->step;
    double total = step->rest_seconds;
    cJSON *object = cJSON_AddObjectToObject(root, "step");
    cJSON_AddNumberToObject(object, "tokens_per_s", step->tokens_per_s);
    cJSON_AddNumberToObject(object, "ms", step->seconds * 1e3);
    for (size_t i = 0; i < step->op_count; i++) {
        total += step->ops[i].seconds;
    }
    cJSON *share = cJSON_AddObjectToObject(object, "share");
    for (size_t i = 0; i < step->op_count; i++) {
        cJSON_AddNumberToObject(share, step->ops[i].name, step->ops[i].seconds / total);
    }
    cJSON_AddNumberToObject(share, "rest", step->rest_seconds / total);
    cJSON *roofline = cJSON_AddObjectToObject(object, "roofline");
    for (size_t i = 0; i < step->op_count; i++) {
        const struct bench_op *op = &step->ops[i];
        const struct bench_bound bound =
            bench_bound(&bench->machine, op->flops, op->bytes, op->seconds);
        cJSON *item = cJSON_AddObjectToObject(roofline, op->name);
        cJSON_AddNumberToObject(item, "gflops", op->flops / op->seconds / 1e9);
        cJSON_AddNumberToObject(item, "gb_s", op->bytes / op->seconds / 1e9);
        json_bound(item, &bound);
    }
    if (step->refreshed) {
        cJSON *refresh = cJSON_AddObjectToObject(object, "refresh");
        cJSON_AddNumberToObject(refresh, "ms", step->refresh_ms);
        cJSON_AddNumberToObject(refresh, "interval", (double)step->refresh_interval);
        cJSON_AddNumberToObject(refresh, "share", step->refresh_share);
    }
}

static void json_generate(cJSON *root, const struct bench_generate *generate)
{
    cJSON *object = cJSON_AddObjectToObject(root, "generate");
    cJSON_AddNumberToObject(object, "tokens_per_s", generate->rows[0].tokens_per_s);
    cJSON_AddNumberToObject(object, "prompt", (double)generate->prompt);
    cJSON_AddNumberToObject(object, "tokens", (double)generate->tokens);
    cJSON *rows = cJSON_AddArrayToObject(object, "models");
    for (size_t i = 0; i < generate->count; i++) {
        const struct bench_generate_row *row = &generate->rows[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "n", row->n);
        cJSON_AddNumberToObject(item, "m", row->m);
        cJSON_AddStringToObject(item, "layout", row->n < row->m ? row->layout : "dense");
        cJSON_AddNumberToObject(item, "tokens_per_s", row->tokens_per_s);
        cJSON_AddNumberToObject(item, "weight_bytes", row->weight_bytes);
        cJSON_AddNumberToObject(item, "cache_bytes", row->cache_bytes);
        cJSON_AddNumberToObject(item, "gb_s", row->gb_s);
        json_bound(item, &row->bound);
        cJSON_AddItemToArray(rows, item);
    }
}

void bench_print_json(const struct bench *bench)
{
    struct buf text;
    const struct bench_machine *machine = &bench->machine;
    cJSON *root = cJSON_CreateObject();
    cJSON *about = cJSON_AddObjectToObject(root, "machine");
    cJSON_AddStringToObject(about, "cpu", machine->cpu);
    cJSON_AddNumberToObject(about, "cores", (double)sysconf(_SC_NPROCESSORS_ONLN));
    cJSON_AddNumberToObject(about, "threads", machine->threads);
    cJSON_AddStringToObject(about, "device", machine->device);
    cJSON_AddNumberToObject(about, "stream_gb_s", machine->stream_gb_s);
    cJSON_AddNumberToObject(root, "peak_gflops", machine->peak_gflops);
    json_products(root, bench);
    if (bench->has_step) {
        json_step(root, bench);
    }
    if (bench->has_generate) {
        json_generate(root, &bench->generate);
    }
    buf_init(&text, JSON_MAX);
    json_print(root, &text);
    puts(text.data ? text.data : "");
    cJSON_Delete(root);
    buf_release(&text);
}

static void text_products(const struct bench *bench)
{
    printf("products of %zu tokens\n", bench->tokens);
    puts("product     din  dout   N:M  effective GF/s  of peak  x dense  bound by  of bound");
    for (size_t i = 0; i < BENCH_ROWS; i++) {
        const struct bench_row *row = &bench->rows[i];
        printf("%-9s %5zu %5zu %3u:%-3u %13.1f %7.0f%% %8.2f  %-8s %8.0f%%\n", row->product,
               row->din, row->dout, row->n, row->m, row->effective_gflops,
               row->peak_share * 100, row->ratio_to_dense, row->bound.by,
               row->bound.share * 100);
    }
}

static void text_step(const struct bench *bench)
{
    const struct bench_step *step = &bench->step;
    double total = step->rest_seconds;
    for (size_t i = 0; i < step->op_count; i++) {
        total += step->ops[i].seconds;
    }
    printf("step: %.0f tokens/s, %.1f ms, median of %zu\n", step->tokens_per_s,
           step->seconds * 1e3, step->steps);
    puts("op                 calls        ms   share     GF/s     GB/s  bound by  of bound");
    for (size_t i = 0; i < step->op_count; i++) {
        const struct bench_op *op = &step->ops[i];
        const struct bench_bound bound =
            bench_bound(&bench->machine, op->flops, op->bytes, op->seconds);
        printf("%-18s %5zu %9.2f %6.1f%% %8.1f %8.1f  %-8s %8.0f%%\n", op->name, op->calls,
               op->seconds * 1e3, op->seconds / total * 100, op->flops / op->seconds / 1e9,
               op->bytes / op->seconds / 1e9, bound.by, bound.share * 100);
    }
    printf("%-18s       %9.2f %6.1f%%\n", "rest", step->rest_seconds * 1e3,
           step->rest_seconds / total * 100);
    if (step->refreshed) {
        printf("refresh: %.1f ms, %.2f%% of the training time at interval %zu\n",
               step->refresh_ms, step->refresh_share * 100, step->refresh_interval);
    }
}

static void text_generate(const struct bench_generate *generate)
{
    printf("generate: %zu tokens one by one behind a prompt of %zu\n", generate->tokens,
           generate->prompt);
    puts("  N:M  layout  tokens/s  MB a token      GB/s  bound by  of bound");
    for (size_t i = 0; i < generate->count; i++) {
        const struct bench_generate_row *row = &generate->rows[i];
        printf("%3u:%-3u %-6s %9.0f %11.1f %9.1f  %-8s %8.0f%%\n", row->n, row->m,
               row->n < row->m ? row->layout : "dense", row->tokens_per_s,
               (row->weight_bytes + row->cache_bytes) / 1e6, row->gb_s, row->bound.by,
               row->bound.share * 100);
    }
}

void bench_print_text(const struct bench *bench)
{
    const struct bench_machine *machine = &bench->machine;
    printf("%s, %u threads, device %s: peak %.1f GFLOP/s (fused multiply-adds in fp32), memory "
           "%.1f GB/s (triad)\n",
           machine->cpu, machine->threads, machine->device, machine->peak_gflops,
           machine->stream_gb_s);
    if (bench->has_products) {
        text_products(bench);
    }
    if (bench->has_step) {
        text_step(bench);
    }
    if (bench->has_generate) {
        text_generate(&bench->generate);
    }
}
