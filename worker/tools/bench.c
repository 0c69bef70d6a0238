/* hebb bench: what the kernels do on this machine, and with a job file what its steps do. */
#include "worker/tools/bench.h"

#include "proto/json/json.h"
#include "worker/config.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_spec.h"
#include "worker/tools/tools.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_DEFAULT = 1024, TOKENS_MAX = 1 << 20, CPU_NAME_MAX = 128, JSON_MAX = 1 << 20 };

struct bench {
    char cpu[CPU_NAME_MAX];
    size_t tokens;
    unsigned threads;
    const char *device;
    double peak;
    struct bench_row rows[BENCH_ROWS];
    bool has_step;
    double tokens_per_s;
};

static void cpu_name(char out[CPU_NAME_MAX])
{
    static const char key[] = "model name";
    char line[512];
    strcpy(out, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, key, sizeof key - 1) == 0 && value) {
            value += strspn(value, ": \t");
            snprintf(out, CPU_NAME_MAX, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

static void print_json(const struct bench *bench)
{
    struct buf text;
    cJSON *root = cJSON_CreateObject();
    cJSON *machine = cJSON_AddObjectToObject(root, "machine");
    cJSON_AddStringToObject(machine, "cpu", bench->cpu);
    cJSON_AddNumberToObject(machine, "cores", (double)sysconf(_SC_NPROCESSORS_ONLN));
    cJSON_AddNumberToObject(machine, "threads", bench->threads);
    cJSON_AddStringToObject(machine, "device", bench->device);
    cJSON_AddNumberToObject(root, "peak_gflops", bench->peak);
    cJSON *rows = cJSON_AddArrayToObject(root, "products");
    for (size_t i = 0; i < BENCH_ROWS; i++) {
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
        cJSON_AddItemToArray(rows, item);
    }
    if (bench->has_step) {
        cJSON *step = cJSON_AddObjectToObject(root, "step");
        cJSON_AddNumberToObject(step, "tokens_per_s", bench->tokens_per_s);
    }
    buf_init(&text, JSON_MAX);
    json_print(root, &text);
    puts(text.data ? text.data : "");
    cJSON_Delete(root);
    buf_release(&text);
}

static void print_text(const struct bench *bench)
{
    printf("%s, %u threads, device %s, peak %.1f GFLOP/s (fused multiply-adds in fp32), %zu "
           "tokens\n",
           bench->cpu, bench->threads, bench->device, bench->peak, bench->tokens);
    puts("product     din  dout   N:M  effective GF/s  of peak  x dense");
    for (size_t i = 0; i < BENCH_ROWS; i++) {
        const struct bench_row *row = &bench->rows[i];
        printf("%-9s %5zu %5zu %3u:%-3u %13.1f %7.0f%% %8.2f\n", row->product, row->din,
               row->dout, row->n, row->m, row->effective_gflops, row->peak_share * 100,
               row->ratio_to_dense);
    }
    if (bench->has_step) {
        printf("step: %.0f tokens/s\n", bench->tokens_per_s);
    }
}

static int measure(struct bench *bench, const struct job_spec *spec, struct err *err)
{
    struct pool *pool = NULL;
    struct device *dev = NULL;
    int rc = pool_create(&pool, bench->threads, err);
    if (rc == 0) {
        rc = device_create(&dev, spec ? config_device(spec) : "cpu", pool, err);
    }
    if (rc == 0) {
        bench->device = dev->ops->name;
        bench->peak = bench_peak(pool);
        rc = bench_products(bench->rows, dev, bench->tokens, bench->peak, err);
    }
    if (rc == 0 && spec) {
        rc = bench_step(&bench->tokens_per_s, spec, dev, err);
        bench->has_step = rc == 0;
    }
    device_destroy(dev);
    pool_destroy(pool);
    return rc;
}

int tool_bench(int argc, char **argv)
{
    uint64_t tokens = TOKENS_DEFAULT, threads = 1;
    bool json = false;
    struct option_list rest;
    const struct option_row options[] = {
        {"tokens", OPTION_COUNT, &tokens, 1, TOKENS_MAX},
        {"threads", OPTION_COUNT, &threads, 1, POOL_THREADS_MAX},
        {"json", OPTION_FLAG, &json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (rest.count > 1) {
        return tool_usage(argv[0], "at most one job file");
    }
    struct err err = {0};
    struct job_spec spec;
    struct bench bench = {.tokens = (size_t)tokens, .threads = (unsigned)threads};
    bool job = rest.count == 1;
    spec_init(&spec);
    cpu_name(bench.cpu);
    int rc = job ? tool_spec_load(&spec, rest.items[0], 1, threads, &err) : 0;
    if (rc == 0) {
        rc = measure(&bench, job ? &spec : NULL, &err);
    }
    if (rc == 0) {
        (json ? print_json : print_text)(&bench);
    }
    spec_release(&spec);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
