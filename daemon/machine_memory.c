/* machine_memory.c: see machine_memory.h. */
#include "daemon/machine_memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

/* The number after `key` in a file of lines "key number"; without a key, the file's only number. */
static int read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    char line[256];
    unsigned long long number;
    int status = -1;
    while (status != 0 && fgets(line, sizeof line, file) != NULL) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) == 0 && sscanf(line + length, " %llu", &number) == 1) {
            *out = number;
            status = 0;
        }
    }
    fclose(file);
    return status;
}

/* One control group: its limit, and what is used of it but for the page cache, which gives way. */
static void apply_group(struct machine_memory *memory, const char *folder, const char *limit_name, const char *used_name,
                        const char *cache_key)
{
    char path[PATH_MAX];
    uint64_t limit, used = 0, cache = 0;
    snprintf(path, sizeof path, "%s/%s", folder, limit_name);
    if (read_number(path, "", &limit) != 0 || limit >= memory->total_bytes)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, used_name);
    read_number(path, "", &used);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    read_number(path, cache_key, &cache);
    used = used > cache ? used - cache : 0;
    memory->total_bytes = limit;
    uint64_t left = limit > used ? limit - used : 0;
    if (left < memory->available_bytes)
        memory->available_bytes = left;
}

/* The process's own group of the unified hierarchy, and those it lies in. */
static void apply_groups(struct machine_memory *memory, const char *root)
{
    char path[PATH_MAX], line[PATH_MAX / 2] = "";
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && strncmp(line, "0::", 3) != 0)
        line[0] = '\0';
    if (file != NULL)
        fclose(file);
    line[strcspn(line, "\n")] = '\0';
    char *group = line[0] != '\0' ? line + 3 : line;
    for (;;) {
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, group);
        apply_group(memory, path, "memory.max", "memory.current", "file ");
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
    snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory", root); /* the older hierarchy, as a container sees it */
    apply_group(memory, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache ");
}

void machine_memory_read(struct machine_memory *out, const char *root)
{
    *out = (struct machine_memory){0};
    char path[PATH_MAX];
    uint64_t total_kb, available_kb;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_number(path, "MemTotal:", &total_kb) != 0 || read_number(path, "MemAvailable:", &available_kb) != 0)
        return;
    *out = (struct machine_memory){.total_bytes = total_kb << 10, .available_bytes = available_kb << 10};
    apply_groups(out, root);
}

uint64_t machine_memory_for_jobs(const struct machine_memory *machine, uint64_t weight_bytes)
{
    if (machine->total_bytes == 0)
        return 0;
    uint64_t reserve = machine->total_bytes / 8 > 256 * MIB ? machine->total_bytes / 8 : 256 * MIB;
    uint64_t taken = weight_bytes + reserve;
    return machine->available_bytes > taken + 64 * MIB ? machine->available_bytes - taken : 64 * MIB;
}

uint64_t device_memory_for_jobs(uint64_t available_bytes)
{
    uint64_t reserve = available_bytes / 16 > 256 * MIB ? available_bytes / 16 : 256 * MIB;
    return available_bytes > reserve + 64 * MIB ? available_bytes - reserve : 64 * MIB;
}
