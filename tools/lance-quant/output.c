/* output.c: see output.h.
 *
 * DIR.partial/progress has the identity in its first line, then one line with a number for each work that is done. A
 * line is written after the tensors of its work were brought to the disk. What stands from a damaged line on does not
 * count, and is taken away: the next line must not be its rest. Who makes the folder holds a lock on that file.
 */
#include "tools/lance-quant/output.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "kernels/formats/numbers.h"

enum { IDENTITY_BYTES = 256 };

struct output {
    char directory[PATH_MAX], partial[PATH_MAX]; /* DIR and DIR.partial */
    const struct tensor_view *tensors;
    const struct tensor_view **by_name;
    uint64_t *offsets; /* of each tensor in the file */
    size_t count;
    uint64_t bytes; /* of the whole file */
    void *header;
    uint64_t header_bytes;
    int weights, progress; /* descriptors */
    bool done[OUTPUT_MOST_WORKS];
    int done_count;
};

static const char progress_name[] = "progress";

static int path_in(char path[PATH_MAX], const char *folder, const char *name, struct error *error)
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX
               ? 0
               : error_set(error, ERROR_IO, "%s: the path is too long", folder);
}

static int system_failed(const char *path, struct error *error)
{
    return error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
}

/* Where everything goes. */
static int place(struct output *output, struct error *error)
{
    static const char *const keys[] = {"format"}, *const values[] = {"pt"};
    const int code = safetensors_header(&output->header, &output->header_bytes, output->tensors, output->count, keys,
                                        values, 1, error);
    output->offsets = calloc(output->count + 1, sizeof *output->offsets);
    output->by_name = calloc(output->count + 1, sizeof *output->by_name);
    if (code != 0 || !output->offsets || !output->by_name)
        return code != 0 ? code
                         : error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of tensors");
    output->bytes = output->header_bytes;
    for (size_t i = 0; i < output->count; i++) {
        output->offsets[i] = output->bytes;
        output->bytes += output->tensors[i].bytes;
        output->by_name[i] = &output->tensors[i];
    }
    qsort(output->by_name, output->count, sizeof *output->by_name, tensor_compare_names_at);
    for (size_t i = 1; i < output->count; i++)
        if (strcmp(output->by_name[i - 1]->name, output->by_name[i]->name) == 0)
            return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" would be written twice",
                             output->by_name[i]->name);
    return 0;
}

/* The work that a line of the progress names; -1: the line was cut off or is no number. */
static int work_of(const char *line)
{
    char *end = NULL;
    const long work = isdigit((unsigned char)line[0]) ? strtol(line, &end, 10) : -1;
    return end && *end == '\n' && work < OUTPUT_MOST_WORKS ? (int)work : -1;
}

/* Read what was done before, up to a line that is damaged. Returns how many bytes of the file count; 0: it is of other
 * work, or not readable. */
static off_t read_progress(struct output *output, const char *path, const char *identity)
{
    FILE *file = regular_file_open(path);
    char line[IDENTITY_BYTES + 2];
    const bool same = file && fgets(line, sizeof line, file) && strlen(line) == strlen(identity) + 1 &&
                      strncmp(line, identity, strlen(identity)) == 0;
    off_t counts = same ? ftello(file) : 0;
    int work;
    while (same && fgets(line, sizeof line, file) && (work = work_of(line)) >= 0) {
        output->done_count += !output->done[work];
        output->done[work] = true;
        counts = ftello(file);
    }
    if (file)
        fclose(file);
    return counts;
}

/* Whether the weights of an earlier run are there: they have their size before any work counts as done. */
static bool has_weights(const struct output *output, const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 && (uint64_t)file.st_size == output->bytes;
}

static int check_room(const struct output *output, struct error *error)
{
    struct statvfs disk;
    struct stat file;
    if (statvfs(output->partial, &disk) != 0 || fstat(output->weights, &file) != 0)
        return system_failed(output->partial, error);
    const double room = (double)disk.f_bavail * (double)disk.f_frsize + 512.0 * (double)file.st_blocks,
                 wanted = (double)output->bytes;
    if (room < wanted)
        return error_set(error, ERROR_IO, "%s: %.2f GB are needed, but its disk has only %.2f GB left",
                         output->directory, wanted * 1e-9, room * 1e-9);
    return 0;
}

