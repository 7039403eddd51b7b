/* pth.h: the tensors of a PyTorch .pth file (a state dict saved by torch.save), without PyTorch.
 *
 * A .pth file is a zip archive with a pickle, data.pkl, that describes the tensors, and one entry
 * of raw numbers for each. A pickle is a program; this reader runs only the few instructions that
 * a plain state dict of contiguous tensors needs, knows only the handful of names these use, and
 * refuses everything else by its name. Nothing is ever called or imported.
 *
 * An open file hands out views into the caller's memory (pth_parse) or its own read-only mapping
 * (pth_open_nested). Immutable after opening; any thread may read it.
 */
#ifndef LANCE_PTH_H
#define LANCE_PTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "protocol/safetensors.h"

struct pth;

/* Whether the data begins as a .pth file (of any age) does, so that pth_parse can say more about it. */
bool pth_recognise(const void *data, uint64_t bytes);

/* Parse `bytes` bytes at `data`, which must outlive the object. `what` names the input in messages.
 * The checksum of the pickle is verified, those of the tensors are not. Errors: ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int pth_parse(struct pth **out, const void *data, uint64_t bytes, const char *what, struct error *error);

/* Map a file read-only and parse what torch.save() makes of dicts and lists within a dict: their tensors are called
 * OUTER/INNER, a list's items by their places, 0, 1 and so on. Whole numbers and booleans are shown as I64 tensors
 * without axes, texts as U8 ones; other values are passed over. Errors also: ERROR_IO. */
int pth_open_nested(struct pth **out, const char *path, struct error *error);

void pth_close(struct pth *pth); /* NULL is allowed */

size_t pth_count(const struct pth *pth);
const struct tensor_view *pth_at(const struct pth *pth, size_t index); /* sorted by name */
const struct tensor_view *pth_find(const struct pth *pth, const char *name); /* or NULL */

#endif
