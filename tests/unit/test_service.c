/* test_service.c: the protocol's requests without a socket: messages in, answers out, at once or when there is news. */
#include "tests/unit/service_fixture.h"

static int set_up_secret(void **state)
{
    return set_up_with(state, "secret", NULL);
}

/* --- Tests ------------------------------------------------------------------------------- */

static void a_job_goes_from_hello_to_its_picture_without_a_socket(void **state)
{
    struct house *house = *state;
    struct message *hello = get(house, "{\"request\":\"hello\"}");
    assert_string_equal(json_text(message_envelope(hello), "version"), LANCED_VERSION);
    message_close(hello);
    do_it(house, SUBMIT("a", ",\"seed\":7,\"width\":32"));
    start_worker(house);
    follow_to_the_end(house, "a");
    struct message *result = get(house, "{\"request\":\"result\",\"job\":\"a\"}");
    const struct tensor_view *pixels = message_tensor(result, "pixels");
    assert_true(tensor_is(pixels, DTYPE_U8, 5, (uint64_t[]){1, 1, 32, 32, 3}));
    for (size_t i = 0; i < pixels->bytes; i++)
        assert_int_equal(((const uint8_t *)pixels->data)[i], fake_pixel(7, i));
    message_close(result);
}

static void a_wait_is_parked_and_woken_by_the_job_s_next_event(void **state)
{
    struct house *house = *state;
    char name[32];
    do_it(house, SUBMIT("a", ""));
    struct visit visit;
    assert_false(begin(house, &visit, "{\"request\":\"wait\",\"job\":\"a\",\"after\":1,\"timeout_ms\":60000}", NULL));
    assert_int_equal(waiting(house), 1);
    start_worker(house);
    wait_until_woken(&visit);
    assert_true(service_continue(&visit.call));
    struct message *answer = end(&visit);
    assert_true(last_event(answer, name) >= 2);
    message_close(answer);
}

/* A journal that has written nothing yet. */
static enum job_word have_it_wait(void *context, const struct job_change *change, struct error *why)
{
    (void)context;
    (void)why;
    return change->what == JOB_ACCEPTED ? JOB_WAITS : JOB_GOES_ON;
}

static void a_submit_is_answered_when_the_journal_has_written_it_down(void **state)
{
    struct house *house = *state;
    static const struct job_observer journal = {.happened = have_it_wait}; /* the jobs have it until tear_down */
    const struct error none = {0};
    struct error full;
    struct visit first, again;
    jobs_observe(house->jobs, &journal);
    start_worker(house);
    assert_false(begin(house, &first, SUBMIT("a", ""), NULL));
    assert_false(begin(house, &again, SUBMIT("a", ""), NULL)); /* its client had lost the connection */
    assert_int_equal(waiting(house), 2);
    jobs_settle_accepted(house->jobs, 1, &none);
    struct visit *visits[] = {&first, &again};
    for (int i = 0; i < 2; i++) {
        wait_until_woken(visits[i]);
        assert_true(service_continue(&visits[i]->call));
        struct message *answer = end(visits[i]);
        assert_string_equal(code_in(answer), "ok");
        message_close(answer);
    }
    follow_to_the_end(house, "a");
    assert_false(begin(house, &first, SUBMIT("b", ""), NULL));
    error_set(&full, ERROR_IO, "the state folder is full: 3 bytes are left");
    jobs_settle_accepted(house->jobs, 2, &full);
    wait_until_woken(&first);
    assert_true(service_continue(&first.call));
    struct message *answer = end(&first);
    assert_string_equal(code_in(answer), "io");
    message_close(answer);
    assert_error(house, "{\"request\":\"wait\",\"job\":\"b\"}", "not_found");
}

