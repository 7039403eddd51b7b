/* command_line.c: see command_line.h. */
#include "base/command_line.h"

#include <stdbool.h>
#include <string.h>

/* The option that `word`, --NAME or --NAME=VALUE, names in full, or NULL. */
static const struct option *find_whole(const char *word, const struct option *long_options)
{
    if (strncmp(word, "--", 2) != 0)
        return NULL;
    size_t length = strcspn(word + 2, "=");
    for (const struct option *option = long_options; option->name; option++)
        if (strlen(option->name) == length && strncmp(word + 2, option->name, length) == 0)
            return option;
    return NULL;
}

enum { MAX_NAME = 40, MAX_MISTAKES = 2 };

/* How many letters have to be changed, left out, put in, or swapped with their neighbour to make `length` bytes of
 * `word` into `name`. MAX_MISTAKES + 1 for anything longer than a name. */
static int mistakes(const char *word, size_t length, const char *name)
{
    const size_t wanted = strlen(name);
    int rows[MAX_NAME + 1][MAX_NAME + 1];
    if (length > MAX_NAME || wanted > MAX_NAME)
        return MAX_MISTAKES + 1;
    for (size_t i = 0; i <= length; i++)
        for (size_t j = 0; j <= wanted; j++) {
            if (i == 0 || j == 0) {
                rows[i][j] = (int)(i + j);
                continue;
            }
            const bool same = word[i - 1] == name[j - 1];
            int least = rows[i - 1][j - 1] + !same;
            least = rows[i - 1][j] + 1 < least ? rows[i - 1][j] + 1 : least;
            least = rows[i][j - 1] + 1 < least ? rows[i][j - 1] + 1 : least;
            if (i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1] &&
                rows[i - 2][j - 2] + 1 < least)
                least = rows[i - 2][j - 2] + 1;
            rows[i][j] = least;
        }
    return rows[length][wanted];
}

/* The option whose name is most like the misspelt `word`, --NAME or --NAME=VALUE; NULL when none is much like it. */
static const char *most_like(const char *word, const struct option *long_options)
{
    const size_t length = strcspn(word + 2, "=");
    const char *nearest = NULL;
    int fewest = length > 4 ? MAX_MISTAKES + 1 : 2;
    for (const struct option *option = long_options; option->name; option++) {
        int count = mistakes(word + 2, length, option->name);
        if (count < fewest) {
            fewest = count;
            nearest = option->name;
        }
    }
    return nearest;
}

static int unknown_option(const char *word, const struct option *long_options, const char *program, struct error *error)
{
    const char *meant = most_like(word, long_options);
    if (meant)
        return error_set(error, ERROR_BAD_REQUEST, "%s: is no option of %s; did you mean --%s?", word, program, meant);
    return error_set(error, ERROR_BAD_REQUEST, "%s: is no option of %s; see %s --help", word, program, program);
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
    bool has_needless_value = result == '?' && option && option->val == optopt;
    if (result == '?' && optopt != 0 && !has_needless_value) /* perhaps in the middle of a word, as in -qx */
        error_set(error, ERROR_BAD_REQUEST, "-%c: is no option of %s; see %s --help", optopt, program, program);
    else if (!option && strncmp(word, "--", 2) == 0)
        unknown_option(word, long_options, program, error);
    else if (has_needless_value)
        error_set(error, ERROR_BAD_REQUEST, "--%s: takes no value; see %s --help", option->name, program);
    else if (result == ':')
        error_set(error, ERROR_BAD_REQUEST, "%s: needs a value; see %s --help", word, program);
    else
        return result;
    return '?';
}
