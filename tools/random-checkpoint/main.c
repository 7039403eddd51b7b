/* random-checkpoint: a Lance checkpoint of full size with random weights, to measure with where
 * the real one is not at hand.
 *
 *   random-checkpoint [--form FORM,...] [--config lance-3b|tiny|lance-3b-decoder] [--layers N] [--seed N]
 *                     [--threads N] [--hollow] -o DIR
 *
 * FORM is bf16, awq-128, awq-64 or nvfp4 (nvfp4 alone if none is named). DIR, which must be new or empty, becomes a
 * folder of published releases: Lance_3B with configuration and tokenizer, and the weights if bf16 is among the forms;
 * beside it Lance-3B-AWQ-INT4, Lance-3B-AWQ-INT4-g64, Lance-3B-NVFP4, Qwen2.5-VL-ViT and Wan2.2_VAE.pth. The folders of
 * a form are what lanced --model takes; Lance_3B is also what the official code reads.
 *
 * The same seed gives the same weights in every form, exactly. Pictures and answers made with them mean nothing, but
 * activations have ordinary sizes, and no answer ends before its limit of tokens. With --hollow the large tensors are
 * zeros that take no room on the disk, for what counts work without doing it (tests/cuda_emulation); --layers N is for
 * what looks at one of the decoder's layers, all alike, and lance-3b-decoder for what looks at no other part.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "tools/random-checkpoint/text_files.h"
#include "tools/random-checkpoint/weight_files.h"

static const struct {
    const char *name, *folder, *weights, *meta;
} forms[FORM_COUNT] = {
    [FORM_BF16] = {"bf16", "Lance_3B", "model.safetensors", NULL},
    [FORM_AWQ_128] = {"awq-128", "Lance-3B-AWQ-INT4", "awq_state_dict.safetensors", "awq_meta.json"},
    [FORM_AWQ_64] = {"awq-64", "Lance-3B-AWQ-INT4-g64", "awq_state_dict.safetensors", "awq_meta.json"},
    [FORM_NVFP4] = {"nvfp4", "Lance-3B-NVFP4", "nvfp4_state_dict.safetensors", "nvfp4_meta.json"},
};

enum { MAX_THREADS = 64, MAX_LAYERS = 256 };

struct options {
    const char *directory;
    const struct sizes *sizes;
    bool form[FORM_COUNT];
    uint64_t seed;
    int threads;
    bool hollow;
};

static int usage(void)
{
    fputs("usage: random-checkpoint [--form bf16,awq-128,awq-64,nvfp4] [--config lance-3b|tiny|lance-3b-decoder]\n"
          "                         [--layers N] [--seed N] [--threads N] [--hollow] -o DIR\n",
          stderr);
    return 2;
}

/* DIR/folder/name, or DIR/name where folder is NULL. */
static int path_in(char path[PATH_MAX], const struct options *o, const char *folder, const char *name,
                   struct error *error)
{
    const int length =
        snprintf(path, PATH_MAX, "%s%s%s/%s", o->directory, folder ? "/" : "", folder ? folder : "", name);
    return length < PATH_MAX ? 0 : error_set(error, ERROR_IO, "%s: the path is too long", o->directory);
}

static int make_folder(const char *path, struct error *error)
{
    return mkdir(path, 0777) ? error_set(error, ERROR_IO, "%s: %s", path, strerror(errno)) : 0;
}

/* A new folder in DIR, `path`. */
static int folder_in(char path[PATH_MAX], const struct options *o, const char *name, struct error *error)
{
    const int result = path_in(path, o, NULL, name, error);
    return result ? result : make_folder(path, error);
}

/* Write a list of tensors to DIR/folder/name with one of the two writers, say how long it
 * took, and release the list. */
static int write_weights(const struct options *o, const char *folder, const char *name,
                         int (*write)(const char *, const struct tensor_list *, int, struct error *),
                         struct tensor_list *list, struct error *error)
{
    char path[PATH_MAX];
    const double start = clock_seconds();
    int result = path_in(path, o, folder, name, error);
    if (!result)
        result = write(path, list, o->threads, error);
    const double seconds = clock_seconds() - start, bytes = (double)weights_bytes(list);
    if (!result)
        printf("%s: %zu tensors, %.2f GB in %.1f s\n", path, list->count, bytes * 1e-9, seconds);
    fflush(stdout);
    return result;
}

static int write_form(const struct options *o, enum form form, struct tensor_list *list, struct error *error)
{
    char path[PATH_MAX];
    int result = 0;
    if (form != FORM_BF16) {
        if ((result = folder_in(path, o, forms[form].folder, error)) ||
            (result = path_in(path, o, forms[form].folder, forms[form].meta, error)) ||
            (result = text_write_meta(path, list, form, error)))
            return result;
    }
    return write_weights(o, forms[form].folder, forms[form].weights, weights_write_safetensors, list, error);
}

/* Configuration and tokenizer in Lance_3B, whichever forms there are: 4-bit releases come without. */
static int write_texts(const struct options *o, struct error *error)
{
    char folder[PATH_MAX], path[PATH_MAX];
    int result;
    if ((result = folder_in(folder, o, forms[FORM_BF16].folder, error)) ||
        (result = path_in(path, o, forms[FORM_BF16].folder, "llm_config.json", error)) ||
        (result = text_write_llm_config(path, o->sizes, error)) || (result = text_write_tokenizer(folder, error)) ||
        (result = folder_in(folder, o, "Qwen2.5-VL-ViT", error)) ||
        (result = path_in(path, o, "Qwen2.5-VL-ViT", "config.json", error)))
        return result;
    return text_write_vit_config(path, o->sizes, error);
}

