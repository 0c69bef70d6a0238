#include "daemon/cli/sweep.h"
#include "proto/base/mem.h"
#include "proto/base/opt.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sweep_fault(struct sweep_faults *faults, const char *where, const char *format, ...)
{
    char text[ERR_TEXT_MAX + OPT_STRING_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    for (size_t i = 0; i < faults->count && i < SWEEP_FAULTS_MAX; i++) {
        if (faults->items[i].text && strcmp(faults->items[i].text, text) == 0) {
            faults->items[i].runs++;
            return;
        }
    }
    if (faults->count < SWEEP_FAULTS_MAX) {
        faults->items[faults->count] =
            (struct sweep_fault){mem_strdup(where), mem_strdup(text), 1};
    }
    faults->count++;
}

void sweep_faults_print(const struct sweep_faults *faults, const char *file)
{
    for (size_t i = 0; i < faults->count && i < SWEEP_FAULTS_MAX; i++) {
        const struct sweep_fault *item = &faults->items[i];
        const char *where = item->where ? item->where : "";
        fprintf(stderr, "%s: %s%s%s", file, where, *where ? ": " : "",
                item->text ? item->text : "(out of memory)");
        if (item->runs > 1) {
            fprintf(stderr, " (and in %zu more)", item->runs - 1);
        }
        fputc('\n', stderr);
    }
    if (faults->count > SWEEP_FAULTS_MAX) {
        fprintf(stderr, "%s: and %zu more faults\n", file, faults->count - SWEEP_FAULTS_MAX);
    }
}

void sweep_faults_release(struct sweep_faults *faults)
{
    for (size_t i = 0; i < faults->count && i < SWEEP_FAULTS_MAX; i++) {
        free(faults->items[i].where);
        free(faults->items[i].text);
    }
    *faults = (struct sweep_faults){0};
}
