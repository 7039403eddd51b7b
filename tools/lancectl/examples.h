/* examples.h: the command run: makes every entry of an example file of the official code.
 *
 * tools/media/example_file.h says what is in such a file. Files are named as the official script does: the key as a
 * number of six digits, with .png or .mp4; prompts go into prompt.json, answers into result.json.
 */
#ifndef LANCECTL_EXAMPLES_H
#define LANCECTL_EXAMPLES_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/make_command.h"
#include "tools/lancectl/session.h"

/* One entry, as found. Strings belong to the JSON. */
struct example {
    const struct task_kind *kind;
    const char *source; /* path as written there, or NULL */
    const char *prompt; /* "" when there is none */
    const char *system; /* or NULL */
};

/* Understand one entry; `task` is the one asked for, or NULL: found from the entry. The message
 * names the key: ERROR_BAD_FILE, ERROR_UNSUPPORTED (several sources), or ERROR_BAD_REQUEST
 * when `task` has to be given. */
int example_parse(struct example *out, const cJSON *entry, const char *task, struct error *error);

/* The output of a key without its extension, such as "000003" of "3.png"; malloc'ed, NULL: out of memory. */
char *example_name(const char *key);

/* Make all entries. One that fails does not keep the others from being made. Prints its own errors. */
enum exit_code examples_run(struct session *session, const struct arguments *arguments);

#endif
