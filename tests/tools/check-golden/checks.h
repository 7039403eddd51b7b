/* checks.h: the stages of the engine, each fed the recorded input and compared with the recorded output. */
#ifndef CHECK_GOLDEN_CHECKS_H
#define CHECK_GOLDEN_CHECKS_H

#include "daemon/engine/plan.h"
#include "tests/tools/check-golden/golden.h"
#include "tests/tools/check-golden/report.h"

struct check {
    struct report *report;
    const struct golden *golden;
    struct lance_model *model;
    struct job_plan plan; /* of the golden's request */
};

/* Token ids, split lengths, modalities and rotary positions; the noise of a seed; the schedule. */
void check_prompt(const struct check *check);

/* Prepared pixels, ViT output, VAE encoding. */
void check_sources(const struct check *check);

/* Every split of the prefix and every denoising step. */
void check_generation(const struct check *check);

/* The recorded final latents through the VAE. */
void check_decoding(const struct check *check);

/* The whole job through lance.h: final latents and pixels, or the answer's tokens. */
void check_job(const struct check *check);

/* Run a request to its end. The job with its result, which the caller closes; NULL: `error`. */
struct lance_job *check_run(const struct check *check, const struct lance_request *request, struct lance_result *result,
                            struct error *error);

/* Compare n values with a recorded tensor by relative error; the bound is adjusted to the case's mode.
 * Reports under the tensor's name. */
void check_tensor(const struct check *check, const struct tensor_view *tensor, const float *values, size_t n,
                  double bound);

enum { STAGE_NAME = 64 };
#define SINGLE_STAGE_BOUND 1e-4
#define TRAJECTORY_BOUND 2e-3
#define PIXEL_PSNR 50.0

#endif
