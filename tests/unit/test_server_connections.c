/* test_server_connections.c: what comes to a lanced that is no good request: bad messages, by a bare REQ socket and a
 * bare unix socket; and clients that hang up, that have a wrong token, or that come over TCP. */
#include "tests/unit/server_fixture.h"

/* Send bytes as one nng message; returns the answer's error code (0: it was no error), or 1 when nothing comes
 * back in time. */
static int send_raw(const struct fixture *fixture, const void *data, size_t bytes, int timeout_ms, struct error *error)
{
    nng_socket socket;
    nng_msg *msg;
    int code = 1;
    assert_int_equal(nng_req0_open(&socket), 0);
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, timeout_ms);
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, timeout_ms);
    assert_int_equal(nng_dial(socket, fixture->endpoint, NULL, 0), 0);
    assert_int_equal(nng_msg_alloc(&msg, 0), 0);
    assert_int_equal(nng_msg_append(msg, data, bytes), 0);
    if (nng_sendmsg(socket, msg, 0) != 0)
        nng_msg_free(msg);
    else if (nng_recvmsg(socket, &msg, 0) == 0) {
        struct message *answer;
        assert_int_equal(message_parse(&answer, nng_msg_body(msg), nng_msg_len(msg), 0, error), 0);
        const cJSON *failure = cJSON_GetObjectItem(message_envelope(answer), "error");
        code = !failure
                     ? 0
                     : error_set(error, error_code_of(json_text(failure, "code")), "%s", json_text(failure, "message"));
        message_close(answer);
        nng_msg_free(msg);
    }
    nng_close(socket);
    return code;
}

static void nonsense_is_answered_and_the_daemon_lives(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct error error;
    assert_int_equal(send_raw(fixture, "", 0, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "hello?", 6, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "\x02\0\0\0\0\0\0\0{}", 10, 5000, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "no entry \"lance\""));
    /* Every prefix of a good message. */
    void *data;
    uint64_t bytes;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"shutdown\"}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    for (uint64_t length = 0; length + 1 < bytes; length += 3)
        assert_int_equal(send_raw(fixture, data, length, 5000, &error), ERROR_BAD_REQUEST);
    free(data);
    assert_true(stat_of(client, "bad_messages") >= 5);
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    client_close(client);
}

