/* mapped_file.h: a regular file mapped read-only into memory.
 *
 * The file readers (safetensors, .pth) hand out pointers into such a mapping instead of
 * copying. A file that shrinks while it is mapped, or that the disk cannot read, ends the process
 * with SIGBUS, as with any mapping, unless it asked for mapped_files_guard. One that is rewritten in place
 * silently changes what was handed out, which mapped_files_change tells. Renaming new files into place is always safe.
 */
#ifndef LANCE_MAPPED_FILE_H
#define LANCE_MAPPED_FILE_H

#include <stdint.h>

#include "base/error.h"

struct mapped_file {
    const uint8_t *data; /* NULL for an unmapped file, not for an empty one */
    uint64_t bytes;
};

/* Map `path`. Errors: ERROR_BAD_FILE when it does not exist or is not a regular file,
 * ERROR_IO when the system refuses; `mapped` is then empty. */
int mapped_file_open(struct mapped_file *mapped, const char *path, struct error *error);

void mapped_file_close(struct mapped_file *mapped); /* an empty one is allowed */

/* Ask the system to start reading these bytes of a mapping from the disk now. Never fails: it is a hint. */
void mapped_file_prefetch(const void *data, uint64_t bytes);

/* The process needs these bytes of a mapping no longer, so that they stop counting as its memory. They may be read
 * all the same: they come back from the file. */
void mapped_file_let_go(const void *data, uint64_t bytes);

/* From now on, what is lost of a mapped file reads as zeros, and mapped_files_check tells. Call once, before any
 * thread is started. */
void mapped_files_guard(void);

/* Whose the files are that this thread maps from now on: any pointer, by which the next two tell files apart; NULL:
 * nobody's. Returns whose they were before. */
const void *mapped_files_belong_to(const void *owner);

/* What became of an owner's files, by inode, size and time of the last change; the worst of it. */
enum mapped_change {
    MAPPED_SAME,
    MAPPED_REPLACED,  /* the name leads to another file; what is mapped is whole */
    MAPPED_REWRITTEN  /* what is mapped is another thing than what was opened */
};

/* `why` (NULL is allowed) names the file. A look at each file's name, cheap enough to come before every job. Any
 * thread. */
enum mapped_change mapped_files_change(const void *owner, struct error *why);

/* ERROR_BAD_FILE, naming the file, when part of an owner's file that is still mapped was lost. Any thread. */
int mapped_files_check(const void *owner, struct error *error);

#endif
