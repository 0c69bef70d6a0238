/* What Slurm's commands say, as captured from Slurm 22.05 (and, for accounting, written after
 * its documentation), and what is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/slurm_parse.h"
#include "daemon/slurm_script.h"
#include <stdlib.h>
#include <string.h>

static const char squeue[] = "1|COMPLETED|None|(null)|sbatch\n"
                             "7|PENDING|PartitionConfig|hebb:7e7cfbfe09b1ccec.1\n"
                             "8|RUNNING|None|hebb:31e07e13c240bba4.12\n"
                             "9|COMPLETING|NonZeroExitCode|hebb:31e07e13c240bba4.13\n"
                             "10|CANCELLED|None|hebb:aa\n"
                             "11_3|PENDING|Resources|array\n";

static void squeue_lists_our_jobs_only(void **state)
{
    (void)state;
    struct slurm_job *jobs;
    size_t count;
    assert_int_equal(slurm_parse_squeue(&jobs, &count, squeue, strlen(squeue), NULL), 0);
    assert_int_equal(count, 4);
    assert_int_equal(jobs[0].number, 7);
    assert_string_equal(jobs[0].key, "7e7cfbfe09b1ccec.1");
    assert_string_equal(jobs[0].reason, "PartitionConfig");
    assert_int_equal(jobs[0].phase, SLURM_WAITS);
    assert_int_equal(jobs[1].phase, SLURM_LIVES);
    assert_int_equal(jobs[2].phase, SLURM_LIVES);
    assert_int_equal(jobs[3].phase, SLURM_ENDED);
    free(jobs);
    assert_int_equal(slurm_parse_squeue(&jobs, &count, "", 0, NULL), 0);
    assert_int_equal(count, 0);
    free(jobs);
}

static void answer_that_is_cut_off_is_no_answer(void **state)
{
    (void)state;
    struct slurm_job *jobs;
    size_t count;
    struct err err;
    static const char *const bad[] = {"7|PENDING|Resources|hebb:7e7cf", "7|PENDING\n",
                                      "x|PENDING|None|hebb:a.1\n", "|||hebb:a.1\n",
                                      "slurm_load_jobs error: none\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(slurm_parse_squeue(&jobs, &count, bad[i], strlen(bad[i]), &err),
                         ERR_CORRUPT);
        assert_null(jobs);
    }
    for (size_t len = 1; len < strlen(squeue); len++) { /* never a job that is not there */
        char *part = strndup(squeue, len);
        if (slurm_parse_squeue(&jobs, &count, part, len, NULL) == 0) {
            assert_int_equal(part[len - 1], '\n');
            free(jobs);
        }
        free(part);
    }
}

static void word_of_a_later_slurm_is_taken_for_a_living_job(void **state)
{
    (void)state;
    assert_int_equal(slurm_phase("EXPEDITING"), SLURM_LIVES);
    assert_int_equal(slurm_phase(""), SLURM_LIVES);
    assert_int_equal(slurm_phase("NODE_FAIL"), SLURM_ENDED);
}

static void sbatch_gives_a_number(void **state)
{
    (void)state;
    int64_t number;
    assert_int_equal(slurm_parse_sbatch(&number, "12\n", NULL), 0);
    assert_int_equal(number, 12);
    assert_int_equal(slurm_parse_sbatch(&number, "4;try\n", NULL), 0);
    assert_int_equal(number, 4);
    assert_int_equal(slurm_parse_sbatch(&number, "Submitted batch job 4\n", NULL), ERR_CORRUPT);
    assert_int_equal(slurm_parse_sbatch(&number, "", NULL), ERR_CORRUPT);
    assert_int_equal(slurm_parse_sbatch(&number, "-4\n", NULL), ERR_CORRUPT);
}

static void accounting_counts_for_the_number_and_the_name(void **state)
{
    (void)state;
    char word[SLURM_WORD_MAX];
    static const char text[] = "12|other|FAILED\n12|hebb-aa|COMPLETED\n12|hebb-aa|CANCELLED by "
                               "1000\n13|hebb-aa|NODE_FAIL\n";
    assert_true(slurm_parse_sacct(word, text, 12, "hebb-aa"));
    assert_string_equal(word, "CANCELLED");
    assert_true(slurm_parse_sacct(word, text, 13, "hebb-aa"));
    assert_string_equal(word, "NODE_FAIL");
    assert_false(slurm_parse_sacct(word, text, 14, "hebb-aa"));
    assert_false(slurm_parse_sacct(word, "", 12, "hebb-aa"));
}

static void refusal_is_told_from_a_controller_that_is_not_there(void **state)
{
    (void)state;
    static const char *const refusals[] = {
        "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission "
        "failed: Invalid partition name specified\n",
        "sbatch: error: Batch job submission failed: More processors requested than "
        "permitted\n",
        "sbatch: error: Invalid generic resource (gres) specification\n",
        "sbatch: unrecognized option '--frob'\nTry \"sbatch --help\" for more information\n"};
    static const char *const later[] = {
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller "
        "(connect "
        "failure)\n",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
        "sbatch: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf: No such file "
        "or "
        "directory, retrying in 1sec up to 60sec\n",
        "sbatch: error: Batch job submission failed: Slurm temporarily unable to accept job, "
        "sleeping and retrying\n",
        ""};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        assert_true(slurm_refused(refusals[i]));
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        assert_false(slurm_refused(later[i]));
}

static void reasons_that_cannot_clear_are_known(void **state)
{
    (void)state;
    assert_non_null(slurm_never("PartitionNodeLimit"));
    assert_non_null(slurm_never("(launch failed requeued held)"));
    assert_null(slurm_never("Resources"));
    assert_null(slurm_never("Priority"));
    assert_null(slurm_never("None"));
}

static void options_are_those_that_the_administrator_allows_and_never_ours(void **state)
{
    (void)state;
    char *allowed[] = {"--constraint=*", "--exclusive", "--*"};
    struct slurm_config config = {.allowed = allowed, .allowed_count = 2};
    assert_null(slurm_option_fault(&config, "--constraint=ib"));
    assert_null(slurm_option_fault(&config, "--exclusive"));
    assert_non_null(slurm_option_fault(&config, "--exclusive=user"));
    assert_non_null(slurm_option_fault(&config, "--mem=1G"));
    config.allowed_count = 3; /* everything, it seems */
    assert_null(slurm_option_fault(&config, "--mem=1G"));
    static const char *const ours[] = {
        "--wrap=id",   "--wra=id", "--comment=x", "--chdir=/", "--output=/x", "--export=ALL",
        "--array=1-9", "--time=1", "--wait",      "--uid=0",   "--job-n=x",   "--o=x"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        assert_non_null(slurm_option_fault(&config, ours[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squeue_lists_our_jobs_only),
        cmocka_unit_test(answer_that_is_cut_off_is_no_answer),
        cmocka_unit_test(word_of_a_later_slurm_is_taken_for_a_living_job),
        cmocka_unit_test(sbatch_gives_a_number),
        cmocka_unit_test(accounting_counts_for_the_number_and_the_name),
        cmocka_unit_test(refusal_is_told_from_a_controller_that_is_not_there),
        cmocka_unit_test(reasons_that_cannot_clear_are_known),
        cmocka_unit_test(options_are_those_that_the_administrator_allows_and_never_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
