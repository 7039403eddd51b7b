/* descriptor.h: all of the bytes, where one read or write of a file takes what it likes; signals do not cut them short.
 * And files that are files: who opens a pipe waits for whoever writes into it. Any thread. */
#ifndef LANCE_DESCRIPTOR_H
#define LANCE_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Whether all of it was written; otherwise errno says why. */
bool descriptor_write(int file, const void *data, uint64_t bytes);

/* Whether all of it was read; otherwise errno says why, EIO also when the file ends before. */
bool descriptor_read(int file, void *data, uint64_t bytes);

/* A regular file, to be read. NULL: errno says why, EINVAL of what is there and is no regular file; nobody waits. */
FILE *regular_file_open(const char *path);

#endif
