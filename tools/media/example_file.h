/* example_file.h: example files of the official code: what is to be made of which pictures and videos.
 *
 * Such a file is one JSON object. Its keys name the outputs; a value is a prompt, or an object with "interleave_array"
 * (texts, and paths of pictures or videos), "element_dtype_array" ("text", "image", "video") and
 * "istarget_in_interleave". A text may be [system prompt, question, expected answer].
 */
#ifndef LANCE_MEDIA_EXAMPLE_FILE_H
#define LANCE_MEDIA_EXAMPLE_FILE_H

#include <stdbool.h>

#include "base/json.h"

/* One entry, as found. Strings belong to the JSON, but for `task`, which may be the caller's or constant. */
struct example_entry {
    const char *task;   /* in the protocol */
    const char *source; /* path as written there, or NULL */
    const char *prompt; /* "" when there is none */
    const char *system; /* or NULL */
};

/* The object of a file, which has at least one entry; the caller gives it to cJSON_Delete. ERROR_BAD_FILE,
 * ERROR_TOO_LARGE, ERROR_IO, ERROR_NO_MEMORY. */
int example_file_read(cJSON **out, const char *path, struct error *error);

/* Understand one entry; `task` is the one asked for, or NULL: found from the entry. The message names the key:
 * ERROR_BAD_FILE, ERROR_UNSUPPORTED (several sources), or ERROR_BAD_REQUEST when `task` has to be given. Whether the
 * task takes a source is for the caller to check. */
int example_entry_parse(struct example_entry *out, const cJSON *entry, const char *task, struct error *error);

/* Whether a name has an ending such as ".mp4", in letters of any size. */
bool example_ends_in(const char *text, const char *ending);

/* Where a path of an example file is: below `root` if given, else below the file's folder or the nearest folder above
 * it that has it. malloc'ed; NULL: out of memory. */
char *example_source_path(const char *path, const char *examples, const char *root);

#endif