/* Everything, however often the system writes less. */
static int write_at(int file, const char *path, const void *data, uint64_t bytes, uint64_t offset, struct error *error)
{
    for (const char *from = data; bytes > 0;) {
        const ssize_t written = pwrite(file, from, (size_t)bytes, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? system_failed(path, error)
                               : error_set(error, ERROR_IO, "%s: the disk takes no more", path);
        from += written;
        bytes -= (uint64_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}

/* The two files of the folder; what an earlier run left stays if it is of the same work. */
static int open_files(struct output *output, const char *file, const char *identity, struct error *error)
{
    char weights[PATH_MAX], progress[PATH_MAX];
    int code = path_in(weights, output->partial, file, error);
    if (code == 0)
        code = path_in(progress, output->partial, progress_name, error);
    if (code != 0)
        return code;
    /* The lock before anything is changed: another run may be at it. */
    output->progress = open(progress, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (output->progress < 0)
        return system_failed(progress, error);
    if (flock(output->progress, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return error_set(error, ERROR_BAD_REQUEST, "%s: another lance-quant is making it; wait for its end, or name "
                         "another folder", output->directory);
    const off_t counts = has_weights(output, weights) ? read_progress(output, progress, identity) : 0;
    const bool goes_on = counts > 0;
    output->weights = open(weights, O_RDWR | O_CREAT | O_CLOEXEC | (goes_on ? 0 : O_TRUNC), 0666);
    if (output->weights < 0 || ftruncate(output->progress, counts) != 0)
        return system_failed(output->partial, error);
    code = check_room(output, error);
    if (code == 0 && ftruncate(output->weights, (off_t)output->bytes) != 0)
        code = system_failed(weights, error);
    if (code == 0)
        code = write_at(output->weights, weights, output->header, output->header_bytes, 0, error);
    if (code == 0 && !goes_on && dprintf(output->progress, "%s\n", identity) < 0)
        code = system_failed(progress, error);
    return code;
}

/* The name of the folder without slashes at its end, and with .partial, where nothing is yet: a link that leads nowhere
 * is something, too. */
static int name_folders(struct output *output, const char *directory, struct error *error)
{
    size_t length = strlen(directory);
    struct stat there;
    while (length > 1 && directory[length - 1] == '/')
        length--;
    if (length == 0)
        return error_set(error, ERROR_BAD_REQUEST, "the name of the new folder is empty");
    if (snprintf(output->partial, PATH_MAX, "%.*s.partial", (int)length, directory) >= PATH_MAX)
        return error_set(error, ERROR_IO, "%s: the path is too long", directory);
    snprintf(output->directory, PATH_MAX, "%.*s", (int)length, directory);
    if (lstat(output->directory, &there) == 0)
        return error_set(error, ERROR_BAD_REQUEST, "%s exists; name a new folder", output->directory);
    return 0;
}

int output_open(struct output **out, const char *directory, const char *file, const char *identity,
                const struct tensor_view *tensors, size_t count, struct error *error)
{
    *out = NULL;
    struct output *output = calloc(1, sizeof *output);
    if (!output)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory");
    *output = (struct output){.tensors = tensors, .count = count, .weights = -1, .progress = -1};
    int code = name_folders(output, directory, error);
    if (code == 0 && mkdir(output->partial, 0777) != 0 && errno != EEXIST)
        code = system_failed(output->partial, error);
    if (code == 0)
        code = place(output, error);
    if (code == 0)
        code = open_files(output, file, identity, error);
    if (code != 0) {
        output_close(output);
        return code;
    }
    *out = output;
    return 0;
}

void output_close(struct output *output)
{
    if (!output)
        return;
    if (output->weights >= 0)
        close(output->weights);
    if (output->progress >= 0)
        close(output->progress);
    free(output->header);
    free(output->offsets);
    free(output->by_name);
    free(output);
}

int output_write(struct output *output, const char *name, const void *data, uint64_t bytes, struct error *error)
{
    const struct tensor_view wanted = {.name = name}, *key = &wanted;
    const struct tensor_view **found =
        bsearch(&key, output->by_name, output->count, sizeof *output->by_name, tensor_compare_names_at);
    if (!found || (*found)->bytes != bytes)
        return error_set(error, ERROR_INTERNAL, "%s: %llu bytes were made that have no place", name,
                         (unsigned long long)bytes);
    return write_at(output->weights, output->partial, data, bytes, output->offsets[*found - output->tensors], error);
}

int output_write_bf16(struct output *output, const struct tensor_view *tensor, const float *divisor,
                      struct error *error)
{
    if (tensor->dtype == DTYPE_BF16 && !divisor)
        return output_write(output, tensor->name, tensor->data, tensor->bytes, error);
    const size_t n = (size_t)tensor_elements(tensor);
    float *values = malloc(sizeof *values * n + 1);
    uint16_t *rounded = malloc(sizeof *rounded * n + 1);
    int code = !values || !rounded
                     ? error_set(error, ERROR_NO_MEMORY, "%s: no memory to write it", tensor->name)
                     : tensor_to_float(tensor, values, error);
    for (size_t i = 0; i < n && code == 0; i++) {
        rounded[i] = float_to_bf16(values[i]);
        if (divisor)
            rounded[i] = float_to_bf16(bf16_to_float(rounded[i]) / divisor[i]);
    }
    if (code == 0)
        code = output_write(output, tensor->name, rounded, sizeof *rounded * n, error);
    free(values);
    free(rounded);
    return code;
}

bool output_is_done(const struct output *output, int work)
{
    return output->done[work];
}

int output_done_count(const struct output *output)
{
    return output->done_count;
}

int output_done(struct output *output, int work, struct error *error)
{
    if (fdatasync(output->weights) != 0 || dprintf(output->progress, "%d\n", work) < 0)
        return system_failed(output->partial, error);
    output->done[work] = true;
    output->done_count++;
    return 0;
}

int output_path(const struct output *output, const char *name, char path[PATH_MAX], struct error *error)
{
    return path_in(path, output->partial, name, error);
}

int output_text(struct output *output, const char *name, const char *text, struct error *error)
{
    char path[PATH_MAX];
    int code = path_in(path, output->partial, name, error);
    if (code != 0)
        return code;
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return system_failed(path, error);
    code = write_at(file, path, text, strlen(text), 0, error);
    if (code == 0 && fsync(file) != 0)
        code = system_failed(path, error);
    close(file);
    return code;
}

int output_finish(struct output *output, struct error *error)
{
    char progress[PATH_MAX];
    const int code = path_in(progress, output->directory, progress_name, error);
    if (code != 0)
        return code;
    if (fsync(output->weights) != 0)
        return system_failed(output->partial, error);
    /* First the name: if it is taken by now, what is done must go on counting. */
    if (rename(output->partial, output->directory) != 0)
        return error_set(error, ERROR_IO, "%s is whole, but cannot be named %s: %s", output->partial,
                         output->directory, strerror(errno));
    return unlink(progress) != 0 ? system_failed(progress, error) : 0;
}