static void a_wait_whose_time_is_over_gets_an_empty_list(void **state)
{
    struct house *house = *state;
    char name[32];
    do_it(house, SUBMIT("a", ""));
    struct visit visit;
    assert_false(begin(house, &visit, "{\"request\":\"wait\",\"job\":\"a\",\"after\":1,\"timeout_ms\":60000}", NULL));
    visit.call.until = 0; /* as the door sees it when the time is over */
    assert_true(service_continue(&visit.call));
    struct message *answer = end(&visit);
    assert_int_equal(last_event(answer, name), 0);
    message_close(answer);
}

static void who_hangs_up_while_parked_gets_no_answer_and_keeps_no_place(void **state)
{
    struct house *house = *state;
    do_it(house, SUBMIT("a", ""));
    static const char *const that_park[] = {
        "{\"request\":\"wait\",\"job\":\"a\",\"after\":1,\"timeout_ms\":60000}",
        "{\"request\":\"load\"}",
        "{\"request\":\"unload\"}", /* of the model that is to be loaded */
    };
    enum { COUNT = sizeof that_park / sizeof that_park[0] };
    struct visit visits[COUNT];
    for (int i = 0; i < COUNT; i++)
        assert_false(begin(house, &visits[i], that_park[i], NULL));
    assert_int_equal(waiting(house), COUNT);
    service_client_gone(house->service, 1);
    for (int i = 0; i < COUNT; i++) {
        assert_true(visits[i].is_woken);
        assert_true(service_continue(&visits[i].call));
        assert_null(visits[i].call.answer);
        call_clear(&visits[i].call);
    }
    assert_int_equal(waiting(house), 0);
}

static void load_and_unload_find_no_place_among_as_many_as_may_be_parked(void **state)
{
    struct house *house = *state;
    struct visit *visits = calloc(CALLS_MOST_PARKED, sizeof *visits);
    for (int i = 0; i < CALLS_MOST_PARKED; i++)
        assert_false(
            begin(house, &visits[i], i % 2 != 0 ? "{\"request\":\"unload\"}" : "{\"request\":\"load\"}", NULL));
    assert_int_equal(waiting(house), CALLS_MOST_PARKED);
    assert_error(house, "{\"request\":\"load\"}", "busy");
    struct message *answer = get(house, "{\"request\":\"unload\"}");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "pending")));
    message_close(answer);
    assert_int_equal(waiting(house), CALLS_MOST_PARKED);
    service_client_gone(house->service, 1);
    for (int i = 0; i < CALLS_MOST_PARKED; i++) {
        assert_true(service_continue(&visits[i].call));
        call_clear(&visits[i].call);
    }
    assert_int_equal(waiting(house), 0);
    free(visits);
}

static void a_model_that_is_loading_parks_whoever_asks_for_it(void **state)
{
    struct house *house = *state;
    struct visit visit;
    assert_false(begin(house, &visit, "{\"request\":\"load\"}", NULL));
    start_worker(house);
    wait_until_woken(&visit);
    while (!service_continue(&visit.call))
        wait_until_woken(&visit);
    struct message *answer = end(&visit);
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "model"), "kind"), "fake");
    message_close(answer);
    answer = get(house, "{\"request\":\"unload\"}");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "unloaded")));
    message_close(answer);
}

static void what_is_wrong_is_answered_in_words(void **state)
{
    struct house *house = *state;
    assert_error(house, "{\"request\":\"dance\"}", "unsupported");
    assert_error(house, "{\"request\":\"wait\",\"job\":\"nobody\"}", "not_found");
    assert_error(house, "{\"request\":\"submit\",\"job\":\"a\",\"task\":\"t2i\",\"params\":[1]}", "bad_request");
    do_it(house, SUBMIT("a", ""));
    assert_error(house, "{\"request\":\"result\",\"job\":\"a\"}", "busy");
    do_it(house, "{\"request\":\"cancel\",\"job\":\"a\"}");
    assert_error(house, "{\"request\":\"result\",\"job\":\"a\"}", "cancelled");
    do_it(house, "{\"request\":\"shutdown\"}");
    assert_int_equal(house->shutdowns, 1);
}