static int check_empty(const char *directory, struct error *error)
{
    DIR *entries = opendir(directory);
    if (!entries)
        return error_set(error, ERROR_IO, "%s: %s", directory, strerror(errno));
    bool is_empty = true;
    for (const struct dirent *entry; is_empty && (entry = readdir(entries));)
        is_empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(entries);
    return is_empty ? 0 : error_set(error, ERROR_IO, "%s exists and is not empty; name a new folder", directory);
}

/* DIR, made if it is not there, must be empty and have room. */
static int prepare_directory(const struct options *o, uint64_t bytes, struct error *error)
{
    struct statvfs disk;
    if (mkdir(o->directory, 0777) && errno != EEXIST)
        return error_set(error, ERROR_IO, "%s: %s", o->directory, strerror(errno));
    const int result = check_empty(o->directory, error);
    if (result)
        return result;
    if (statvfs(o->directory, &disk))
        return error_set(error, ERROR_IO, "%s: %s", o->directory, strerror(errno));
    const uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room < bytes + bytes / 64)
        return error_set(error, ERROR_IO, "%s: %.1f GB are needed, but its disk has only %.1f GB left", o->directory,
                         (double)bytes * 1e-9, (double)room * 1e-9);
    return 0;
}

/* The lists of everything that is to be written: each form's, then the ViT's and the VAE's. */
struct lists {
    struct tensor_list form[FORM_COUNT], vit, vae;
};

static int make_lists(struct lists *lists, const struct options *o, uint64_t *bytes, struct error *error)
{
    int result;
    if ((result = tensors_of_vit(&lists->vit, o->sizes, o->seed, error)) ||
        (result = tensors_of_vae(&lists->vae, o->sizes, o->seed, error)))
        return result;
    *bytes = weights_bytes(&lists->vit) + weights_bytes(&lists->vae);
    lists->vit.is_hollow = lists->vae.is_hollow = o->hollow;
    for (int form = 0; form < FORM_COUNT; form++) {
        if (o->form[form] &&
            (result = tensors_of_language_model(&lists->form[form], o->sizes, (enum form)form, o->seed, error)))
            return result;
        *bytes += weights_bytes(&lists->form[form]);
        lists->form[form].is_hollow = o->hollow;
    }
    if (o->hollow)
        *bytes = 0;
    return 0;
}

static int make_all(struct lists *lists, const struct options *o, struct error *error)
{
    uint64_t bytes;
    int result;
    if ((result = make_lists(lists, o, &bytes, error)) || (result = prepare_directory(o, bytes, error)) ||
        (result = write_texts(o, error)) ||
        (result = write_weights(o, NULL, "Wan2.2_VAE.pth", weights_write_pth, &lists->vae, error)) ||
        (result = write_weights(o, "Qwen2.5-VL-ViT", "vit.safetensors", weights_write_safetensors, &lists->vit, error)))
        return result;
    for (int form = 0; form < FORM_COUNT && !result; form++)
        if (o->form[form])
            result = write_form(o, (enum form)form, &lists->form[form], error);
    return result;
}

/* "bf16,nvfp4" into the options; false for a name that is none. */
static bool read_forms(struct options *o, const char *text)
{
    while (*text) {
        const size_t length = strcspn(text, ",");
        int form = 0;
        while (form < FORM_COUNT && (strlen(forms[form].name) != length || strncmp(forms[form].name, text, length)))
            form++;
        if (form == FORM_COUNT)
            return false;
        o->form[form] = true;
        text += length + (text[length] == ',');
    }
    return true;
}

static bool read_number(const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    *out = number;
    return *text >= '0' && *text <= '9' && !*end && !errno && number >= low && number <= high;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"form", required_argument, NULL, 'f'},   {"config", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},   {"threads", required_argument, NULL, 't'},
        {"output", required_argument, NULL, 'o'}, {"hollow", no_argument, NULL, 'h'},
        {"layers", required_argument, NULL, 'l'},
        {0},
    };
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct options o = {.sizes = sizes_of("lance-3b"),
                        .threads = online < 1             ? 1
                                   : online < MAX_THREADS ? (int)online
                                                          : MAX_THREADS};
    uint64_t threads = (uint64_t)o.threads, layers = 0;
    bool understood = true;
    for (int c; (c = getopt_long(argc, argv, "o:", names, NULL)) != -1;) {
        switch (c) {
        case 'f': understood &= read_forms(&o, optarg); break;
        case 'c': understood &= (o.sizes = sizes_of(optarg)) != NULL; break;
        case 's': understood &= read_number(optarg, 0, UINT64_MAX, &o.seed); break;
        case 't': understood &= read_number(optarg, 1, MAX_THREADS, &threads); break;
        case 'l': understood &= read_number(optarg, 1, MAX_LAYERS, &layers); break;
        case 'h': o.hollow = true; break;
        case 'o': o.directory = optarg; break;
        default: understood = false;
        }
    }
    if (!understood || optind < argc || !o.directory || !*o.directory)
        return usage();
    o.threads = (int)threads;
    struct sizes sizes = *o.sizes;
    if (layers)
        sizes.layers = (int)layers;
    o.sizes = &sizes;
    if (!o.form[FORM_BF16] && !o.form[FORM_AWQ_128] && !o.form[FORM_AWQ_64])
        o.form[FORM_NVFP4] = true;
    struct lists lists = {0};
    struct error error;
    const int result = make_all(&lists, &o, &error);
    for (int form = 0; form < FORM_COUNT; form++)
        free(lists.form[form].tensors);
    free(lists.vit.tensors);
    free(lists.vae.tensors);
    if (result)
        fprintf(stderr, "random-checkpoint: %s\n", error.text);
    return result ? 1 : 0;
}
