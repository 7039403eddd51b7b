/* assemble.h: makes a complete model folder out of a folder of recorded results.
 *
 * A golden folder (tests/golden/data/README.md) keeps a tiny Lance checkpoint without its largest tensors,
 * which are made of numbers that a generator can repeat: the embedding tables (four levels drawn from a
 * SplitMix64 stream) and the VAE (normal random numbers of torch's CPU generator). Used by tests only.
 */
#ifndef LANCE_TESTS_ASSEMBLE_H
#define LANCE_TESTS_ASSEMBLE_H

#include "base/error.h"

/* Fill `into_dir`, which is created if need be, with a model folder that checkpoint_open accepts: symbolic links to
 * the golden folder's files where these are complete, generated files where not. `quant` is NULL for the
 * unquantised checkpoint, or a folder of GOLDEN/quant; NAMEfp8, where only NAME is a folder, is NAME without its
 * .scales_bf16 tensors. Errors: ERROR_BAD_FILE, ERROR_IO, ERROR_NO_MEMORY. */
int assemble_checkpoint(const char *golden_dir, const char *quant, const char *into_dir, struct error *error);

#endif
