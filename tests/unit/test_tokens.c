/* test_tokens.c: tests of daemon/tokens.c: which files of tokens are taken, and what is said of others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/tokens.h"
#include "protocol/token.h"

static char path[] = "/tmp/lanced-tokens-XXXXXX";

static void write_file(const void *data, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static int open_with(struct tokens **tokens, const char *text, struct error *error)
{
    write_file(text, strlen(text));
    return tokens_open(tokens, path, NULL, error);
}

static void a_file_says_whose_a_token_is_and_whether_it_is_an_admin_s(void **state)
{
    struct tokens *tokens;
    struct error error;
    struct identity who;
    (void)state;
    static const char text[] = "#none\n\r\n a.b-c_1  0123456789abcdef\r\nroot 0123456789abcdeg\tadmin";
    assert_int_equal(open_with(&tokens, text, &error), 0);
    assert_true(tokens_are_named(tokens) && tokens_are_asked_for(tokens));
    assert_true(tokens_find(tokens, "0123456789abcdef", &who));
    assert_string_equal(who.name, "a.b-c_1");
    assert_false(who.is_admin);
    assert_true(tokens_find(tokens, "0123456789abcdeg", &who));
    assert_string_equal(who.name, "root");
    assert_true(who.is_admin);
    static const char *const wrong[] = {"", "0123456789abcde", "0123456789abcdef ",
                                        "0123456789abcdeh", "root", "#none"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(tokens_find(tokens, wrong[i], &who));
    tokens_close(tokens);
}

static void an_only_token_is_an_admin_s_without_a_name_and_none_is_not_asked_for(void **state)
{
    struct tokens *tokens;
    struct error error;
    struct identity who;
    (void)state;
    assert_int_equal(tokens_open(&tokens, NULL, "0123456789abcdef", &error), 0);
    assert_true(tokens_are_asked_for(tokens) && !tokens_are_named(tokens));
    assert_true(tokens_find(tokens, "0123456789abcdef", &who));
    assert_true(who.is_admin && who.name[0] == '\0');
    tokens_close(tokens);
    assert_int_equal(tokens_open(&tokens, NULL, NULL, &error), 0);
    assert_false(tokens_are_asked_for(tokens));
    tokens_close(tokens);
}

static void what_is_wrong_with_a_file_is_told_with_its_line(void **state)
{
    static const struct {
        const char *text, *words;
    } files[] = {
        {"", "no token in it"},
        {"# nobody\n", "no token in it"},
        {"a 0123456789abcdef\nb\n", "line 2: must be: NAME SECRET"},
        {"a 0123456789abcdef root\n", "line 1: must be: NAME SECRET"},
        {"a 0123456789abcdef admin admin\n", "line 1: must be: NAME SECRET"},
        {"a short\n", "line 1: secret: the token must have 16 to 256 characters"},
        {"0123456789abcdef a\n", "line 1: secret: the token must have 16 to 256 characters"}, /* the wrong order */
        {"a/b 0123456789abcdef\n", "line 1: a name must have 1 to 40"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0123456789abcdef\n", "line 1: a name must have 1 to 40"},
        {"a 0123456789abcdef\n#\na 0123456789abcdeg\n", "line 3: the name \"a\" is there before"},
        {"a 0123456789abcdef\nb 0123456789abcdef\n", "line 2: \"b\" has the secret of \"a\""},
        {"a 0123456789abcde\x7f\n", "line 1: secret: the token must be text"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct tokens *tokens;
        struct error error;
        assert_int_equal(open_with(&tokens, files[i].text, &error), ERROR_BAD_FILE);
        assert_null(tokens);
        if (!strstr(error.text, files[i].words) || strstr(error.text, "0123456789"))
            fail_msg("file %zu: %s", i, error.text); /* a secret is not told */
    }
}

