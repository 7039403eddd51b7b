/* machine_memory.c: see machine_memory.h. */
#include "daemon/machine_memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

/* The number after `key` in a file of lines "key number"; without a key, the file's only number. */
static int read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    char line[256];
    unsigned long long number;
    int status = -1;
    while (status != 0 && fgets(line, sizeof line, file)) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) == 0 && sscanf(line + length, " %llu", &number) == 1) {
            *out = number;
            status = 0;
        }
    }
    fclose(file);
    return status;
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- Control groups ---------------------------------------------------------------------- */

/* The files of one generation of control groups. */
struct group_files {
    const char *limits[2]; /* the smaller one counts */
    const char *used;
    const char *cache[2]; /* keys of memory.stat: pages of files, which give way (not those of tmpfs, which do not) */
    const char *limit_of_all; /* key of memory.stat: the smallest up to the root, also of groups a container hides */
};

static const struct group_files unified_files = {{"memory.max", "memory.high"}, "memory.current",
                                                 {"active_file ", "inactive_file "}, NULL};
static const struct group_files older_files = {{"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes",
                                               {"total_active_file ", "total_inactive_file "},
                                               "hierarchical_memory_limit "};

/* Paths while control groups are looked for; on the heap, because a small stack would not hold them. */
struct search {
    char path[PATH_MAX];       /* of the process's own group, */
    char mounted[PATH_MAX];    /* the group that is mounted, */
    char mount[PATH_MAX];      /* and where */
    char folder[3 * PATH_MAX]; /* of the group looked at */
    char file[4 * PATH_MAX];
    char line[4 * PATH_MAX];
};

/* A number of a file of the group looked at; `otherwise` where there is none, or "max". */
static uint64_t number_of(struct search *search, const char *name, const char *key, uint64_t otherwise)
{
    uint64_t number;
    if (!name || !key)
        return otherwise;
    snprintf(search->file, sizeof search->file, "%s/%s", search->folder, name);
    return read_number(search->file, key, &number) == 0 ? number : otherwise;
}

/* One control group: its limit, and what is used of it but for the page cache. */
static void apply_group(struct machine_memory *memory, struct search *search, const struct group_files *files)
{
    uint64_t limit = min(number_of(search, files->limits[0], "", UINT64_MAX),
                         number_of(search, files->limits[1], "", UINT64_MAX));
    if (limit == UINT64_MAX)
        return;
    uint64_t used = number_of(search, files->used, "", 0);
    uint64_t cache = number_of(search, "memory.stat", files->cache[0], 0) +
                     number_of(search, "memory.stat", files->cache[1], 0);
    used -= min(used, cache);
    limit = min(limit, number_of(search, "memory.stat", files->limit_of_all, UINT64_MAX));
    memory->total_bytes = min(memory->total_bytes, limit);
    memory->available_bytes = min(memory->available_bytes, limit - min(limit, used));
}

/* Whether `name` is one of those with commas between them. */
static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == '\0' || at[length] == ','))
            return true;
    return false;
}

/* The path of the process's own group, from a line "ID:CONTROLLERS:PATH" of /proc/self/cgroup. The unified hierarchy
 * names no controllers. */
static bool find_group(struct search *search, const char *root, bool is_unified)
{
    char *line = search->line;
    snprintf(line, sizeof search->line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof search->line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group = '\0';
        found = is_unified ? controllers[1] == '\0' : is_listed(controllers + 1, "memory");
        if (found)
            snprintf(search->path, sizeof search->path, "%.*s", PATH_MAX - 1, group + 1);
    }
    if (file)
        fclose(file);
    return found;
}

/* Where the hierarchy is mounted, and which of its groups is to be seen there, from a line
 * "ID PARENT DEVICE GROUP FOLDER OPTIONS ... - TYPE SOURCE OPTIONS" of /proc/self/mountinfo. */
static bool find_mount(struct search *search, const char *root, bool is_unified)
{
    char *line = search->line, type[32], options[256];
    snprintf(line, sizeof search->line, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(line, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof search->line, file)) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(rest, " - %31s %*s %255s", type, options) != 2)
            continue;
        bool is_older = strcmp(type, "cgroup") == 0 && is_listed(options, "memory");
        found = (is_unified ? strcmp(type, "cgroup2") == 0 : is_older) &&
                sscanf(line, "%*s %*s %*s %4095s %4095s", search->mounted, search->mount) == 2;
    }
    if (file)
        fclose(file);
    return found;
}

/* The part of the path of the process's group that lies below the group that is mounted; "" when it is that one, or
 * lies elsewhere, as a container may have it. */
static const char *below(const char *path, const char *mounted)
{
    size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    bool is_below = strncmp(path, mounted, length) == 0 && path[length] == '/' && path[length + 1] != '\0';
    return is_below && !strstr(path, "/..") ? path + length : "";
}

/* The process's own group of a hierarchy and those that it lies in, up to the one that is mounted. */
static void apply_groups(struct machine_memory *memory, struct search *search, const char *root, bool is_unified)
{
    char *folder = search->folder;
    if (!find_group(search, root, is_unified) || !find_mount(search, root, is_unified))
        return;
    size_t top = (size_t)snprintf(folder, sizeof search->folder, "%s%s", root, search->mount);
    snprintf(folder + top, sizeof search->folder - top, "%s", below(search->path, search->mounted));
    const struct group_files *files = is_unified ? &unified_files : &older_files;
    for (;;) {
        apply_group(memory, search, files);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash)
            break;
        *slash = '\0';
        if (!is_unified && number_of(search, "memory.use_hierarchy", "", 1) == 0)
            break; /* an older kernel, on which a group is not part of the one it lies in */
    }
}

/* --- The machine ------------------------------------------------------------------------- */

int machine_memory_read(struct machine_memory *out, const char *root, struct error *error)
{
    *out = (struct machine_memory){0};
    char path[PATH_MAX];
    uint64_t total_kb, available_kb;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_number(path, "MemTotal:", &total_kb) != 0 || read_number(path, "MemAvailable:", &available_kb) != 0)
        return 0;
    *out = (struct machine_memory){.total_bytes = total_kb << 10, .available_bytes = available_kb << 10};
    struct search *search = calloc(1, sizeof *search);
    if (!search) {
        *out = (struct machine_memory){0};
        return error_set(error, ERROR_NO_MEMORY, "out of memory while the machine's memory was looked at");
    }
    apply_groups(out, search, root, true);
    apply_groups(out, search, root, false); /* a hybrid machine has both, and the limits in either */
    free(search);
    return 0;
}

/* What is left of `available` beside `taken` and a reserve: a share of `total`, at least 256 MiB, but no more than a
 * quarter. */
static uint64_t left_for_jobs(uint64_t available, uint64_t taken, uint64_t total, uint64_t share)
{
    uint64_t reserve = total / share > 256 * MIB ? total / share : min(256 * MIB, total / 4);
    return available > taken + reserve ? available - taken - reserve : 1;
}

uint64_t machine_memory_for_jobs(const struct machine_memory *machine, uint64_t weight_bytes)
{
    if (machine->total_bytes == 0)
        return 0;
    return left_for_jobs(machine->available_bytes, weight_bytes, machine->total_bytes, 8);
}

uint64_t device_memory_for_jobs(uint64_t available_bytes)
{
    return left_for_jobs(available_bytes, 0, available_bytes, 16);
}
