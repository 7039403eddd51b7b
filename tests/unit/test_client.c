/* Tests of the C client against a daemon that is another version's: a REP socket that always gives one answer. */
#include "protocol/client.h"

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/reqrep0/rep.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LARGEST_REQUEST_BYTES = 64 << 10 }; /* on a larger one it hangs up, as nng does without memory for it */

struct scripted {
    nng_socket socket;
    pthread_t thread;
    char folder[32], endpoint[64];
    const char *envelope;
};

static void *answer(void *argument)
{
    struct scripted *daemon = argument;
    nng_msg *msg;
    while (nng_recvmsg(daemon->socket, &msg, 0) == 0) {
        void *data;
        uint64_t bytes;
        struct error error;
        cJSON *envelope = cJSON_Parse(daemon->envelope);
        assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
        cJSON_Delete(envelope);
        nng_msg_clear(msg);
        nng_msg_append(msg, data, bytes);
        free(data);
        if (nng_sendmsg(daemon->socket, msg, 0) != 0)
            nng_msg_free(msg);
    }
    return NULL;
}

static void start(struct scripted *daemon, const char *envelope)
{
    *daemon = (struct scripted){.envelope = envelope, .folder = "/tmp/lance-client-XXXXXX"};
    assert_non_null(mkdtemp(daemon->folder));
    snprintf(daemon->endpoint, sizeof daemon->endpoint, "ipc://%s/socket", daemon->folder);
    assert_int_equal(nng_rep0_open(&daemon->socket), 0);
    assert_int_equal(nng_socket_set_size(daemon->socket, NNG_OPT_RECVMAXSZ, LARGEST_REQUEST_BYTES), 0);
    assert_int_equal(nng_listen(daemon->socket, daemon->endpoint, NULL, 0), 0);
    assert_int_equal(pthread_create(&daemon->thread, NULL, answer, daemon), 0);
}

static void stop(struct scripted *daemon)
{
    nng_close(daemon->socket);
    pthread_join(daemon->thread, NULL);
    rmdir(daemon->folder);
}

static void assert_refuses(const char *envelope, const char *words)
{
    struct scripted daemon;
    struct client *client;
    struct error error;
    start(&daemon, envelope);
    const struct client_options options = {.endpoint = daemon.endpoint, .name = "test 1.2.3"};
    assert_int_equal(client_open(&client, &options, &error), ERROR_UNSUPPORTED);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
    assert_non_null(strstr(error.text, daemon.endpoint));
    stop(&daemon);
}

static void a_daemon_of_another_protocol_is_refused_with_both_versions(void **state)
{
    (void)state;
    assert_refuses("{\"protocol\":7,\"ok\":true,\"version\":\"9.9\"}",
                   "speaks protocol 7, test 1.2.3 speaks 2; install both from the same release");
    assert_refuses(
        "{\"protocol\":7,\"ok\":false,\"version\":\"9.9\",\"error\":{\"code\":\"unsupported\",\"message\":\"no\"}}",
        "lanced 9.9 at ");
    assert_refuses("{\"ok\":true}", "speaks protocol none, test 1.2.3 speaks 2");
}

static void a_daemon_of_another_version_with_the_same_protocol_is_served(void **state)
{
    (void)state;
    struct scripted daemon;
    struct client *client;
    struct error error;
    start(&daemon, "{\"protocol\":2,\"ok\":true,\"version\":\"9.9\",\"generation\":\"g\"}");
    const struct client_options options = {.endpoint = daemon.endpoint, .name = "test 1.2.3"};
    assert_int_equal(client_open(&client, &options, &error), 0);
    assert_string_equal(json_text(client_hello(client), "version"), "9.9");
    client_close(client);
    stop(&daemon);
}

static void who_listens_and_speaks_another_protocol_is_told_at_once(void **state)
{
    (void)state;
    char folder[] = "/tmp/lance-client-XXXXXX", endpoint[64];
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", folder);
    nng_socket publisher;
    assert_int_equal(nng_pub0_open(&publisher), 0);
    assert_int_equal(nng_listen(publisher, endpoint, NULL, 0), 0);
    struct client *client;
    struct error error;
    const struct client_options options = {.endpoint = endpoint, .name = "test"};
    assert_int_equal(client_open(&client, &options, &error), ERROR_IO);
    assert_non_null(strstr(error.text, "who listens there is no lanced"));
    nng_close(publisher);
    rmdir(folder);
}

/* What a caller of on_silence counts. */
static bool count_and_give_up(void *context, int seconds)
{
    *(int *)context = seconds;
    return seconds == 2;
}

static void a_silent_daemon_is_reported_every_second_and_can_be_given_up(void **state)
{
    (void)state;
    char folder[] = "/tmp/lance-client-XXXXXX", endpoint[64];
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", folder);
    nng_socket silent;
    assert_int_equal(nng_rep0_open(&silent), 0);
    assert_int_equal(nng_listen(silent, endpoint, NULL, 0), 0);
    struct client *client;
    struct error error;
    int seconds = 0;
    const struct client_options options = {
        .endpoint = endpoint, .name = "test", .on_silence = count_and_give_up, .context = &seconds};
    assert_int_equal(client_open(&client, &options, &error), ERROR_IO);
    assert_int_equal(seconds, 2);
    assert_non_null(strstr(error.text, "was given up"));
    nng_close(silent);
    rmdir(folder);
}

static void a_daemon_that_hangs_up_on_a_request_again_and_again_is_given_up(void **state)
{
    (void)state;
    struct scripted daemon;
    struct client *client;
    struct error error;
    start(&daemon, "{\"protocol\":2,\"ok\":true,\"version\":\"9.9\",\"generation\":\"g\"}");
    const struct client_options options = {.endpoint = daemon.endpoint, .name = "test"};
    assert_int_equal(client_open(&client, &options, &error), 0);
    static const uint8_t data[2 * LARGEST_REQUEST_BYTES];
    const struct tensor_view large = {
        .name = "x", .dtype = DTYPE_U8, .dimensions = 1, .shape = {sizeof data}, .data = data, .bytes = sizeof data};
    assert_int_equal(client_request(client, "submit", NULL, &large, 1, NULL, &error), ERROR_IO);
    if (!strstr(error.text, "hangs up whenever it gets this request"))
        fail_msg("\"%s\" does not say so", error.text);
    assert_int_equal(client_request(client, "stats", NULL, NULL, 0, NULL, &error), 0);
    client_close(client);
    stop(&daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_of_another_protocol_is_refused_with_both_versions),
        cmocka_unit_test(a_daemon_that_hangs_up_on_a_request_again_and_again_is_given_up),
        cmocka_unit_test(a_daemon_of_another_version_with_the_same_protocol_is_served),
        cmocka_unit_test(who_listens_and_speaks_another_protocol_is_told_at_once),
        cmocka_unit_test(a_silent_daemon_is_reported_every_second_and_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