static void bytes_that_are_no_message_are_refused_and_let_go(void **state)
{
    struct house *house = *state;
    struct visit visit = {.call = {.park = park, .wake = wake}, .house = house};
    call_open(&visit.call, house->service);
    char *garbage = strdup("not a message");
    assert_true(service_handle(&visit.call, garbage, strlen(garbage), garbage, free));
    struct message *answer = end(&visit);
    assert_string_equal(code_in(answer), "bad_request");
    message_close(answer);
}

static void without_the_token_nothing_is_told(void **state)
{
    struct house *house = *state;
    assert_error(house, "{\"request\":\"hello\"}", "forbidden");
    assert_error(house, "{\"request\":\"hello\",\"token\":\"secre\"}", "forbidden");
    do_it(house, "{\"request\":\"hello\",\"token\":\"secret\"}");
}

/* --- Payloads in pieces -------------------------------------------------------------------- */

#define HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void hash_of(const void *data, size_t bytes, char hex[SHA256_HEX_BYTES])
{
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, data, bytes);
    sha256_finish(&sha, hex);
}

static struct tensor_view piece_of(const void *data, uint64_t bytes)
{
    return (struct tensor_view){
        .name = "piece", .dtype = DTYPE_U8, .dimensions = 1, .shape = {bytes}, .data = data, .bytes = bytes};
}

/* An answer to a put of all at once. */
static struct message *put_at_once(struct house *house, const void *data, size_t bytes, const char *hex,
                                   const char *more)
{
    char envelope[300];
    const struct tensor_view piece = piece_of(data, bytes);
    snprintf(envelope, sizeof envelope, "{\"request\":\"put\",\"blob\":\"%s\",\"bytes\":%zu%s}", hex, bytes, more);
    return ask(house, envelope, &piece);
}

static void submit_with_noise(char envelope[500], const char *job, const char *hex)
{
    snprintf(envelope, 500,
             "{\"request\":\"submit\",\"job\":\"%s\",\"task\":\"t2i\",\"params\":{\"prompt\":\"a "
             "fox\",\"noise_source\":\"client\"},"
             "\"tensors\":{\"noise\":{\"blob\":\"%s\",\"dtype\":\"F32\",\"shape\":[1,8,48]}}}",
             job, hex);
}

static void a_job_takes_its_tensor_from_a_blob_and_says_which_is_missing(void **state)
{
    struct house *house = *state;
    static const float noise[8 * 48] = {1, 2, 3};
    char hex[SHA256_HEX_BYTES], envelope[500];
    hash_of(noise, sizeof noise, hex);
    submit_with_noise(envelope, "a", hex);
    struct message *answer = ask(house, envelope, NULL);
    assert_string_equal(code_in(answer), "not_found");
    const cJSON *missing = cJSON_GetObjectItem(message_envelope(answer), "missing_blobs");
    assert_int_equal(cJSON_GetArraySize(missing), 1);
    assert_string_equal(cJSON_GetArrayItem(missing, 0)->valuestring, hex);
    message_close(answer);
    answer = put_at_once(house, noise, sizeof noise, hex, "");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "complete")));
    message_close(answer);
    do_it(house, envelope);
    start_worker(house);
    follow_to_the_end(house, "a");
}

/* One that wants blobs whose bytes, 8 MiB at most, can never be there at once would wait for room for ever. */
static void a_job_whose_blobs_never_fit_together_is_refused_at_once(void **state)
{
    struct house *house = *state;
    static const char other[] = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct {
        const char *noise_hash;
        int rows; /* of 192 bytes each */
        const char *code;
    } requests[] = {{other, 21846, "too_large"}, {other, 21845, "not_found"}, {HASH, 21846, "not_found"}};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        char envelope[900];
        snprintf(envelope, sizeof envelope,
                 "{\"request\":\"submit\",\"job\":\"a\",\"task\":\"t2i\",\"params\":{\"prompt\":\"a fox\","
                 "\"noise_source\":\"client\",\"width\":16,\"height\":%d},\"tensors\":{"
                 "\"latents\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[1,48,1,%d,1]},"
                 "\"noise\":{\"blob\":\"%s\",\"dtype\":\"F32\",\"shape\":[1,%d,48]}}}",
                 16 * requests[i].rows, requests[i].rows, requests[i].noise_hash, requests[i].rows);
        assert_error(house, envelope, requests[i].code);
    }
}

