/* test_rights.c: who may ask what: every request by everybody who may come. */
#include "tests/unit/service_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

static const char alice[] = "alice-alice-alice", bob[] = "bob-bob-bob-bob-bob", admin[] = "root-root-root-root";
static char path[] = "/tmp/lanced-rights-XXXXXX";

static void write_tokens(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int set_up_tokens(void **state)
{
    write_tokens("# who may ask\nalice alice-alice-alice\n\n  bob\tbob-bob-bob-bob-bob\n"
                 "ops root-root-root-root admin\n");
    return set_up_with(state, NULL, path);
}

static struct message *ask_by(struct house *house, const char *token, const char *envelope)
{
    return ask_as(house, envelope, NULL, token, false);
}

static void assert_code_by(struct house *house, const char *token, const char *envelope, const char *code)
{
    struct message *answer = ask_by(house, token, envelope);
    if (strcmp(code_in(answer), code) != 0)
        fail_msg("%s: expected %s, got %s", envelope, code, code_in(answer));
    message_close(answer);
}

/* Alice's job "a", done. */
static void have_a_job(struct house *house)
{
    struct message *answer;
    char name[32] = "";
    assert_code_by(house, alice, SUBMIT("a", ",\"seed\":7,\"width\":32"), "ok");
    start_worker(house);
    for (int after = 0; strcmp(name, "done") != 0; message_close(answer)) {
        char envelope[200];
        snprintf(envelope, sizeof envelope, "{\"request\":\"wait\",\"job\":\"a\",\"after\":%d,\"timeout_ms\":60000}",
                 after);
        answer = ask_by(house, alice, envelope);
        after = last_event(answer, name);
    }
}

enum caller { NO_TOKEN, WRONG_TOKEN, BOB, ALICE, ADMIN, OWNER_OF_SOCKET, CALLERS };
static const char *const token_of[CALLERS] = {
    [WRONG_TOKEN] = "alice-alice-alicf", [BOB] = bob, [ALICE] = alice, [ADMIN] = admin};

#define JOB "\",\"job\":\"a\"}"
#define NO "forbidden"
static const struct {
    const char *request, *envelope; /* NULL: the request alone */
    const char *codes[CALLERS];
} table[] = {
    /* request, its fields: no token, a wrong one, another's, the owner's, an admin's, the socket's owner */
    {"hello", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"models", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"parameters", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"sampling",
     "{\"request\":\"sampling\",\"task\":\"x2t_video\",\"frames\":9,\"fps\":12}",
     {NO, NO, "ok", "ok", "ok", "ok"}},
    {"stats", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"metrics", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"jobs", NULL, {NO, NO, "ok", "ok", "ok", "ok"}},
    {"history", NULL, {NO, NO, "unsupported", "unsupported", "unsupported", "unsupported"}}, /* without a journal */
    {"put", "{\"request\":\"put\",\"blob\":\"put-1\",\"bytes\":5}", {NO, NO, "ok", "ok", "ok", "ok"}},
    {"load", NULL, {NO, NO, NO, NO, "ok", "ok"}},
    {"submit", SUBMIT("a", ",\"seed\":7,\"width\":32"), {NO, NO, NO, "ok", "ok", "ok"}},
    {"wait", "{\"request\":\"wait" JOB, {NO, NO, "not_found", "ok", "ok", "ok"}},
    {"result", "{\"request\":\"result" JOB, {NO, NO, "not_found", "ok", "ok", "ok"}},
    {"get",
     "{\"request\":\"get\",\"tensor\":\"pixels" JOB,
     {NO, NO, "not_found", "ok", "ok", "ok"}},
    {"cancel", "{\"request\":\"cancel" JOB, {NO, NO, "not_found", "ok", "ok", "ok"}},
    {"release", "{\"request\":\"release" JOB, {NO, NO, "ok", "ok", "ok", "ok"}}, /* as of one that is not known */
    {"unload", NULL, {NO, NO, NO, NO, "ok", "ok"}},
    {"shutdown", NULL, {NO, NO, NO, NO, "ok", "ok"}},
    {"nonsense", NULL, {NO, NO, "unsupported", "unsupported", "unsupported", "unsupported"}},
};
enum { ROWS = sizeof table / sizeof table[0] };

static void check_row(struct house *house, int row, enum caller caller)
{
    char alone[60];
    snprintf(alone, sizeof alone, "{\"request\":\"%s\"}", table[row].request);
    struct message *answer = ask_as(house, table[row].envelope ? table[row].envelope : alone, NULL,
                                    token_of[caller], caller == OWNER_OF_SOCKET);
    if (strcmp(code_in(answer), table[row].codes[caller]) != 0)
        fail_msg("%s by caller %d: expected %s, got %s", table[row].request, (int)caller, table[row].codes[caller],
                 code_in(answer));
    message_close(answer);
}

static void every_request_asks_for_its_right(void **state)
{
    struct house *house = *state;
    have_a_job(house);
    for (int row = 0; row < ROWS; row++)
        for (int caller = 0; caller < CALLERS; caller++) {
            if (strcmp(table[row].request, "release") == 0 && caller == ALICE) /* nobody else's took the job away */
                assert_code_by(house, alice, "{\"request\":\"wait" JOB, "ok");
            check_row(house, row, (enum caller)caller);
        }
    assert_int_equal(house->shutdowns, 2);
    assert_code_by(house, alice, "{\"request\":\"wait" JOB, "not_found");
}

static void the_table_has_every_request_that_the_service_knows(void **state)
{
    struct message *stats = ask_by(*state, admin, "{\"request\":\"stats\"}");
    const cJSON *known, *requests = cJSON_GetObjectItem(message_envelope(stats), "requests");
    int count = 0;
    cJSON_ArrayForEach(known, requests)
    {
        bool found = false;
        for (int row = 0; row < ROWS; row++)
            found = found || strcmp(table[row].request, known->string) == 0;
        if (!found)
            fail_msg("%s is missing", known->string);
        count++;
    }
    assert_int_equal(count, ROWS - 1); /* "nonsense" is none */
    message_close(stats);
}

static void assert_jobs(struct house *house, const char *token, const char *expected)
{
    char text[200] = "";
    struct message *answer = ask_as(house, "{\"request\":\"jobs\"}", NULL, token, !token);
    const cJSON *job, *jobs = cJSON_GetObjectItem(message_envelope(answer), "jobs");
    cJSON_ArrayForEach(job, jobs)
    {
        const char *owner = json_text(job, "owner");
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s:%s ", json_text(job, "job"), owner ? owner : "-");
    }
    message_close(answer);
    assert_string_equal(text, expected);
}

static void the_list_of_jobs_has_one_s_own_alone_and_an_admin_s_has_all(void **state)
{
    struct house *house = *state;
    assert_code_by(house, alice, SUBMIT("a", ""), "ok");
    assert_code_by(house, bob, SUBMIT("b", ""), "ok");
    message_close(ask_as(house, SUBMIT("c", ""), NULL, NULL, true));
    assert_jobs(house, alice, "a:alice ");
    assert_jobs(house, bob, "b:bob ");
    assert_jobs(house, admin, "a:alice b:bob c:- ");
    assert_jobs(house, NULL, "a:alice b:bob c:- ");
}

static void a_wait_that_is_parked_does_not_go_over_to_another_s_job_of_the_same_id(void **state)
{
    struct house *house = *state;
    struct visit visit;
    assert_code_by(house, alice, SUBMIT("a", ""), "ok");
    assert_false(begin_as(house, &visit, "{\"request\":\"wait\",\"job\":\"a\",\"after\":1,\"timeout_ms\":60000}", NULL,
                          alice, false));
    assert_code_by(house, alice, "{\"request\":\"release" JOB, "ok");
    assert_code_by(house, bob, SUBMIT("a", ""), "ok");
    wait_until_woken(&visit);
    assert_true(service_continue(&visit.call));
    struct message *answer = end(&visit);
    assert_string_equal(code_in(answer), "not_found");
    message_close(answer);
}

static enum job_word have_it_wait(void *context, const struct job_change *change, struct error *why)
{
    (void)context;
    (void)why;
    return change->what == JOB_ACCEPTED ? JOB_WAITS : JOB_GOES_ON;
}

static void nor_does_a_submit_that_is_parked(void **state)
{
    struct house *house = *state;
    static const struct job_observer journal = {.happened = have_it_wait}; /* the job has it until tear_down */
    struct visit first, second;
    jobs_observe(house->jobs, &journal);
    assert_false(begin_as(house, &first, SUBMIT("a", ""), NULL, alice, false));
    assert_code_by(house, alice, "{\"request\":\"release" JOB, "ok");
    assert_false(begin_as(house, &second, SUBMIT("a", ""), NULL, bob, false));
    wait_until_woken(&first);
    assert_true(service_continue(&first.call));
    struct message *answer = end(&first);
    assert_string_equal(code_in(answer), "forbidden");
    message_close(answer);
    const struct error none = {0};
    jobs_settle_accepted(house->jobs, 2, &none);
    wait_until_woken(&second);
    assert_true(service_continue(&second.call));
    message_close(end(&second));
}

static void tokens_that_are_read_anew_count_from_then_on_and_a_bad_file_changes_nothing(void **state)
{
    struct house *house = *state;
    write_tokens("alice alice-alice-alice-2\nops root-root-root-root admin\n");
    service_reread_tokens(house->service);
    assert_code_by(house, alice, "{\"request\":\"hello\"}", "forbidden");
    assert_code_by(house, bob, "{\"request\":\"hello\"}", "forbidden");
    assert_code_by(house, "alice-alice-alice-2", "{\"request\":\"hello\"}", "ok");
    write_tokens("alice short\n");
    service_reread_tokens(house->service);
    assert_code_by(house, "alice-alice-alice-2", "{\"request\":\"hello\"}", "ok");
    assert_code_by(house, admin, "{\"request\":\"load\",\"model\":\"none\"}", "not_found");
}

static void a_token_is_no_text_of_any_length_and_nothing_else_than_text(void **state)
{
    static char envelope[200000];
    char *longest = calloc(1, 100001);
    memset(longest, 'a', 100000);
    snprintf(envelope, sizeof envelope, "{\"request\":\"hello\",\"token\":\"%s\"}", longest);
    free(longest);
    const char *const envelopes[] = {envelope, "{\"request\":\"hello\",\"token\":7}",
                                     "{\"request\":\"hello\",\"token\":null}", "{\"request\":\"hello\",\"token\":\"\"}",
                                     "{\"request\":\"hello\",\"token\":[\"alice-alice-alice\"]}"};
    for (size_t i = 0; i < sizeof envelopes / sizeof envelopes[0]; i++)
        assert_code_by(*state, NULL, envelopes[i], "forbidden");
}

int main(void)
{
    int file = mkstemp(path);
    if (file < 0)
        return 1;
    close(file);
#define RIGHTS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_tokens, tear_down)
    const struct CMUnitTest tests[] = {
        RIGHTS_TEST(every_request_asks_for_its_right),
        RIGHTS_TEST(the_table_has_every_request_that_the_service_knows),
        RIGHTS_TEST(the_list_of_jobs_has_one_s_own_alone_and_an_admin_s_has_all),
        RIGHTS_TEST(a_wait_that_is_parked_does_not_go_over_to_another_s_job_of_the_same_id),
        RIGHTS_TEST(nor_does_a_submit_that_is_parked),
        RIGHTS_TEST(tokens_that_are_read_anew_count_from_then_on_and_a_bad_file_changes_nothing),
        RIGHTS_TEST(a_token_is_no_text_of_any_length_and_nothing_else_than_text),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
