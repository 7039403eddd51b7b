/* cache_folder.h: where lanced keeps what it can find out again: $XDG_CACHE_HOME/lanced, else $HOME/.cache/lanced. */
#ifndef LANCE_CACHE_FOLDER_H
#define LANCE_CACHE_FOLDER_H

#include <stddef.h>

enum { CACHE_FOLDER_BYTES = 4096 };

/* Make the folder (mode 0700) if need be, and write its path; "" where there is none to be had, as for a service
 * without a home, or where the folder is somebody else's, a link, or open to others for writing. */
void cache_folder_make(char *path, size_t bytes);

#endif
