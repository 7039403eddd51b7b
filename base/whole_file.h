/* whole_file.h: a file that appears whole or not at all.
 *
 * It is written under a temporary name beside its target, brought to the disk and renamed; an
 * older file of that name is replaced. A symbolic link stays, and the file that it leads to is
 * written. Nothing half-written stays behind after a failure.
 */
#ifndef LANCE_WHOLE_FILE_H
#define LANCE_WHOLE_FILE_H

#include <stdint.h>

#include "base/error.h"

enum { WHOLE_FILE_REASON_BYTES = 160 };

struct whole_file {
    const char *path; /* as it was given, for messages; borrowed */
    char *target;     /* where its links lead; whole_file_end frees it */
    char *temporary;  /* what to open and write; whole_file_end frees it */
    int descriptor;   /* of the temporary file, which exists, empty */
};

/* Make the temporary file. ERROR_IO, with the system's reason. */
int whole_file_begin(struct whole_file *file, const char *path, struct error *error);

/* Give the file its name; or, when `failure` is not NULL, take it away and say "cannot write PATH: FAILURE". To be
 * called once after whole_file_begin succeeded, when the temporary file has been closed by
 * whoever wrote it. ERROR_IO. */
int whole_file_end(struct whole_file *file, const char *failure, struct error *error);

/* All of it at once: begin, write, end. ERROR_IO. */
int whole_file_write(const char *path, const void *data, uint64_t bytes, struct error *error);

/* The temporary name ".fox.png.XXXXXX" beside "fox.png", for mkstemp or mkdtemp; a long name is cut, so that
 * wherever a disk takes the name it takes this one. malloc'ed, NULL: out of memory. */
char *temporary_name(const char *path);

/* The last name in a row of symbolic links that begins with `path`, which need not exist yet; `path` itself, without
 * slashes at its end, where it is no link. *out is malloc'ed, NULL on failure. ERROR_IO: they go in a circle. */
int follow_links(char **out, const char *path, struct error *error);

/* Whether something could be written there: the folder exists and may be written to, and the name is not too long
 * for it. ERROR_IO otherwise. */
int whole_file_check_folder(const char *path, struct error *error);

/* The same, and that what `path` names now, if anything, is a file. */
int whole_file_check(const char *path, struct error *error);

#endif
