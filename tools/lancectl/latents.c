/* latents.c: see latents.h. */
#include "tools/lancectl/latents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/whole_file.h"
#include "protocol/latent_shape.h"
#include "tools/lancectl/receipt.h"

/* Take a tensor of the file under the protocol's name: as F32 and [batch,48,latent frames,rows,columns]. */
static int take(struct latents_file *out, const struct tensor_view *tensor, const char *name, struct error *error)
{
    struct tensor_view *taken = &out->tensors[out->count];
    *taken = *tensor;
    taken->name = name;
    if (tensor->dimensions == 4) { /* a picture's, as other programs save it: one latent frame */
        memmove(taken->shape + 3, taken->shape + 2, 2 * sizeof *taken->shape);
        taken->shape[2] = 1;
        taken->dimensions = 5;
    }
    if (taken->dimensions != 5 || taken->shape[1] != LATENT_CHANNELS)
        return error_set(error, ERROR_BAD_FILE, "\"%s\" is not of the shape [batch,48,latent frames,rows,columns] or "
                         "[batch,48,rows,columns], which latents of Wan 2.2 have", tensor->name);
    if (tensor->dtype != DTYPE_F32) {
        if (tensor->dtype != DTYPE_F16 && tensor->dtype != DTYPE_BF16)
            return error_set(error, ERROR_BAD_FILE, "\"%s\" is %s; latents in F32, F16 and BF16 are accepted",
                             tensor->name, dtype_name(tensor->dtype));
        uint64_t elements = tensor_elements(tensor);
        float *widened = out->widened[out->count] = malloc(elements ? elements * sizeof *widened : 1);
        if (!widened)
            return error_set(error, ERROR_NO_MEMORY, "no memory for %llu values", (unsigned long long)elements);
        int code = tensor_to_float(tensor, widened, error);
        if (code)
            return code;
        taken->dtype = DTYPE_F32;
        taken->data = widened;
        taken->bytes = elements * sizeof *widened;
    }
    out->count++;
    return 0;
}

int latents_read(struct latents_file *out, const char *path, struct error *error)
{
    *out = (struct latents_file){0};
    int code = safetensors_open(&out->file, path, error);
    if (code)
        return code;
    const struct tensor_view *latents = safetensors_find(out->file, "latent_tensor");
    const struct tensor_view *state = safetensors_find(out->file, "latent_state");
    if (latents)
        code = take(out, latents, "latents", error);
    else
        code = error_set(error, ERROR_BAD_FILE,
                         "has no \"latent_tensor\", which files of lancectl encode and of ComfyUI's "
                         "SaveLatent have");
    if (!code && state)
        code = take(out, state, "latent_state", error);
    if (!code)
        return 0;
    latents_close(out);
    return error_prefix(error, "%s", path);
}

void latents_close(struct latents_file *latents)
{
    safetensors_close(latents->file);
    free(latents->widened[0]);
    free(latents->widened[1]);
    *latents = (struct latents_file){0};
}

int latents_read_receipt(char **receipt, const char *path, struct error *error)
{
    *receipt = NULL;
    struct safetensors *file;
    int code = safetensors_open(&file, path, error);
    if (code)
        return code;
    const char *text = safetensors_metadata(file, LATENTS_RECEIPT);
    *receipt = text ? strdup(text) : NULL;
    safetensors_close(file);
    return *receipt ? 0 : error_set(error, ERROR_BAD_FILE, "%s has no receipt: it was not written by lancectl", path);
}

int latents_write_tensors(const char *path, const struct tensor_view *latents, const struct tensor_view *state,
                          const char *const *keys, const char *const *values, size_t texts, struct error *error)
{
    struct tensor_view tensors[3] = {
        *latents, {.name = "latent_format_version_0", .dtype = DTYPE_F32, .dimensions = 1, .data = ""}};
    tensors[0].name = "latent_tensor";
    size_t count = 2;
    if (state)
        tensors[count++] = *state;
    void *data;
    uint64_t bytes;
    int code = safetensors_write(&data, &bytes, tensors, count, keys, values, texts, error);
    if (!code) {
        code = whole_file_write(path, data, bytes, error);
        free(data);
    }
    return code;
}

int latents_write(const char *path, const struct job_result *result, struct error *error)
{
    const struct tensor_view *latents = job_result_tensor(result, "latents");
    if (!latents)
        return error_set(error, ERROR_UNSUPPORTED, "the job made no latents");
    char *receipt = receipt_of_picture(job_result_fields(result), 0);
    if (!receipt)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the receipt");
    const char *const keys[] = {LATENTS_RECEIPT}, *const values[] = {receipt};
    int code = latents_write_tensors(path, latents, job_result_tensor(result, "latent_state"), keys, values, 1, error);
    free(receipt);
    return code;
}