/* NaN and infinity cannot be written in JSON: they come in tensors. */
static void a_number_that_is_none_is_refused_when_it_is_submitted(void **state)
{
    struct house *house = *state;
    static float noise[4 * 48];
    const struct tensor_view tensor = {.name = "noise", .dtype = DTYPE_F32, .dimensions = 3, .shape = {1, 4, 48},
        .data = noise,
                                       .bytes = sizeof noise};
    noise[17] = -INFINITY;
    struct message *answer =
        ask(house, SUBMIT("a", ",\"noise_source\":\"client\",\"width\":32,\"height\":32"), &tensor);
    assert_string_equal(code_in(answer), "bad_request");
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "error"), "message"),
                        "noise: value 17 of 192 is -inf; accepted are finite numbers");
    message_close(answer);
    noise[17] = 0;
    message_close(ask(house, SUBMIT("a", ",\"noise_source\":\"client\",\"width\":32,\"height\":32"), &tensor));
    start_worker(house);
    follow_to_the_end(house, "a");
}

static void a_repetition_is_one_however_its_tensor_comes(void **state)
{
    struct house *house = *state;
    static float noise[8 * 48] = {1, 2, 3};
    char hex[SHA256_HEX_BYTES], envelope[500];
    const struct tensor_view tensor = {.name = "noise", .dtype = DTYPE_F32, .dimensions = 3, .shape = {1, 8, 48},
        .data = noise,
                                       .bytes = sizeof noise};
    message_close(ask(house, SUBMIT("a", ",\"noise_source\":\"client\""), &tensor));
    hash_of(noise, sizeof noise, hex);
    submit_with_noise(envelope, "a", hex);
    do_it(house, envelope); /* the blob need not even be here */
    hex[0] = hex[0] == '0' ? '1' : '0';
    submit_with_noise(envelope, "a", hex);
    assert_error(house, envelope, "bad_request");
}

static void a_tensor_under_a_chosen_name_is_told_by_its_bytes_all_the_same(void **state)
{
    struct house *house = *state;
    static float noise[8 * 48] = {1, 2, 3};
    char hex[SHA256_HEX_BYTES], envelope[500];
    hash_of(noise, sizeof noise, hex);
    message_close(put_at_once(house, noise, sizeof noise, "put-fox.1", ""));
    submit_with_noise(envelope, "a", "put-fox.1");
    do_it(house, envelope);
    do_it(house, envelope); /* when its answer was lost */
    submit_with_noise(envelope, "a", hex);
    do_it(house, envelope); /* a repetition, whose hash says so */
    submit_with_noise(envelope, "a", "put-fox.2");
    struct message *answer = ask(house, envelope, NULL); /* perhaps another, of which nothing is known */
    assert_string_equal(
        cJSON_GetArrayItem(cJSON_GetObjectItem(message_envelope(answer), "missing_blobs"), 0)->valuestring,
        "put-fox.2");
    message_close(answer);
    message_close(put_at_once(house, noise, sizeof noise, "put-fox.2", ""));
    do_it(house, envelope);
    noise[0] = 7;
    message_close(put_at_once(house, noise, sizeof noise, "put-fox.3", ""));
    submit_with_noise(envelope, "a", "put-fox.3");
    assert_error(house, envelope, "bad_request");
}

