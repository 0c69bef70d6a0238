/* hebb bench: what the kernels do on this machine, and with a job file what its steps do. */
#include "worker/tools/bench.h"

#include "worker/tools/bench_device.h"

#include "worker/config.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_spec.h"
#include "worker/tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_DEFAULT = 1024, TOKENS_MAX = 1 << 20 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, ascending);
    return values[count / 2];
}

struct bench_bound bench_bound(const struct bench_machine *machine, double flops, double bytes,
                               double seconds)
{
    double compute = machine->peak_gflops > 0 ? flops / machine->peak_gflops / 1e9 : 0;
    double memory = machine->stream_gb_s > 0 ? bytes / machine->stream_gb_s / 1e9 : 0;
    bool computes = compute >= memory;
    return (struct bench_bound){.by = computes ? "compute" : "memory",
                                .share = (computes ? compute : memory) / seconds};
}

static void cpu_name(char out[BENCH_CPU_MAX])
{
    static const char key[] = "model name";
    char line[512];
    strcpy(out, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, key, sizeof key - 1) == 0 && value) {
            value += strspn(value, ": \t");
            snprintf(out, BENCH_CPU_MAX, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

static int measure(struct bench *bench, const struct job_spec *spec, struct err *err)
{
    struct pool *pool = NULL;
    struct device *dev = NULL;
    struct bench_machine *machine = &bench->machine;
    int rc = pool_create(&pool, machine->threads, err);
    if (rc == 0) {
        rc = device_create(&dev, spec ? config_device(spec) : "cpu", pool, err);
    }
    if (rc == 0) {
        machine->device = dev->ops->name;
        machine->peak_gflops = bench_peak(pool);
        machine->stream_gb_s = bench_stream(pool);
    }
    if (rc == 0 && bench->has_products) {
        rc = bench_products(bench->rows, dev, bench->tokens, machine, err);
    }
    if (rc == 0 && bench->has_step) {
        rc = bench_step(&bench->step, spec, dev, err);
    }
    if (rc == 0 && bench->has_generate) {
        rc = bench_generate(&bench->generate, spec, dev, machine, err);
    }
    device_destroy(dev);
    pool_destroy(pool);
    return rc;
}

/* --part: all of them by default; what needs a job is left out without one. */
static bool choose_parts(struct bench *bench, const char *part, bool job)
{
    bool all = strcmp(part, "all") == 0;
    bench->has_products = all || strcmp(part, "products") == 0;
    bench->has_step = job && (all || strcmp(part, "step") == 0);
    bench->has_generate = job && (all || strcmp(part, "generate") == 0);
    return bench->has_products || bench->has_step || bench->has_generate;
}

int tool_bench(int argc, char **argv)
{
    uint64_t tokens = TOKENS_DEFAULT, threads = 1;
    const char *part = "all", *device = "cpu";
    bool json = false;
    struct option_list rest;
    const struct option_row options[] = {
        {"tokens", OPTION_COUNT, &tokens, 1, TOKENS_MAX},
        {"threads", OPTION_COUNT, &threads, 1, POOL_THREADS_MAX},
        {"part", OPTION_TEXT, &part, 0, 0},
        {"device", OPTION_TEXT, &device, 0, 0},
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
    if (strcmp(device, "cpu") != 0) {
        const bool all = strcmp(part, "all") == 0, only = strcmp(part, "products") == 0;
        if (rest.count > 0 || !(all || only || strcmp(part, "steps") == 0)) {
            return tool_usage(argv[0], "--device %s takes no job, and --part all, products or steps", device);
        }
        int rc = bench_device(device, (size_t)tokens, all || only, all || !only, json, &err);
        return rc == 0 ? EXIT_DONE : tool_fail(&err);
    }
    struct job_spec spec;
    struct bench bench = {.tokens = (size_t)tokens, .machine.threads = (unsigned)threads};
    bool job = rest.count == 1;
    if (!choose_parts(&bench, part, job)) {
        return tool_usage(argv[0],
                          "--part is \"%s\": must be all, products or, with a job, step or "
                          "generate",
                          part);
    }
    spec_init(&spec);
    cpu_name(bench.machine.cpu);
    int rc = job ? tool_spec_load(&spec, rest.items[0], 1, threads, &err) : 0;
    if (rc == 0) {
        rc = measure(&bench, job ? &spec : NULL, &err);
    }
    if (rc == 0) {
        (json ? bench_print_json : bench_print_text)(&bench);
    }
    spec_release(&spec);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
