/* latents.c: see latents.h. */
#include "tools/lancectl/latents.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/lancectl/receipt.h"
#include "tools/media/whole_file.h"

static const char receipt_key[] = "lanced"; /* in the file's metadata */

int latents_read(struct latents_file *out, const char *path, struct error *error)
{
    *out = (struct latents_file){0};
    int code = safetensors_open(&out->file, path, error);
    if (code)
        return code;
    const struct tensor_view *latents = safetensors_find(out->file, "latent_tensor");
    const struct tensor_view *state = safetensors_find(out->file, "latent_state");
    if (!latents || latents->dtype != DTYPE_F32 || latents->dimensions != 5) {
        latents_close(out);
        return error_set(error, ERROR_BAD_FILE, "%s: has no \"latent_tensor\" F32 [batch,48,latent frames,rows,columns], which files of "
                         "lancectl encode and of ComfyUI's SaveLatent for Wan 2.2 have", path);
    }
    out->tensors[out->count] = *latents;
    out->tensors[out->count++].name = "latents";
    if (state)
        out->tensors[out->count++] = *state;
    return 0;
}

void latents_close(struct latents_file *latents)
{
    safetensors_close(latents->file);
    *latents = (struct latents_file){0};
}

int latents_read_receipt(char **receipt, const char *path, struct error *error)
{
    *receipt = NULL;
    struct safetensors *file;
    int code = safetensors_open(&file, path, error);
    if (code)
        return code;
    const char *text = safetensors_metadata(file, receipt_key);
    *receipt = text ? strdup(text) : NULL;
    safetensors_close(file);
    return *receipt ? 0 : error_set(error, ERROR_BAD_FILE, "%s has no receipt: it was not written by lancectl", path);
}

static int write_bytes(const char *path, const void *data, uint64_t bytes, struct error *error)
{
    struct whole_file file;
    int code = whole_file_begin(&file, path, error);
    if (code)
        return code;
    FILE *stream = fopen(file.temporary, "wbe");
    bool is_written = stream && fwrite(data, 1, bytes, stream) == bytes;
    int reason = errno;
    if (stream && fclose(stream) != 0 && is_written) {
        is_written = false;
        reason = errno;
    }
    return whole_file_end(&file, is_written ? NULL : strerror(reason), error);
}

int latents_write(const char *path, const struct message *result, struct error *error)
{
    const struct tensor_view *latents = message_tensor(result, "latents"), *state = message_tensor(result, "latent_state");
    if (!latents)
        return error_set(error, ERROR_UNSUPPORTED, "the job made no latents");
    struct tensor_view tensors[3] = {*latents, {.name = "latent_format_version_0", .dtype = DTYPE_F32, .dimensions = 1, .data = ""}};
    tensors[0].name = "latent_tensor";
    size_t count = 2;
    if (state)
        tensors[count++] = *state;
    char *receipt = receipt_of_picture(message_envelope(result), 0);
    if (!receipt)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the receipt");
    const char *const keys[] = {receipt_key}, *const values[] = {receipt};
    void *data;
    uint64_t bytes;
    int code = safetensors_write(&data, &bytes, tensors, count, keys, values, 1, error);
    if (!code) {
        code = write_bytes(path, data, bytes, error);
        free(data);
    }
    free(receipt);
    return code;
}