static void the_bytes_of_a_refused_request_stay_only_under_their_hash(void **state)
{
    struct house *house = *state;
    static float noise[8 * 48] = {INFINITY};
    char hex[SHA256_HEX_BYTES], envelope[500];
    hash_of(noise, sizeof noise, hex);
    const char *names[] = {"put-fox", hex};
    for (int i = 0; i < 2; i++) {
        message_close(put_at_once(house, noise, sizeof noise, names[i], ""));
        submit_with_noise(envelope, "a", names[i]);
        assert_error(house, envelope, "bad_request");
        snprintf(envelope, sizeof envelope, "{\"request\":\"put\",\"blob\":\"%s\",\"bytes\":%zu}", names[i],
                 sizeof noise);
        struct message *answer = get(house, envelope);
        assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "complete")), i);
        message_close(answer);
    }
}

static void tensors_that_are_named_wrongly_are_refused(void **state)
{
    struct house *house = *state;
    static const char *const wrong[] = {
        "[]", "1", "{\"noise\":1}", "{\"noise\":{}}", "{\"noise\":{\"blob\":\"12\",\"dtype\":\"F32\",\"shape\":[1]}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F33\",\"shape\":[1]}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\"}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":{}}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[0]}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[-1]}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1]}}",
        "{\"noise\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[\"18446744073709551615\",2]}}",
        "{\"nose\":{\"blob\":\"" HASH "\",\"dtype\":\"F32\",\"shape\":[1]}}",
        "{\"source\":{\"blob\":\"" HASH "\",\"dtype\":\"U8\",\"shape\":[1,8,8,3]},\"source\":{}}",
    };
    char envelope[600];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(envelope, sizeof envelope,
                 "{\"request\":\"submit\",\"job\":\"a\",\"task\":\"t2i\",\"params\":{\"prompt\":\"\"},"
                 "\"tensors\":%s}",
                 wrong[i]);
        assert_error(house, envelope, "bad_request");
    }
}

static void a_put_without_a_piece_asks_and_a_wrong_one_is_refused(void **state)
{
    struct house *house = *state;
    static const uint8_t bytes[100];
    char hex[SHA256_HEX_BYTES];
    hash_of(bytes, sizeof bytes, hex);
    struct message *answer = get(house, "{\"request\":\"put\",\"blob\":\"" HASH "\",\"bytes\":3000000}");
    const cJSON *missing = cJSON_GetObjectItem(message_envelope(answer), "missing");
    assert_int_equal(cJSON_GetArrayItem(cJSON_GetArrayItem(missing, 0), 1)->valueint, 3000000);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(message_envelope(answer), "complete")));
    message_close(answer);
    assert_error(house, "{\"request\":\"put\",\"blob\":\"" HASH "\",\"bytes\":8388609}", "too_large");
    assert_error(house, "{\"request\":\"put\",\"blob\":\"" HASH "\",\"bytes\":\"18446744073709551615\"}", "too_large");
    static const char *const names[] = {"", "put-", "put- ", "put-1/2", "fox", "Put-1",
                                        "put-0123456789012345678901234567890123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char envelope[200];
        snprintf(envelope, sizeof envelope, "{\"request\":\"put\",\"blob\":\"%s\",\"bytes\":1}", names[i]);
        assert_error(house, envelope, "bad_request");
    }
    assert_error(house, "{\"request\":\"put\",\"bytes\":1}", "bad_request");
    assert_error(house, "{\"request\":\"put\",\"blob\":\"" HASH "\"}", "bad_request");
    assert_error(house, "{\"request\":\"put\",\"blob\":\"" HASH "\",\"bytes\":0}", "bad_request");
    answer = put_at_once(house, bytes, sizeof bytes, HASH, "");
    assert_string_equal(code_in(answer), "bad_request"); /* another hash */
    message_close(answer);
    answer = put_at_once(house, bytes, sizeof bytes, hex, ",\"offset\":1");
    assert_string_equal(code_in(answer), "bad_request");
    message_close(answer);
    const struct tensor_view odd = {
        .name = "piece", .dtype = DTYPE_F32, .dimensions = 1, .shape = {25}, .data = bytes, .bytes = 100};
    answer = ask(house, "{\"request\":\"put\",\"blob\":\"" HASH "\",\"bytes\":100}", &odd);
    assert_string_equal(code_in(answer), "bad_request");
    message_close(answer);
}

