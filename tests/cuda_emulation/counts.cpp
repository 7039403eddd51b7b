/* counts.cpp: what the host has asked of the emulated card, counted, and runs in which nothing else happens.
 *
 * LANCED_EMULATION_COUNTS=FILE: the counts, and how often each kernel was put on a stream, are written there as JSON
 * when the program ends: a list of what they were at each wait of the host for graphs, which ends a step or a token,
 * and at the end. */
#include <stdio.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "streams.h"

struct emulated_counts emulated_counts;
using launches = std::map<std::string, unsigned long>; /* of each kernel */
static launches launches_of;
static std::vector<std::pair<struct emulated_counts, launches>> at_waits;

static const char *file_wanted()
{
    static const char *const path = getenv("LANCED_EMULATION_COUNTS");
    return path;
}

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

void emulated_count_wait()
{
    emulated_counts.syncs++;
    const unsigned long before = at_waits.empty() ? 0 : at_waits.back().first.graph_launches;
    if (file_wanted() && emulated_counts.graph_launches > before)
        at_waits.emplace_back(emulated_counts, launches_of);
}

static void write_counts(FILE *file, const struct emulated_counts &c, const launches &of)
{
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
    for (const auto &[name, count] : of) {
        fprintf(file, "%s\n\"%s\": %lu", between, name.c_str(), count);
        between = ",";
    }
    fprintf(file, "}}");
}

static struct writer {
    ~writer()
    {
        FILE *file = file_wanted() ? fopen(file_wanted(), "w") : nullptr;
        if (!file)
            return;
        fprintf(file, "[");
        for (const auto &[counts, of] : at_waits) {
            write_counts(file, counts, of);
            fprintf(file, ",\n");
        }
        write_counts(file, emulated_counts, launches_of);
        fprintf(file, "]\n");
        fclose(file);
    }
} at_the_end;