static void other_protocols_are_told_so(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    client_close(connect_to(fixture));
    struct error error;
    void *data;
    uint64_t bytes;
    static const struct {
        const char *envelope, *words;
        int code;
    } wrong[] = {
        {"{\"protocol\":1,\"request\":\"hello\"}", "the client speaks protocol 1, lanced " LANCED_VERSION " speaks 2",
         ERROR_UNSUPPORTED},
        {"{\"request\":\"hello\"}", "protocol: must be a number", ERROR_BAD_REQUEST},
        {"{\"protocol\":\"1\",\"request\":\"hello\"}", "protocol: must be a number", ERROR_BAD_REQUEST},
        {"{\"protocol\":2}", "request: must be a string", ERROR_BAD_REQUEST},
        {"{\"protocol\":2,\"request\":7}", "request: must be a string", ERROR_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cJSON *envelope = json("%s", wrong[i].envelope);
        assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
        cJSON_Delete(envelope);
        assert_int_equal(send_raw(fixture, data, bytes, 5000, &error), wrong[i].code);
        assert_non_null(strstr(error.text, wrong[i].words));
        free(data);
    }
}

static int connect_raw(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", fixture->folder);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Greet as nng does, then announce a message of `bytes` bytes, and see the connection closed. (A REQ socket
 * would not do: it connects again and sends the message again, without end.) */
static void assert_connection_is_closed_on(const struct fixture *fixture, uint64_t bytes)
{
    int fd = connect_raw(fixture);
    unsigned char greeting[8], header[9] = {1};
    for (int i = 0; i < 8; i++)
        header[1 + i] = (unsigned char)(bytes >> 8 * (7 - i));
    assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
    assert_int_equal(recv(fd, greeting, 8, MSG_WAITALL), 8);
    assert_int_equal(send(fd, header, sizeof header, MSG_NOSIGNAL), sizeof header);
    assert_true(recv(fd, greeting, 1, 0) <= 0);
    close(fd);
}

static void a_message_over_the_limit_is_told_so_and_one_far_over_loses_its_connection(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct error error;
    char *large = calloc(1, 2 * MESSAGE_LIMIT_BYTES);
    assert_non_null(large);
    assert_int_equal(send_raw(fixture, large, MESSAGE_LIMIT_BYTES + 1, 5000, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "4194305 bytes are over the limit of 4194304"));
    assert_int_equal(send_raw(fixture, large, 2 * MESSAGE_LIMIT_BYTES, 5000, &error), ERROR_TOO_LARGE);
    assert_connection_is_closed_on(fixture, 4 * MESSAGE_LIMIT_BYTES);
    assert_connection_is_closed_on(fixture, UINT64_MAX);
    const struct tensor_view source = {
        .name = "source", .dtype = DTYPE_U8, .dimensions = 4, .shape = {1, 1024, 2048, 3}, .data = large,
        .bytes = 1024 * 2048 * 3};
    assert_refused(client, "submit", t2i("a", "a fox", ""), &source, ERROR_TOO_LARGE, "accepts 4194304");
    free(large);
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void bytes_that_are_no_nng_are_no_trouble(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    for (int i = 0; i < 20; i++) {
        int fd = connect_raw(fixture);
        assert_true(send(fd, "GET / HTTP/1.1\r\n\r\n", (size_t)i, MSG_NOSIGNAL) == i);
        close(fd);
    }
    do_it(client, "hello", NULL);
    client_close(client);
}

/* Several requests at once on one connection, which is closed before all are answered: nng 1.5 may lose its reaper over
 * it. */
static void clients_that_hang_up_while_asking_keep_the_daemon_neither_from_serving_nor_from_ending(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    void *data;
    uint64_t bytes;
    struct error error;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"stats\"}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    unsigned char message[13 + 400] = {[0] = 1, [9] = 0x80, [12] = 1}, greeting[8];
    assert_true(bytes < 400);
    message[7] = (unsigned char)((bytes + 4) >> 8);
    message[8] = (unsigned char)(bytes + 4);
    memcpy(message + 13, data, bytes);
    free(data);
    for (int i = 0; i < 1500; i++) {
        int fd = connect_raw(fixture);
        assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
        assert_int_equal(recv(fd, greeting, 8, MSG_WAITALL), 8);
        for (int request = 0; request < 3; request++)
            send(fd, message, 13 + bytes, MSG_NOSIGNAL);
        recv(fd, greeting, 8, 0);
        close(fd);
    }
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    client_close(client);
    client_close(connect_to(fixture));
    double before = clock_seconds();
    kill(fixture->pid, SIGTERM);
    assert_int_equal(end_of(fixture->pid), 0);
    fixture->pid = 0;
    assert_true(clock_seconds() - before < 20);
}

static void clients_that_disappear_cost_nothing(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 100", ",\"num_inference_steps\":1000"));
    wait_until_running(client, "a");
    void *data;
    uint64_t bytes;
    struct error error;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"wait\",\"job\":\"a\",\"after\":1000,\"timeout_ms\":60000}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    for (int i = 0; i < 300; i++) /* more than there are contexts */
        assert_int_equal(send_raw(fixture, data, bytes, 2, &error), 1);
    free(data);
    for (int i = 0; i < 200 && stat_of(client, "waiting") > 0; i++)
        nng_msleep(10);
    assert_int_equal(stat_of(client, "waiting"), 0);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

static void a_token_is_asked_for(void **state)
{
    struct fixture *fixture = *state;
    char path[120];
    snprintf(path, sizeof path, "%s/token", fixture->folder);
    FILE *file = fopen(path, "w");
    fputs("0123456789abcdefXYZ\n", file);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
    START(fixture, "--token-file", path);
    struct client *client;
    struct error error;
    struct client_options options = {.endpoint = fixture->endpoint,
                                     .token = "0123456789abcdefXYZ",
                                     .name = "test",
                                     .connect_timeout_ms = START_TIMEOUT_MS};
    assert_int_equal(client_open(&client, &options, &error), 0);
    client_close(client);
    static const char *const wrong[] = {"0123456789abcdefXY", "0123456789abcdefXYZ0123456789abcdefXYZ", "x", ""};
    for (size_t i = 0; i < 4; i++) {
        options.token = wrong[i];
        assert_int_equal(client_open(&client, &options, &error), ERROR_FORBIDDEN);
        assert_non_null(strstr(error.text, wrong[i][0] != '\0' ? "token: is wrong" : "token: is missing"));
    }
}

static void tcp_works_on_the_loopback_address(void **state)
{
    struct fixture *fixture = *state;
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "tcp://127.0.0.1:%d", 20000 + getpid() % 20000);
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    do_it(client, "result", job_named("a"));
    client_close(client);
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_lanced(argc, argv, &code))
        return code;
    const struct CMUnitTest tests[] = {
        SERVER_TEST(nonsense_is_answered_and_the_daemon_lives),
        SERVER_TEST(other_protocols_are_told_so),
        SERVER_TEST(a_message_over_the_limit_is_told_so_and_one_far_over_loses_its_connection),
        SERVER_TEST(bytes_that_are_no_nng_are_no_trouble),
        SERVER_TEST(clients_that_hang_up_while_asking_keep_the_daemon_neither_from_serving_nor_from_ending),
        SERVER_TEST(clients_that_disappear_cost_nothing),
        SERVER_TEST(a_token_is_asked_for),
        SERVER_TEST(tcp_works_on_the_loopback_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
