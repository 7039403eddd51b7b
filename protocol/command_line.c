/* command_line.c: see command_line.h. */
#include "protocol/command_line.h"

#include <stdbool.h>
#include <string.h>

/* The option that `word`, --NAME or --NAME=VALUE, names in full, or NULL. */
static const struct option *find_whole(const char *word, const struct option *long_options)
{
    if (strncmp(word, "--", 2) != 0)
        return NULL;
    size_t length = strcspn(word + 2, "=");
    for (const struct option *option = long_options; option->name != NULL; option++)
        if (strlen(option->name) == length && strncmp(word + 2, option->name, length) == 0)
            return option;
    return NULL;
}

int command_line_next(int argc, char **argv, const char *short_options, const struct option *long_options,
                      const char *program, struct error *error)
{
    optarg = NULL;
    int result = getopt_long(argc, argv, short_options, long_options, NULL);
    if (result == -1)
        return -1;
    const char *word = argv[optarg != NULL && optarg == argv[optind - 1] ? optind - 2 : optind - 1];
    const struct option *option = find_whole(word, long_options);
    bool has_needless_value = result == '?' && option != NULL && option->val == optopt;
    if (result == '?' && optopt != 0 && !has_needless_value) /* perhaps in the middle of a word, as in -qx */
        error_set(error, ERROR_BAD_REQUEST, "-%c: is no option of %s; see %s --help", optopt, program, program);
    else if (option == NULL && strncmp(word, "--", 2) == 0)
        error_set(error, ERROR_BAD_REQUEST, "%s: is no option of %s; see %s --help", word, program, program);
    else if (has_needless_value)
        error_set(error, ERROR_BAD_REQUEST, "--%s: takes no value; see %s --help", option->name, program);
    else if (result == ':')
        error_set(error, ERROR_BAD_REQUEST, "%s: needs a value; see %s --help", word, program);
    else
        return result;
    return '?';
}
