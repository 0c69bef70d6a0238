/* A worker that trains nothing: the test program itself, run again by hebb-shim as `PROGRAM
 * --job FOLDER --attempt N`. What it does stands in the job's name, words separated by commas:
 *   steps=N ms=N      so many steps of so many milliseconds (10 steps of 1 ms)
 *   exit=N            leave with code N after the last step, with an error-0.json
 *   kill=N            end by signal N after the last step
 *   silent            leave with code 0 but without a done event
 *   deaf              look neither at control nor at signals
 *   orphan            leave a process of another session behind
 *   once              exit= and kill= on the first attempt only
 * It keeps the contract of docs/formats.md: events with seq, control, exit code 75, resume from
 * its last step. */
#ifndef HEBB_TEST_FAKE_WORKER_H
#define HEBB_TEST_FAKE_WORKER_H

#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct fake_worker {
    const char *folder;
    int64_t attempt, steps, ms, code, signal;
    bool silent, deaf, orphan, once;
};

static volatile sig_atomic_t fake_stop;

static void fake_on_signal(int signal)
{
    (void)signal;
    fake_stop = 1;
}

static void fake_read(struct fake_worker *fake, const char *name)
{
    static const char *const numbers[] = {"steps=", "ms=", "exit=", "kill="};
    int64_t *const fields[] = {&fake->steps, &fake->ms, &fake->code, &fake->signal};
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", name);
    for (char *word = strtok_r(copy, ",", &save); word != NULL;
         word = strtok_r(NULL, ",", &save)) {
        for (size_t i = 0; i < 4; i++)
            if (strncmp(word, numbers[i], strlen(numbers[i])) == 0)
                *fields[i] = strtoll(word + strlen(numbers[i]), NULL, 10);
        fake->silent |= strcmp(word, "silent") == 0;
        fake->deaf |= strcmp(word, "deaf") == 0;
        fake->orphan |= strcmp(word, "orphan") == 0;
        fake->once |= strcmp(word, "once") == 0;
    }
    if (fake->once && fake->attempt > 1)
        fake->code = fake->signal = 0;
}

static void fake_event(struct event_log *log, const char *type, int64_t step, int64_t attempt,
                       int64_t steps)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "type", type);
    if (strcmp(type, "start") == 0) {
        cJSON_AddNumberToObject(event, "attempt", (double)attempt);
        cJSON_AddNumberToObject(event, "steps", (double)steps);
        cJSON_AddNumberToObject(event, "tokens_per_step", 8);
    }
    cJSON_AddNumberToObject(event, "step", (double)step);
    cJSON_AddNumberToObject(event, "tokens", (double)step * 8);
    cJSON_AddNumberToObject(event, "loss", 5.0 - (double)step / 1000);
    if (strcmp(type, "checkpoint") == 0)
        cJSON_AddStringToObject(event, "path", "checkpoints/x");
    if (event_log_append(log, event, NULL) != 0)
        _exit(1);
}

static bool fake_control(const char *folder, const char *word)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, 64);
    bool same = fsx_path(path, NULL, "%s/control", folder) == 0 &&
                fsx_read(&text, path, NULL) == 0 && strncmp(text.data, word, strlen(word)) == 0;
    buf_release(&text);
    return same;
}

static int64_t fake_resume_step(const char *folder, int64_t save)
{
    char path[FSX_PATH_MAX], text[32];
    struct buf was;
    int64_t step = 0;
    if (fsx_path(path, NULL, "%s/fake-step", folder) != 0)
        return 0;
    if (save >= 0) {
        int len = snprintf(text, sizeof text, "%" PRId64, save);
        fsx_publish(path, text, (size_t)len, 0600, NULL);
        return save;
    }
    buf_init(&was, 64);
    if (fsx_read(&was, path, NULL) == 0)
        step = strtoll(was.data, NULL, 10);
    buf_release(&was);
    return step;
}

static int fake_end(const struct fake_worker *fake)
{
    char path[FSX_PATH_MAX];
    if (fake->signal != 0)
        kill(getpid(), (int)fake->signal);
    if (fake->code != 0 && fake->code != 75 &&
        fsx_path(path, NULL, "%s/attempt-%" PRId64 "/error-0.json", fake->folder,
                 fake->attempt) == 0) {
        static const char text[] =
            "{\"code\":1,\"rank\":0,\"error\":\"invalid\",\"message\":\"the fake failed\"}\n";
        fsx_publish(path, text, sizeof text - 1, 0600, NULL);
    }
    return (int)fake->code;
}

static int fake_steps(const struct fake_worker *fake, struct event_log *log)
{
    int64_t step = fake_resume_step(fake->folder, -1);
    fake_event(log, "start", step, fake->attempt, fake->steps);
    while (step < fake->steps) {
        bool checkpoint = !fake->deaf && fake_control(fake->folder, "checkpoint");
        bool stop = !fake->deaf && (fake_stop || fake_control(fake->folder, "stop"));
        if (checkpoint || stop) {
            char path[FSX_PATH_MAX];
            fake_resume_step(fake->folder, step);
            fake_event(log, "checkpoint", step, 0, 0);
            if (stop)
                return 75;
            if (fsx_path(path, NULL, "%s/control", fake->folder) == 0)
                fsx_publish(path, "run\n", 4, 0600, NULL);
        }
        fake_event(log, "step", ++step, 0, 0);
        nanosleep(
            &(struct timespec){.tv_sec = fake->ms / 1000, .tv_nsec = fake->ms % 1000 * 1000000},
            NULL);
    }
    int code = fake_end(fake);
    if (code == 0 && !fake->silent)
        fake_event(log, "done", step, 0, 0);
    return code;
}

/* Call first in main(): returns -1 if this is the test, else the fake worker's exit code. */
static int fake_worker_main(int argc, char **argv)
{
    if (argc != 5 || strcmp(argv[1], "--job") != 0)
        return -1;
    struct fake_worker fake = {
        .folder = argv[2], .attempt = strtoll(argv[4], NULL, 10), .steps = 10, .ms = 1};
    char path[FSX_PATH_MAX];
    cJSON *spec;
    struct event_log *log;
    if (fsx_path(path, NULL, "%s/spec.json", fake.folder) != 0 ||
        json_read(&spec, path, 1 << 20, NULL) != 0)
        return 2;
    fake_read(&fake, json_string(spec, "name"));
    cJSON_Delete(spec);
    struct sigaction action = {.sa_handler = fake.deaf ? SIG_IGN : fake_on_signal};
    sigaction(SIGUSR1, &action, NULL);
    if (fake.orphan && fork() == 0) {
        setsid();
        if (fork() == 0)
            sleep(600);
        _exit(0);
    }
    if (fsx_path(path, NULL, "%s/events.jsonl", fake.folder) != 0 ||
        event_log_open(&log, path, NULL) != 0)
        return 3;
    int code = fake_steps(&fake, log);
    event_log_close(log);
    return code;
}

#endif