static void without_the_token_no_piece_is_taken(void **state)
{
    struct house *house = *state;
    static const uint8_t bytes[100];
    char hex[SHA256_HEX_BYTES];
    hash_of(bytes, sizeof bytes, hex);
    struct message *answer = put_at_once(house, bytes, sizeof bytes, hex, "");
    assert_string_equal(code_in(answer), "forbidden");
    message_close(answer);
    answer = get(house, "{\"request\":\"stats\",\"token\":\"secret\"}");
    const cJSON *memory = cJSON_GetObjectItem(message_envelope(answer), "memory");
    assert_int_equal(cJSON_GetObjectItem(memory, "blob_bytes")->valueint, 0);
    message_close(answer);
}

/* The bytes of a slice of the pixels, by their number; -1: refused. */
static int get_slice(struct house *house, const char *what, uint8_t *out)
{
    char envelope[200];
    snprintf(envelope, sizeof envelope, "{\"request\":\"get\",\"job\":\"a\",\"tensor\":\"pixels\"%s}", what);
    struct message *answer = ask(house, envelope, NULL);
    int bytes = -1;
    const struct tensor_view *piece = message_tensor(answer, "piece");
    if (piece) {
        bytes = (int)piece->bytes;
        memcpy(out, piece->data, piece->bytes);
    } else
        assert_string_equal(code_in(answer), "bad_request");
    message_close(answer);
    return bytes;
}

static void a_result_is_got_in_slices_at_every_edge(void **state)
{
    struct house *house = *state;
    enum { ALL = 1024 * 1024 * 3 };
    static uint8_t slice[BLOBS_PIECE_BYTES];
    assert_error(house, "{\"request\":\"get\",\"job\":\"a\",\"tensor\":\"pixels\"}", "not_found");
    do_it(house, SUBMIT("a", ",\"width\":1024,\"height\":1024"));
    assert_error(house, "{\"request\":\"get\",\"job\":\"a\",\"tensor\":\"pixels\"}", "busy");
    start_worker(house);
    follow_to_the_end(house, "a");
    struct message *brief = get(house, "{\"request\":\"result\",\"job\":\"a\"}");
    assert_int_equal(message_tensor_count(brief), 0);
    const cJSON *tensor = cJSON_GetObjectItem(cJSON_GetObjectItem(message_envelope(brief), "tensors"), "pixels");
    assert_string_equal(json_text(tensor, "dtype"), "U8");
    assert_int_equal(cJSON_GetObjectItem(tensor, "bytes")->valueint, ALL);
    message_close(brief);
    static const struct {
        const char *what;
        int offset, bytes;
    } slices[] = {
        {"", 0, BLOBS_PIECE_BYTES},
        {",\"offset\":1,\"length\":1", 1, 1},
        {",\"offset\":3145727,\"length\":1", ALL - 1, 1},
        {",\"offset\":3145700", 3145700, ALL - 3145700},
        {",\"offset\":3145728", ALL, 0},
        {",\"offset\":2097152,\"length\":1048576", 2097152, BLOBS_PIECE_BYTES},
        {",\"offset\":12345,\"length\":1000", 12345, 1000},
        {",\"offset\":3145729", 0, -1},
        {",\"offset\":\"18446744073709551615\"", 0, -1},
        {",\"length\":0", 0, -1},
        {",\"length\":1048577", 0, -1},
    };
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++) {
        int bytes = get_slice(house, slices[i].what, slice);
        assert_int_equal(bytes, slices[i].bytes);
        for (int at = 0; at < bytes; at++)
            assert_int_equal(slice[at], fake_pixel(42, (size_t)(slices[i].offset + at)));
    }
    assert_error(house, "{\"request\":\"get\",\"job\":\"a\",\"tensor\":\"latents\"}", "bad_request");
    assert_error(house, "{\"request\":\"get\",\"job\":\"a\"}", "bad_request");
}

