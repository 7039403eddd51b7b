/* descriptor.h: all of the bytes, where one read or write of a file takes what it likes; signals do not cut them short.
 * Any thread. */
#ifndef LANCE_DESCRIPTOR_H
#define LANCE_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

/* Whether all of it was written; otherwise errno says why. */
bool descriptor_write(int file, const void *data, uint64_t bytes);

/* Whether all of it was read; otherwise errno says why, EIO also when the file ends before. */
bool descriptor_read(int file, void *data, uint64_t bytes);

#endif
