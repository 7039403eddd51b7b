/* lancectl_fixture.h: what the tests of lancectl's command line share. */
#ifndef LANCE_TESTS_LANCECTL_FIXTURE_H
#define LANCE_TESTS_LANCECTL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tools/lancectl/arguments.h"

enum { MAX_WORDS = 32 };

/* Parse a command line given as words ending in NULL. */
static inline int parse(struct arguments *arguments, struct error *error, const char *const *words)
{
    char *argv[MAX_WORDS + 2] = {(char *)"lancectl"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    return arguments_parse(arguments, argc, argv, error);
}

#define PARSE(arguments, error, ...) parse(arguments, error, (const char *const[]){__VA_ARGS__, NULL})

/* A command line that is wrong, and what the message must say. */
struct wrong_line {
    const char *words[MAX_WORDS];
    const char *reason;
};

static inline void expect_explained(const struct wrong_line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct arguments arguments;
        struct error error = {0};
        assert_int_equal(parse(&arguments, &error, lines[i].words), ERROR_BAD_REQUEST);
        if (!strstr(error.text, lines[i].reason))
            fail_msg("case %zu: \"%s\" does not say %s", i, error.text, lines[i].reason);
    }
}

#endif
