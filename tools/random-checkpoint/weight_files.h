/* weight_files.h: writes lists of random tensors as safetensors, or as PyTorch's .pth. */
#ifndef RANDOM_CHECKPOINT_WEIGHT_FILES_H
#define RANDOM_CHECKPOINT_WEIGHT_FILES_H

#include "tools/random-checkpoint/tensors.h"

/* Both make a new file with `threads` threads; each holds one buffer of some MiB. Errors: ERROR_IO, ERROR_NO_MEMORY,
 * and for a .pth of 4 GiB or more ERROR_UNSUPPORTED. A file that could not be finished is removed. */
int weights_write_safetensors(const char *path, const struct tensor_list *list, int threads, struct error *error);
int weights_write_pth(const char *path, const struct tensor_list *list, int threads, struct error *error);

/* Bytes of data in a list, which is nearly what its file takes. */
uint64_t weights_bytes(const struct tensor_list *list);

#endif
