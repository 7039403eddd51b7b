/* latents.h: files of latents, as ComfyUI's SaveLatent writes and its LoadLatent reads them.
 *
 * A safetensors file: `latent_tensor` f32 [batch, 48, latent frames, rows, columns] in the raw scale of the VAE, an
 * empty `latent_format_version_0`, and, of ours, `latent_state` of the same shape where noise is left, and the
 * receipt as metadata `lanced`. Other programs also leave F16 or BF16, which is widened, and [batch, 48, rows,
 * columns], which is one latent frame.
 */
#ifndef LANCECTL_LATENTS_H
#define LANCECTL_LATENTS_H

#include "protocol/transfer.h"

struct latents_file {
    struct safetensors *file;
    struct tensor_view tensors[2]; /* F32 "latents" and perhaps "latent_state", as the protocol names them */
    float *widened[2];             /* the values of each that the file does not have as F32, or NULL */
    size_t count;
};

/* Read a file. Errors: ERROR_IO, ERROR_BAD_FILE naming it. Close with latents_close. */
int latents_read(struct latents_file *out, const char *path, struct error *error);
/* The receipt that latents_write left in a file; malloc'ed. Errors: ERROR_BAD_FILE, or as of safetensors_open. */
int latents_read_receipt(char **receipt, const char *path, struct error *error);

void latents_close(struct latents_file *latents); /* all zeros is allowed */

/* Write a result's latents. The file appears whole or not at all. ERROR_UNSUPPORTED when there are none, ERROR_IO. */
int latents_write(const char *path, const struct job_result *result, struct error *error);

/* Write tensors as such a file, with texts in its metadata. ERROR_IO, ERROR_NO_MEMORY. */
int latents_write_tensors(const char *path, const struct tensor_view *latents, const struct tensor_view *state,
                          const char *const *keys, const char *const *values, size_t texts, struct error *error);

/* The key of receipts. */
#define LATENTS_RECEIPT "lanced"

#endif
