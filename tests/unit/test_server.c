/* test_server.c: jobs as the clients of a lanced see them, with a fake engine in place of the model. */
#include "tests/unit/server_fixture.h"

static void hello_tells_who_answers(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    const cJSON *hello = client_hello(client);
    assert_string_equal(json_text(hello, "version"), LANCED_VERSION);
    assert_int_equal(whole(hello, "protocol"), PROTOCOL_VERSION);
    assert_int_equal(whole(hello, "pid"), fixture->pid);
    assert_int_equal(strlen(json_text(hello, "generation")), 32);
    assert_int_equal(whole(cJSON_GetObjectItem(hello, "limits"), "message_bytes"), MESSAGE_LIMIT_BYTES);
    assert_string_equal(json_text(hello, "default_model"), "fake");
    client_close(client);
}

static void a_job_tells_every_step_and_gives_the_picture_of_its_seed(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    do_it(client, "submit",
          t2i("a", "a fox",
              ",\"seed\":\"18446744073709551615\",\"batch_size\":2,\"width\":32,\"num_inference_steps\":4"));
    assert_story(client, "a",
                 "queued started progress:denoise/1 progress:denoise/2 progress:denoise/3 progress:denoise/4 done");
    struct message *result = get(client, "result", job_named("a"));
    const cJSON *envelope = message_envelope(result), *receipt = cJSON_GetObjectItem(envelope, "receipt");
    assert_string_equal(json_text(envelope, "seed"), "18446744073709551615");
    assert_int_equal(whole(envelope, "width"), 32);
    assert_string_equal(json_text(receipt, "prompt"), "a fox");
    assert_string_equal(json_text(receipt, "version"), LANCED_VERSION);
    assert_string_equal(json_text(cJSON_GetObjectItem(receipt, "model"), "kind"), "fake");
    const cJSON *params = cJSON_GetObjectItem(receipt, "params");
    assert_int_equal(whole(params, "num_inference_steps"), 4);
    assert_string_equal(json_text(params, "seed"), "18446744073709551615");
    assert_string_equal(json_text(params, "guidance_renorm"), "global");
    assert_null(cJSON_GetObjectItem(params, "temperature"));
    assert_int_equal(whole(cJSON_GetObjectItem(receipt, "stages")->child, "steps"), 4);
    const struct tensor_view *pixels = message_tensor(result, "pixels");
    assert_non_null(pixels);
    assert_true(tensor_is(pixels, DTYPE_U8, 5, (uint64_t[]){2, 1, 32, 32, 3}));
    const uint8_t *bytes = pixels->data;
    for (size_t i = 0; i < 32 * 32 * 3; i++) {
        assert_int_equal(bytes[i], fake_pixel(UINT64_MAX, i));
        assert_int_equal(bytes[32 * 32 * 3 + i], fake_pixel(0, i));
    }
    message_close(result);
    client_close(client);
}

static void a_question_streams_its_answer(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    uint8_t pixels[4 * 4 * 3] = {0};
    const struct tensor_view source = {
        .name = "source", .dtype = DTYPE_U8, .dimensions = 4, .shape = {1, 4, 4, 3}, .data = pixels,
        .bytes = sizeof pixels};
    struct message *answer;
    struct error error;
    assert_int_equal(ask(client, "submit",
                         json("{\"job\":\"q\",\"task\":\"x2t_image\",\"params\":{\"prompt\":\"what?\",\"top_k\":5}}"),
                         &source, &answer, &error),
                     0);
    message_close(answer);
    assert_story(client, "q",
                 "queued started progress:text/1 text:one progress:text/2 text: two progress:text/3 text: three done");
    struct message *result = get(client, "result", job_named("q"));
    assert_string_equal(json_text(message_envelope(result), "text"), "one two three");
    const cJSON *params = cJSON_GetObjectItem(cJSON_GetObjectItem(message_envelope(result), "receipt"), "params");
    assert_int_equal(whole(params, "top_k"), 5);
    assert_null(cJSON_GetObjectItem(params, "num_inference_steps"));
    assert_true(tensor_is(message_tensor(result, "token_ids"), DTYPE_I32, 1, (uint64_t[]){3}));
    assert_null(message_tensor(result, "pixels"));
    message_close(result);
    client_close(client);
}