static void a_small_result_comes_whole(void **state)
{
    struct house *house = *state;
    do_it(house, SUBMIT("a", ""));
    start_worker(house);
    follow_to_the_end(house, "a");
    struct message *result = get(house, "{\"request\":\"result\",\"job\":\"a\"}");
    assert_int_equal(message_tensor(result, "pixels")->bytes, 64 * 32 * 3);
    message_close(result);
}

static void a_result_is_fetched_when_the_last_piece_was(void **state)
{
    struct house *house = *state;
    static uint8_t slice[BLOBS_PIECE_BYTES];
    do_it(house, SUBMIT("a", ",\"width\":1024,\"height\":1024"));
    jobs_shut(house->jobs, false); /* as when the daemon is to end */
    start_worker(house);
    follow_to_the_end(house, "a");
    do_it(house, "{\"request\":\"result\",\"job\":\"a\"}");
    get_slice(house, ",\"offset\":2097152", slice);
    get_slice(house, ",\"offset\":1048576", slice);
    assert_int_equal(jobs_unfetched(house->jobs), 1);
    get_slice(house, "", slice);
    assert_int_equal(jobs_unfetched(house->jobs), 0);
}

static void jobs_are_listed_in_pages(void **state)
{
    struct house *house = *state;
    enum { ALL = JOBS_LIST_MOST + 3 };
    char envelope[200];
    for (int i = 0; i < ALL; i++) {
        snprintf(envelope, sizeof envelope,
                 "{\"request\":\"submit\",\"job\":\"j%d\",\"task\":\"t2i\",\"params\":{\"prompt\":\"\"}}", i);
        do_it(house, envelope);
    }
    do_it(house, "{\"request\":\"release\",\"job\":\"j1\"}");
    int listed = 0;
    bool more = true;
    for (int after = 0; more;) {
        snprintf(envelope, sizeof envelope, "{\"request\":\"jobs\",\"after\":%d}", after);
        struct message *answer = get(house, envelope);
        const cJSON *job;
        cJSON_ArrayForEach(job, cJSON_GetObjectItem(message_envelope(answer), "jobs"))
        {
            const int number = cJSON_GetObjectItem(job, "number")->valueint;
            assert_true(number > after);
            after = number;
            listed++;
        }
        assert_true(message_bytes(answer) < 1 << 20);
        more = cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "more"));
        message_close(answer);
    }
    assert_int_equal(listed, ALL - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_goes_from_hello_to_its_picture_without_a_socket, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wait_is_parked_and_woken_by_the_job_s_next_event, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_submit_is_answered_when_the_journal_has_written_it_down, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wait_whose_time_is_over_gets_an_empty_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_hangs_up_while_parked_gets_no_answer_and_keeps_no_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(load_and_unload_find_no_place_among_as_many_as_may_be_parked, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_model_that_is_loading_parks_whoever_asks_for_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_answered_in_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_that_are_no_message_are_refused_and_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_the_token_nothing_is_told, set_up_secret, tear_down),
        cmocka_unit_test_setup_teardown(a_job_takes_its_tensor_from_a_blob_and_says_which_is_missing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_job_whose_blobs_never_fit_together_is_refused_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_number_that_is_none_is_refused_when_it_is_submitted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_tensor_under_a_chosen_name_is_told_by_its_bytes_all_the_same, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_bytes_of_a_refused_request_stay_only_under_their_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_repetition_is_one_however_its_tensor_comes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tensors_that_are_named_wrongly_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_put_without_a_piece_asks_and_a_wrong_one_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_the_token_no_piece_is_taken, set_up_secret, tear_down),
        cmocka_unit_test_setup_teardown(a_result_is_got_in_slices_at_every_edge, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_small_result_comes_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(jobs_are_listed_in_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_result_is_fetched_when_the_last_piece_was, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
