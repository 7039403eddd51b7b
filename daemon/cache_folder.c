/* cache_folder.c: see cache_folder.h. */
#include "daemon/cache_folder.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_there(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* What others could write there would be believed: hashes of files. A link is none of one's own, whoever made it. */
static bool is_ones_own(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid() && (info.st_mode & 022) == 0;
}

void cache_folder_make(char *path, size_t bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache && cache[0] == '/') /* the specification wants others passed over */
        length = snprintf(path, bytes, "%s", cache);
    else if (home && home[0] == '/')
        length = snprintf(path, bytes, "%s/.cache", home);
    bool is_made = length >= 0 && (size_t)length + sizeof "/lanced" <= bytes && is_there(path);
    if (is_made) {
        snprintf(path + length, bytes - (size_t)length, "/lanced");
        is_made = is_there(path) && is_ones_own(path) && access(path, W_OK | X_OK) == 0;
    }
    if (!is_made)
        path[0] = '\0';
}
