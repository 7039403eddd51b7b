/* replay.c: runs a target (fuzz_*.c) without libFuzzer, for make test: over the files and the files of the folders
 * given, and over so many damaged copies of each (--damaged N), which are the same ones at every run.
 *
 *   fuzz_NAME [--damaged N] FILE|FOLDER ...
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Change, insert, leave out, repeat or cut off a few bytes; `to` has room for twice `bytes`. Returns how many
 * are left. */
static size_t damage(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t *random)
{
    memcpy(to, from, bytes);
    for (uint32_t changes = 1 + next_random(random) % 4; changes > 0 && bytes > 0; changes--) {
        const size_t at = next_random(random) % bytes, length = 1 + next_random(random) % 8;
        switch (next_random(random) % 5) {
        case 0: to[at] ^= (uint8_t)(1u << next_random(random) % 8); break;
        case 1: to[at] = (uint8_t)next_random(random); break;
        case 2: bytes = at; break;
        case 3: /* left out */
            if (at + length < bytes) {
                memmove(to + at, to + at + length, bytes - at - length);
                bytes -= length;
            }
            break;
        default: /* twice */
            if (at + length < bytes) {
                memmove(to + at + length, to + at, bytes - at);
                bytes += length;
            }
            break;
        }
    }
    return bytes;
}

/* libFuzzer's, for targets that mutate what they are given in a way of their own: here nobody calls that. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t most_bytes);
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t most_bytes)
{
    (void)data;
    return bytes < most_bytes ? bytes : most_bytes;
}

static int run_file(const char *path, unsigned damaged, unsigned *inputs)
{
    static char read_bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    const size_t bytes = fread(read_bytes, 1, sizeof read_bytes, file);
    fclose(file);
    uint8_t *copy = malloc(bytes * 2 + 64);
    uint32_t random = 1;
    if (!copy)
        return 1;
    memcpy(copy, read_bytes, bytes);
    LLVMFuzzerTestOneInput(copy, bytes);
    for (unsigned i = 0; i < damaged; i++)
        LLVMFuzzerTestOneInput(copy, damage(copy, (const uint8_t *)read_bytes, bytes, &random));
    *inputs += 1 + damaged;
    free(copy);
    return 0;
}

static int run_path(const char *path, unsigned damaged, unsigned *inputs)
{
    DIR *folder = opendir(path);
    if (!folder)
        return run_file(path, damaged, inputs);
    int status = 0;
    for (struct dirent *entry; status == 0 && (entry = readdir(folder));) {
        char within[4096];
        snprintf(within, sizeof within, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            status = run_file(within, damaged, inputs);
    }
    closedir(folder);
    return status;
}

int main(int argc, char **argv)
{
    unsigned damaged = 0, inputs = 0;
    int first = 1, status = 0;
    if (argc > 2 && strcmp(argv[1], "--damaged") == 0) {
        damaged = (unsigned)strtoul(argv[2], NULL, 10);
        first = 3;
    }
    for (int i = first; i < argc && status == 0; i++)
        status = run_path(argv[i], damaged, &inputs);
    printf("%u inputs\n", inputs);
    return status ? status : inputs == 0;
}
