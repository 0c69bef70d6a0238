#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/jobs_state.h"
#include <stdio.h>
#include <string.h>

/* The whole machine, written a second time as a table of words: "-" is refused. */
static const char *const expected[JOB_STATES][JOB_EVENTS + 1] = {
    /* state        schedule    begin       pause     resume    cancel       checkpoint done
       stopped     fatal       failed       exhausted   due */
    {"queued", "starting", "-", "paused", "queued", "cancelled", "-", "-", "-", "-", "-", "-",
     "-"},
    {"starting", "-", "running", "pausing", "starting", "cancelling", "starting", "succeeded",
     "queued", "failed", "retry_wait", "failed", "-"},
    {"running", "-", "running", "pausing", "running", "cancelling", "running", "succeeded",
     "queued", "failed", "retry_wait", "failed", "-"},
    {"pausing", "-", "pausing", "pausing", "-", "cancelling", "-", "succeeded", "paused",
     "failed", "paused", "failed", "-"},
    {"paused", "-", "-", "paused", "queued", "cancelled", "-", "-", "-", "-", "-", "-", "-"},
    {"retry_wait", "-", "-", "paused", "queued", "cancelled", "-", "-", "-", "-", "-", "-",
     "queued"},
    {"cancelling", "-", "cancelling", "-", "-", "cancelling", "-", "succeeded", "cancelled",
     "cancelled", "cancelled", "cancelled", "-"},
    {"succeeded", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"},
    {"failed", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"},
    {"cancelled", "-", "-", "-", "-", "cancelled", "-", "-", "-", "-", "-", "-", "-"},
};

static void every_state_answers_every_event_as_the_table_says(void **state)
{
    (void)state;
    for (int from = 0; from < JOB_STATES; from++) {
        assert_string_equal(job_state_name((enum job_state)from), expected[from][0]);
        for (int event = 0; event < JOB_EVENTS; event++) {
            enum job_state next;
            bool allowed = job_state_next((enum job_state)from, (enum job_event)event, &next);
            const char *got = allowed ? job_state_name(next) : "-";
            if (strcmp(got, expected[from][event + 1]) != 0)
                fail_msg("%s + %s gives %s, expected %s", expected[from][0],
                         job_event_name((enum job_event)event), got, expected[from][event + 1]);
        }
    }
}

static void final_states_lead_nowhere_else(void **state)
{
    (void)state;
    for (int from = 0; from < JOB_STATES; from++)
        for (int event = 0; event < JOB_EVENTS; event++) {
            enum job_state next;
            if (job_state_final((enum job_state)from) &&
                job_state_next((enum job_state)from, (enum job_event)event, &next))
                assert_int_equal(next, from);
        }
}

static void every_state_that_is_not_final_can_be_cancelled(void **state)
{
    (void)state;
    for (int from = 0; from < JOB_STATES; from++) {
        enum job_state next;
        if (job_state_final((enum job_state)from))
            continue;
        assert_true(job_state_next((enum job_state)from, EVENT_CANCEL, &next));
        assert_true(next == JOB_CANCELLED || next == JOB_CANCELLING);
    }
}

static void state_names_parse_back(void **state)
{
    (void)state;
    for (int i = 0; i < JOB_STATES; i++) {
        enum job_state parsed;
        assert_true(job_state_parse(&parsed, job_state_name((enum job_state)i)));
        assert_int_equal(parsed, i);
    }
    enum job_state parsed;
    assert_false(job_state_parse(&parsed, "Running"));
    assert_false(job_state_parse(&parsed, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_answers_every_event_as_the_table_says),
        cmocka_unit_test(final_states_lead_nowhere_else),
        cmocka_unit_test(every_state_that_is_not_final_can_be_cancelled),
        cmocka_unit_test(state_names_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
