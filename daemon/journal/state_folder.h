/* state_folder.h: the folder of lanced --state: made, locked against a second daemon, and judged before it is used.
 *
 * It is its owner's alone (mode 0700) and lies on a disk of this machine: on network file systems neither locks nor
 * fsync mean what the journal needs, so these are refused by name. One thread at a time.
 */
#ifndef LANCE_STATE_FOLDER_H
#define LANCE_STATE_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { STATE_FOLDER_RESERVE_BYTES = 16 << 20 }; /* left free for the ends of jobs that were accepted */

struct state_folder;

/* Open the folder, making its last component if need be, and lock it. Errors: ERROR_BUSY (another daemon has it),
 * ERROR_UNSUPPORTED (a network file system), ERROR_IO (with the system's reason, or another user's folder). */
int state_folder_open(struct state_folder **out, const char *path, struct error *error);
void state_folder_close(struct state_folder *folder); /* NULL is allowed; the folder stays */

const char *state_folder_path(const struct state_folder *folder);
int state_folder_descriptor(const struct state_folder *folder);

/* Whether it is still the folder that was opened, may be written to, and has room for `bytes` more beside the reserve.
 * ERROR_IO with the numbers otherwise. Costs two calls of the system. */
int state_folder_check(const struct state_folder *folder, uint64_t bytes, struct error *error);

#endif