static void previews_come_with_their_events_and_only_when_asked_for(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 50", ",\"preview\":true"));
    struct story story = {0};
    struct error error;
    assert_int_equal(client_follow(client, "a", tell, &story, &error), 0);
    assert_int_equal(story.previews, 3);
    assert_non_null(strstr(story.text, "progress:denoise/1 preview progress:denoise/2 preview"));
    do_it(client, "submit", t2i("b", "a fox", ""));
    memset(&story, 0, sizeof story);
    assert_int_equal(client_follow(client, "b", tell, &story, &error), 0);
    assert_null(strstr(story.text, "preview"));
    client_close(client);
}

static void requests_answer_while_a_job_runs(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 2000", ""));
    wait_until_running(client, "a");
    static const char *const quick[] = {"hello", "models", "stats"};
    for (size_t i = 0; i < 3; i++) {
        double before = clock_seconds();
        do_it(client, quick[i], NULL);
        assert_true(clock_seconds() - before < 1);
    }
    double before = clock_seconds();
    do_it(client, "submit", t2i("b", "a fox", ""));
    do_it(client, "cancel", job_named("b"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_BUSY, "still running");
    assert_true(clock_seconds() - before < 1);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

static void wait_answers_at_its_time_and_at_once_when_there_is_news(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 1500", ""));
    wait_until_running(client, "a");
    double before = clock_seconds();
    struct message *answer = get(client, "wait", json("{\"job\":\"a\",\"after\":99,\"timeout_ms\":200}"));
    double took = clock_seconds() - before;
    assert_true(took >= 0.19 && took < 1.2);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(message_envelope(answer), "events")), 0);
    message_close(answer);
    answer = get(client, "wait", json("{\"job\":\"a\",\"timeout_ms\":60000}"));
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "events")->child, "event"), "queued");
    message_close(answer);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

static void *follow(void *argument)
{
    struct follower *follower = argument;
    struct error error;
    struct client *client;
    const struct client_options options = {
        .endpoint = follower->fixture->endpoint, .name = "test", .connect_timeout_ms = START_TIMEOUT_MS};
    follower->status = client_open(&client, &options, &error);
    if (follower->status != 0)
        return NULL;
    cJSON *fields = t2i(follower->job, follower->prompt, "");
    follower->status = client_request(client, "submit", fields, NULL, 0, NULL, &error);
    cJSON_Delete(fields);
    if (follower->status == 0)
        follower->status = client_follow(client, follower->job, tell, &follower->story, &error);
    client_close(client);
    return NULL;
}

static void clients_follow_their_jobs_at_once(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    client_close(connect_to(fixture));
    struct follower followers[] = {{.fixture = fixture, .job = "one", .prompt = "sleep 30"},
                                   {.fixture = fixture, .job = "two", .prompt = "sleep 10"},
                                   {.fixture = fixture, .job = "three", .prompt = "fail 2"},
                                   {.fixture = fixture, .job = "four", .prompt = "sleep 20"}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(followers[i].status, i == 2 ? ERROR_INTERNAL : 0);
        assert_non_null(
            strstr(followers[i].story.text, i == 2 ? "progress:denoise/1 failed" : "progress:denoise/3 done"));
    }
}

static void a_repeated_submit_starts_nothing(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    struct message *answer = get(client, "submit", t2i("a", "a fox", ""));
    assert_string_equal(json_text(message_envelope(answer), "state"), "done");
    message_close(answer);
    assert_int_equal(stat_of(client, "jobs.submitted"), 1);
    assert_int_equal(stat_of(client, "jobs.done"), 1);
    client_close(client);
}

