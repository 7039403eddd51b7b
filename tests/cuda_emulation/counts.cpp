/* counts.cpp: what the host has asked of the emulated card, counted, and runs in which nothing else happens.
 *
 * LANCED_EMULATION_COUNTS=FILE: the counts, and how often each kernel was put on a stream, are written there as JSON
 * when the program ends. */
#include <stdio.h>

#include <map>
#include <string>

#include "streams.h"

struct emulated_counts emulated_counts;
static std::map<std::string, unsigned long> launches_of;

bool emulated_is_dry()
{
    static const char *const wish = getenv("LANCED_EMULATION_DRY");
    return wish && !strcmp(wish, "1");
}

void emulated_fill_dry(void *host, size_t bytes)
{
    static const float pattern[2] = {0.0f, 1.0f};
    for (size_t done = 0; done < bytes; done += sizeof pattern)
        memcpy(static_cast<char *>(host) + done, pattern, std::min(sizeof pattern, bytes - done));
}

void emulated_count_kernel(const char *name)
{
    emulated_counts.kernels++;
    launches_of[name]++;
}

static void write_counts(FILE *file)
{
    const struct emulated_counts &c = emulated_counts;
    const struct {
        const char *name;
        unsigned long count;
    } all[] = {{"kernels", c.kernels}, {"graph_launches", c.graph_launches}, {"nodes_set", c.nodes_set},
               {"events", c.events}, {"waits", c.waits}, {"syncs", c.syncs}, {"copies", c.copies},
               {"bytes_to_card", c.bytes_to_card}, {"bytes_to_host", c.bytes_to_host}};
    for (const auto &one : all)
        fprintf(file, "%s\"%s\": %lu", &one == all ? "{" : ", ", one.name, one.count);
    fprintf(file, ", \"of\": {");
    const char *between = "";
    for (const auto &[name, count] : launches_of) {
        fprintf(file, "%s\n\"%s\": %lu", between, name.c_str(), count);
        between = ",";
    }
    fprintf(file, "}}\n");
}

static struct writer {
    ~writer()
    {
        const char *path = getenv("LANCED_EMULATION_COUNTS");
        if (FILE *file = path ? fopen(path, "w") : nullptr) {
            write_counts(file);
            fclose(file);
        }
    }
} at_the_end;