static void a_file_that_others_can_use_is_refused_and_so_is_one_that_is_none(void **state)
{
    struct tokens *tokens;
    struct error error;
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0660, 0602};
    write_file("a 0123456789abcdef\n", 19);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(tokens_open(&tokens, path, NULL, &error), ERROR_IO);
        assert_non_null(strstr(error.text, "chmod 600"));
    }
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(tokens_open(&tokens, "/nonexistent/tokens", NULL, &error), ERROR_IO);
    assert_int_equal(tokens_open(&tokens, "/", NULL, &error), ERROR_BAD_FILE);
    write_file("a 0123456789abc\0ef\n", 19);
    assert_int_equal(tokens_open(&tokens, path, NULL, &error), ERROR_BAD_FILE);
    char *large = calloc(1, TOKENS_FILE_MAX_BYTES + 1);
    memset(large, '#', TOKENS_FILE_MAX_BYTES + 1);
    write_file(large, TOKENS_FILE_MAX_BYTES + 1);
    free(large);
    assert_int_equal(tokens_open(&tokens, path, NULL, &error), ERROR_BAD_FILE);
}

/* To open it would wait for somebody who writes. */
static void a_pipe_is_refused_and_does_not_keep_the_daemon_waiting(void **state)
{
    struct tokens *tokens;
    struct error error;
    (void)state;
    write_file("a 0123456789abcdef\n", 19);
    assert_int_equal(tokens_open(&tokens, path, NULL, &error), 0);
    assert_int_equal(unlink(path) || mkfifo(path, 0600), 0);
    assert_int_equal(tokens_reread(tokens, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "is not a regular file"));
    struct identity who;
    assert_true(tokens_find(tokens, "0123456789abcdef", &who)); /* as before */
    tokens_close(tokens);
    unlink(path);
    close(open(path, O_WRONLY | O_CREAT, 0600));
}

static void an_only_token_may_come_from_a_pipe_that_has_a_writer_as_shells_make_them(void **state)
{
    char token[TOKEN_MAX_BYTES + 1], name[40];
    struct error error;
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    assert_int_equal(write(ends[1], "0123456789abcdef\n", 17), 17);
    close(ends[1]);
    assert_int_equal(token_read_file(token, name, "--token-file", &error), 0);
    assert_string_equal(token, "0123456789abcdef");
    assert_int_equal(token_read_file(token, name, "--token-file", &error), ERROR_BAD_REQUEST); /* nobody writes */
    close(ends[0]);
}

static void as_many_tokens_as_there_may_be_are_taken_and_one_more_is_not(void **state)
{
    struct tokens *tokens;
    struct error error;
    struct identity who;
    char *text = malloc(64 * (TOKENS_MOST + 1));
    size_t at = 0;
    (void)state;
    for (int i = 0; i < TOKENS_MOST; i++)
        at += (size_t)sprintf(text + at, "t%d secret-of-token-%d\n", i, i);
    assert_int_equal(open_with(&tokens, text, &error), 0);
    assert_true(tokens_find(tokens, "secret-of-token-1023", &who));
    assert_string_equal(who.name, "t1023");
    tokens_close(tokens);
    sprintf(text + at, "more secret-of-token-more\n");
    assert_int_equal(open_with(&tokens, text, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "more than 1024"));
    free(text);
}

int main(void)
{
    int file = mkstemp(path);
    if (file < 0)
        return 1;
    close(file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_says_whose_a_token_is_and_whether_it_is_an_admin_s),
        cmocka_unit_test(an_only_token_is_an_admin_s_without_a_name_and_none_is_not_asked_for),
        cmocka_unit_test(what_is_wrong_with_a_file_is_told_with_its_line),
        cmocka_unit_test(a_file_that_others_can_use_is_refused_and_so_is_one_that_is_none),
        cmocka_unit_test(a_pipe_is_refused_and_does_not_keep_the_daemon_waiting),
        cmocka_unit_test(an_only_token_may_come_from_a_pipe_that_has_a_writer_as_shells_make_them),
        cmocka_unit_test(as_many_tokens_as_there_may_be_are_taken_and_one_more_is_not),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
