/* model_file.h: a file of a model folder, mapped; or words for what was put in its place.
 *
 * A folder that was cloned without Git LFS holds small text files that point to the real ones, and a download that
 * went wrong leaves the server's page. Both would otherwise be called damaged, whatever they stand for.
 */
#ifndef LANCE_MODEL_FILE_H
#define LANCE_MODEL_FILE_H

#include "base/json.h"
#include "base/mapped_file.h"

/* mapped_file_open, and ERROR_BAD_FILE for a Git LFS pointer and an HTML page; `mapped` is then empty. */
int model_file_open(struct mapped_file *mapped, const char *path, struct error *error);

/* The JSON object in the file at `path`, which the caller gives to cJSON_Delete. Bounded in bytes and values. */
int model_file_json(cJSON **out, const char *path, struct error *error);

#endif