static void cancel_stops_a_job_within_one_step(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 300", ",\"num_inference_steps\":100"));
    struct story story = {.cancel_at = 3};
    struct error error;
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_CANCELLED);
    assert_non_null(strstr(story.text, "progress:denoise/3"));
    assert_null(strstr(story.text, "progress:denoise/5"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_CANCELLED, "cancelled");
    do_it(client, "cancel", job_named("a"));
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void a_full_queue_is_busy(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--queue", "1");
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 1000", ""));
    wait_until_running(client, "a");
    struct message *answer = get(client, "submit", t2i("b", "a fox", ""));
    assert_int_equal(whole(message_envelope(answer), "position"), 1);
    message_close(answer);
    assert_refused(client, "submit", t2i("c", "a fox", ""), NULL, ERROR_BUSY, "queue is full");
    do_it(client, "cancel", job_named("b"));
    do_it(client, "submit", t2i("c", "a fox", ""));
    do_it(client, "cancel", job_named("a"));
    assert_done(client, "c");
    client_close(client);
}

static void a_failed_job_says_why_and_the_next_one_works(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct story story = {0};
    struct error error;
    do_it(client, "submit", t2i("a", "fail 2", ""));
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_INTERNAL);
    assert_string_equal(error.text, "step 2 failed as it was told");
    assert_refused(client, "result", job_named("a"), NULL, ERROR_INTERNAL, "step 2 failed");
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void wrong_parameters_are_refused_by_name(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    static const struct {
        const char *more, *words;
        int code;
    } wrong[] = {
        {",\"width\":\"wide\"", "width: must be a whole number below 2^31, not \"wide\"", ERROR_BAD_REQUEST},
        {",\"width\":1.5", "width: must be a whole number", ERROR_BAD_REQUEST},
        {",\"height\":1e30", "height: must be a whole number", ERROR_BAD_REQUEST},
        {",\"seed\":-1", "seed: must be a whole number from 0", ERROR_BAD_REQUEST},
        {",\"seed\":18446744073709551615", "as a decimal string", ERROR_BAD_REQUEST},
        {",\"seed\":\"18446744073709551616\"", "seed:", ERROR_BAD_REQUEST},
        {",\"guidance_scale\":null", "guidance_scale: must be a finite number, not null", ERROR_BAD_REQUEST},
        {",\"guidance_scale\":1e999", "guidance_scale: must be a finite number", ERROR_BAD_REQUEST},
        {",\"guidance_interval\":[0.4]", "guidance_interval: must be [low, high]", ERROR_BAD_REQUEST},
        {",\"guidance_renorm\":\"max\"", "one of \"global\", \"channel\", \"none\"", ERROR_BAD_REQUEST},
        {",\"decode\":1", "decode: must be true or false", ERROR_BAD_REQUEST},
        {",\"preview\":\"yes\"", "preview: must be true or false", ERROR_BAD_REQUEST},
        {",\"fps\":-3", "fps:", ERROR_BAD_REQUEST},
        {",\"num_inference_steps\":0", "num_inference_steps: must be at least 1", ERROR_BAD_REQUEST},
        {",\"noise_source\":\"client\"", "needs the tensor \"noise\"", ERROR_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused(client, "submit", t2i("a", "a fox", wrong[i].more), NULL, wrong[i].code, wrong[i].words);
    assert_refused(client, "submit", t2i("a", "refuse", ""), NULL, ERROR_BAD_REQUEST, "asks to be refused");
    assert_refused(client, "submit", t2i("no spaces", "a fox", ""), NULL, ERROR_BAD_REQUEST, "job: must be");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"paint\",\"params\":{}}"), NULL, ERROR_BAD_REQUEST,
                   "\"paint\" is unknown to lanced " LANCED_VERSION "; known: t2i");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2v\",\"params\":{\"prompt\":\"\"}}"), NULL,
                   ERROR_UNSUPPORTED, "t2v");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2i\",\"params\":{}}"), NULL, ERROR_BAD_REQUEST,
                   "prompt: is missing");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2i\"}"), NULL, ERROR_BAD_REQUEST, "params:");
    assert_refused(client, "submit",
                   json("{\"job\":\"a\",\"task\":\"t2i\",\"model\":\"big\",\"params\":{\"prompt\":\"\"}}"), NULL,
                   ERROR_NOT_FOUND, "\"big\" is not offered here; offered: fake");
    assert_refused(client, "wait", job_named("a"), NULL, ERROR_NOT_FOUND, "not known");
    assert_refused(client, "dance", NULL, NULL, ERROR_UNSUPPORTED, "\"dance\" is not known");
    struct message *answer = get(client, "submit", t2i("a", "a fox", ",\"guidance_scael\":7"));
    const cJSON *ignored = cJSON_GetObjectItem(message_envelope(answer), "ignored");
    assert_int_equal(cJSON_GetArraySize(ignored), 1);
    assert_string_equal(ignored->child->valuestring, "guidance_scael");
    message_close(answer);
    assert_done(client, "a");
    client_close(client);
}

