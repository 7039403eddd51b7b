/* export_vit.c: see export_vit.h. */
#include "tools/lance-quant/export_vit.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char file_name[] = "vit.safetensors", patch_embedding[] = "patch_embed.proj.weight";

static bool find(char path[PATH_MAX], const char *release)
{
    static const char *const places[] = {"Qwen2.5-VL-ViT", "../Qwen2.5-VL-ViT"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, PATH_MAX, "%s/%s/%s", release, places[i], file_name) < PATH_MAX && access(path, R_OK) == 0)
            return true;
    return false;
}

static int no_memory(const char *path, struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "%s: no memory to copy it", path);
}

/* Whether the tensor is a patch embedding in the official order; its shape becomes MLX's. */
static bool turn_shape(struct tensor_view *tensor)
{
    if (strcmp(tensor->name, patch_embedding) != 0 || tensor->dimensions != 5)
        return false;
    const uint64_t in = tensor->shape[1];
    memmove(tensor->shape + 1, tensor->shape + 2, 3 * sizeof *tensor->shape);
    tensor->shape[4] = in;
    return true;
}

/* [out, in, cells] as [out, cells, in]. */
static int write_turned(FILE *out, const struct tensor_view *turned, const char *path, struct error *error)
{
    const size_t element = dtype_bytes(turned->dtype), in = turned->shape[4], outs = turned->shape[0];
    const size_t cells = outs * in > 0 ? (size_t)turned->bytes / element / (outs * in) : 0;
    const char *from = turned->data;
    char *values = malloc((size_t)turned->bytes + 1);
    if (!values)
        return no_memory(path, error);
    for (size_t o = 0; o < outs; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t c = 0; c < cells; c++)
                memcpy(values + ((o * cells + c) * in + i) * element, from + ((o * in + i) * cells + c) * element,
                       element);
    fwrite(values, 1, (size_t)turned->bytes, out);
    free(values);
    return 0;
}

static int write_tensors(const char *to, const struct tensor_view *tensors, const bool *turned, size_t count,
                         struct error *error)
{
    static const char *const keys[] = {"format"}, *const values[] = {"mlx"};
    void *header = NULL;
    uint64_t header_bytes;
    int code = safetensors_header(&header, &header_bytes, tensors, count, keys, values, 1, error);
    FILE *out = code == 0 ? fopen(to, "w") : NULL;
    if (code == 0 && !out)
        code = error_set(error, ERROR_IO, "%s: %s", to, strerror(errno));
    if (!out) {
        free(header);
        return code;
    }
    fwrite(header, 1, (size_t)header_bytes, out);
    free(header);
    for (size_t i = 0; i < count && code == 0; i++)
        if (turned[i])
            code = write_turned(out, &tensors[i], to, error);
        else
            fwrite(tensors[i].data, 1, (size_t)tensors[i].bytes, out);
    const bool failed = fflush(out) != 0 || ferror(out) != 0 || fsync(fileno(out)) != 0;
    if ((fclose(out) != 0 || failed) && code == 0)
        code = error_set(error, ERROR_IO, "%s: %s", to, strerror(errno));
    return code;
}

int export_vit(const struct output *output, const char *release, bool *found, struct error *error)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct safetensors *file = NULL;
    *found = find(from, release);
    if (!*found)
        return 0;
    int code = output_path(output, file_name, to, error);
    if (code == 0)
        code = safetensors_open(&file, from, error);
    if (code != 0)
        return code;
    const size_t count = safetensors_count(file);
    struct tensor_view *tensors = calloc(count + 1, sizeof *tensors);
    bool *turned = calloc(count + 1, sizeof *turned);
    if (!tensors || !turned)
        code = no_memory(from, error);
    for (size_t i = 0; i < count && code == 0; i++) {
        tensors[i] = *safetensors_at(file, i);
        turned[i] = turn_shape(&tensors[i]);
    }
    if (code == 0)
        code = write_tensors(to, tensors, turned, count, error);
    free(tensors);
    free(turned);
    safetensors_close(file);
    return code;
}