static void a_job_refused_by_a_model_that_was_not_loaded_yet_fails_with_the_same_words(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--lazy");
    struct client *client = connect_to(fixture);
    struct story story = {0};
    struct error error;
    do_it(client, "submit", t2i("a", "refuse", ""));
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_BAD_REQUEST);
    assert_string_equal(error.text, "prompt: asks to be refused");
    assert_string_equal(story.text, "queued started progress:load/0 progress:load/1 failed");
    client_close(client);
}

static void noise_must_have_its_shape(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    float noise[8 * 48] = {0}; /* 64x32 pixels: 8 cells */
    struct tensor_view tensor = {
        .name = "noise", .dtype = DTYPE_F32, .dimensions = 3, .shape = {1, 8, 48}, .data = noise,
        .bytes = sizeof noise};
    const char *client_noise = ",\"noise_source\":\"client\"";
    struct message *answer;
    struct error error;
    assert_int_equal(ask(client, "submit", t2i("a", "a fox", client_noise), &tensor, &answer, &error), 0);
    message_close(answer);
    assert_done(client, "a");
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST,
                   "needs noise_source \"client\"");
    assert_refused(client, "submit", t2i("b", "a fox", ",\"noise_source\":\"client\",\"width\":80"), &tensor,
                   ERROR_BAD_REQUEST, "must be F32 [batch_size 1, tokens 10, 48], not F32 [1,8,48]");
    assert_refused(
        client, "submit",
        t2i("b", "a fox",
            ",\"noise_source\":\"client\",\"width\":2147483647,\"height\":2147483647,\"num_frames\":2147483647"),
        &tensor, ERROR_BAD_REQUEST, "tensor \"noise\"");
    tensor.name = "nose";
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST, "tensor \"nose\": is unknown");
    tensor.name = "source";
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST,
                   "tensor \"source\": must be U8 [frames,height,width,3], not F32 [1,8,48]");
    client_close(client);
}

static void results_can_be_fetched_again_until_released(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--result-seconds", "1");
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    do_it(client, "result", job_named("a"));
    do_it(client, "result", job_named("a"));
    do_it(client, "release", job_named("a"));
    do_it(client, "release", job_named("a"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_NOT_FOUND, "released, or has expired");
    do_it(client, "result", job_named("b"));
    for (int i = 0; i < 50 && stat_of(client, "jobs.expired") == 0; i++)
        nng_msleep(100);
    assert_refused(client, "result", job_named("b"), NULL, ERROR_NOT_FOUND, "expired");
    client_close(client);
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_lanced(argc, argv, &code))
        return code;
    const struct CMUnitTest tests[] = {
        SERVER_TEST(hello_tells_who_answers),
        SERVER_TEST(a_job_tells_every_step_and_gives_the_picture_of_its_seed),
        SERVER_TEST(a_question_streams_its_answer),
        SERVER_TEST(previews_come_with_their_events_and_only_when_asked_for),
        SERVER_TEST(requests_answer_while_a_job_runs),
        SERVER_TEST(wait_answers_at_its_time_and_at_once_when_there_is_news),
        SERVER_TEST(clients_follow_their_jobs_at_once),
        SERVER_TEST(a_repeated_submit_starts_nothing),
        SERVER_TEST(cancel_stops_a_job_within_one_step),
        SERVER_TEST(a_full_queue_is_busy),
        SERVER_TEST(a_failed_job_says_why_and_the_next_one_works),
        SERVER_TEST(wrong_parameters_are_refused_by_name),
        SERVER_TEST(a_job_refused_by_a_model_that_was_not_loaded_yet_fails_with_the_same_words),
        SERVER_TEST(noise_must_have_its_shape),
        SERVER_TEST(results_can_be_fetched_again_until_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
