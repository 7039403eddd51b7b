/* lance.h: the whole public face of the engine. Open a model, start a job, step it,
 * read its result.
 *
 * The engine knows nothing of sockets, queues or clients; the daemon knows nothing of
 * tensors. A job is a state machine that the caller drives: each lance_job_step does one
 * bounded piece of work (a split of the prefix, one denoising step, one group of text tokens, one
 * chunk of decoded frames) and says how far the job is, so cancelling is just closing
 * the job, and progress needs no callback.
 *
 * Threads: a model and its jobs are used by one thread at a time (lanced's worker).
 * Several jobs of one model may be alive and stepped in turn. lance_model_info and
 * lance_estimate only read and may be called from any thread while the model is open, as may lance_request_check;
 * lance_job_abort is for other threads.
 */
#ifndef LANCE_H
#define LANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/build.h"
#include "daemon/engine/stage.h"
#include "daemon/engine/task.h"
#include "kernels/guidance.h"
#include "protocol/latent_shape.h"

struct kernels;

/* How rotary frequencies and the latent position table are held. The official script
 * casts the whole model to bf16, tables included (LANCE.md section 6, item 2). AUTO follows
 * the checkpoint's llm_config.json key "position_tables" ("float32" or "bfloat16") and
 * takes BF16, as the official script does, when the key is absent. */
enum lance_position_tables { LANCE_TABLES_AUTO, LANCE_TABLES_BF16, LANCE_TABLES_F32 };

struct lance_model_options {
    const char *model_dir;  /* directory of the checkpoint */
    const char *vae_path;   /* NULL: found in or beside model_dir */
    const char *vit_path;   /* NULL: found in or beside model_dir */
    enum lance_position_tables position_tables;
    bool byte_head; /* what gives a token's logits is rounded to 8 bits a weight, unless the file's is quantised: half
                     * as much to read for a token, answers nearly always the same, pictures always */
    uint64_t memory_limit_bytes; /* memory jobs may take beside the weights (see struct lance_memory); 0: all there
                                  * is */
    const char *cache_folder;    /* where hashes of large files are kept; NULL: nowhere */
    uint64_t prefix_cache_bytes; /* device memory that prefixes kept for later jobs may take, within the limit; 0: none
                                  * is kept */
};

struct lance_model_info {
    char name[128];          /* the directory's last component */
    char kind[32];           /* "bf16", "f32", "awq-int4-g128", "nvfp4", ... */
    char hash[65];           /* SHA-256 (hex) over every byte of its files: checkpoint/identity.h; over that and a word
                              * with a head in 8 bits */
    unsigned tasks;          /* bit (1 << task) for every task this checkpoint can do */
    uint64_t weight_bytes;   /* resident size of the weights */
    uint64_t vit_bytes;      /* on a card, of the vision transformer's, which are among them if they stay; 0: none */
    bool vit_stays;          /* on the card, rather than being brought for each picture */
    bool byte_head;          /* the head was rounded to 8 bits a weight */
    int hidden_size, layers;
    int latent_channels;     /* 48 */
    int spatial_stride;      /* 16: width and height are multiples of it */
    double load_seconds;
};

struct lance_model;

/* Open a checkpoint on a backend, which must outlive the model. Errors: ERROR_BAD_FILE (one message lists
 * everything that is missing), ERROR_NO_MEMORY. */
int lance_model_open(struct lance_model **out, struct kernels *kernels, const struct lance_model_options *options,
                     struct error *error);
void lance_model_close(struct lance_model *model);

/* Whether a checkpoint would open, as far as its files' names, headers, shapes and texts tell: no weight is read, and
 * nothing stays in memory. Errors: those of lance_model_open. */
int lance_model_check(const struct lance_model_options *options, struct error *error);

void lance_model_info(const struct lance_model *model, struct lance_model_info *info);

/* What is odd about the checkpoint, and the tasks that are off with what they lack; "" if nothing. Belongs to the
 * model. */
const char *lance_model_warnings(const struct lance_model *model);

/* Set the memory limit; jobs that are open keep what they have. */
void lance_model_limit_memory(struct lance_model *model, uint64_t bytes);

/* On a backend with memory of its own: what jobs may take of the host's (lance_memory.host_bytes); 0: all there is. */
void lance_model_limit_host_memory(struct lance_model *model, uint64_t bytes);

/* Prefixes: what a prompt's splits (system prompt, picture, caption) were turned into, kept block by block and found
 * again by content, so that the same picture runs no ViT and the same prompt no prefix. */
struct lance_prefixes {
    uint64_t hits, misses, evictions; /* blocks found, computed, and dropped to make room */
    uint64_t blocks, bytes;           /* there now, those of running jobs included */
    uint64_t limit_bytes;
};
void lance_model_prefixes(const struct lance_model *model, struct lance_prefixes *out);

/* Memory held now. */
struct lance_held {
    uint64_t weight_bytes;   /* of the model */
    uint64_t prefix_bytes;   /* kept prefixes that no job uses */
    uint64_t job_bytes;      /* device memory of the jobs that are open, */
    uint64_t promised_bytes; /* and what is set aside for them, of what the limit is about */
};
void lance_model_held(const struct lance_model *model, struct lance_held *out);

enum lance_noise {
    LANCE_NOISE_TORCH_CPU,  /* torch.randn([tokens, 48]) of a CPU generator, float32 */
    LANCE_NOISE_TORCH_CUDA, /* the official script on a GPU: Philox, drawn as bfloat16 */
    LANCE_NOISE_COMFYUI,    /* torch.randn([48, t, h, w]) of a CPU generator, as KSampler draws it */
    LANCE_NOISE_CLIENT      /* `noise` of the request */
};

/* The unconditional branch's positions: OFFICIAL repeats what the official KV-cache path does,
 * CONSISTENT counts them without the caption (LANCE.md section 6, item 1). */
enum lance_uncond_positions { LANCE_UNCOND_OFFICIAL, LANCE_UNCOND_CONSISTENT };

/* Frames of 8-bit RGB given as input: pixels [frames, height, width, 3]. */
struct lance_media {
    const uint8_t *pixels;
    int frames, height, width;
    double fps; /* 0 for a still picture */
};

/* Latents or a mask of the client: values [batch, channels, frames, height, width], one height and width per latent
 * cell. */
struct lance_latents {
    const float *values;
    int batch, channels, frames, height, width;
};

/* A request; its pointers are borrowed until the job's first stage, STAGE_PREPARE, has ended (lance_job_step has told
 * its last step), or the job is closed. Fill with lance_request_init first. */
struct lance_request {
    enum lance_task task;
    const char *prompt;        /* UTF-8; a question for x2t tasks */
    const char *negative_prompt; /* what the unconditional branch of the guidance says; NULL or "": nothing, as the
                                  * official script */
    const char *system_prompt; /* NULL: the official one of the task */

    /* generation */
    int width, height;         /* multiples of 16; 0: from the source or the task's default */
    int num_frames;            /* video tasks; 1 for pictures */
    int num_inference_steps;
    double guidance_scale;     /* 1 or less: no guidance */
    double guidance_interval[2]; /* guidance where interval[0] < t <= interval[1] */
    enum guidance_renorm guidance_renorm;
    double guidance_renorm_min;
    double timestep_shift;
    uint64_t seed;             /* item i of a batch uses seed + i */
    int batch_size;
    enum lance_noise noise_source;
    const float *noise;        /* LANCE_NOISE_CLIENT: [batch, tokens, 48], tokens being the latent cells to generate */
    size_t noise_values;       /* how many values `noise` has; checked against the job's size */
    enum lance_uncond_positions uncond_positions;

    /* Sampling from latents, and part of the schedule. Latents are in the raw scale of the VAE; with x0 their
     * normalised values, sampling starts at the schedule's t from (1 - t) * x0 + t * noise, or from (1 - t) * x0
     * without noise (as ComfyUI's samplers pass latents with leftover noise, x_t / (1 - t)). */
    const struct lance_latents *latents;     /* the result's shape; all zero or NULL: x0 = 0. For LANCE_DECODE: what is
                                              * decoded */
    const struct lance_latents *latent_state; /* of an earlier result: makes going on exact. Where it stands for the
                                               * same values as `latents` it is used in their place; only
                                               * without add_noise */
    const struct lance_latents *latent_mask; /* [1 or batch, 1, ...], 0 (keep `latents`) to 1 (generate); NULL: all 1 */
    double denoise;            /* strength: the steps are the last ones of num_inference_steps / denoise */
    int start_step, end_step;  /* of the num_inference_steps steps only these, end_step not included; past the last:
                                * all */
    bool add_noise;            /* false: `latents` are noisy already */
    bool leftover_noise;       /* an early end_step leaves its noise; false: the last step goes to t = 0 */

    /* sources */
    const struct lance_media *source; /* edits, i2v, x2t; NULL otherwise */
    const char *resolution;    /* preset of the official script, such as "image_768res"; NULL: the task's default */
    const float *source_latent_noise; /* eps of the encoder's sampling, [48, latent frames, rows, columns]; NULL: from
                                       * source_seed */
    size_t source_latent_noise_values;
    bool source_latent_mean;   /* use the encoder's mean instead of a sample */
    uint64_t source_seed;      /* official: 2025 */

    /* text */
    int max_new_tokens;
    double temperature;        /* 0: greedy */
    int top_k;                 /* 0: off */
    double top_p;              /* 1: off */
    double repetition_penalty; /* 1: off */

    bool decode;               /* false: latents only, no pixels */
    bool preview;              /* lance_job_preview will be called; its memory is counted */
};

enum { LANCE_END_STEP = 10000 }; /* the default end_step: past every schedule */

/* Official defaults for the task; everything not given keeps working values. */
void lance_request_init(struct lance_request *request, enum lance_task task);

/* Check everything that can be checked without starting (ranges, multiples, NaN, lengths, task offered by
 * the model, and that the job fits the memory limit at all; not that noise and latents are finite numbers, which the
 * first stage looks at); the message names the parameter, its value and what is accepted. ERROR_BAD_REQUEST,
 * ERROR_UNSUPPORTED or ERROR_TOO_LARGE. lance_job_start checks the same. */
int lance_request_check(const struct lance_model *model, const struct lance_request *request, struct error *error);

/* What a job takes at its peak, beside the weights and the request itself. */
struct lance_memory {
    uint64_t device_bytes; /* device memory */
    uint64_t host_bytes;   /* host buffers: prepared sources, noise, latents, frames, the result's encoded copy */
    uint64_t total_bytes;  /* the most of both at one time: what the limit is about where the device's memory is the
                            * host's (CPU); elsewhere it is about device_bytes */
};
int lance_estimate(const struct lance_model *model, const struct lance_request *request, struct lance_memory *memory,
                   struct error *error);

struct lance_job;

/* Validate, plan and admit a job (ERROR_TOO_LARGE with the numbers when it cannot fit); nothing is computed or copied
 * yet. */
int lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                    struct error *error);

enum lance_step_status { LANCE_STEP_DONE = 0, LANCE_STEP_MORE = 1 }; /* errors are negative */

struct lance_progress {
    enum lance_stage stage;
    int step, steps;     /* within the stage; steps 0: unknown */
    int total_step, total_steps; /* over the whole job; the total falls after STAGE_PREPARE where earlier jobs have left
                                  * something */
    int later_steps;     /* what the stages to come amount to, a latent frame of the VAE counting as one step: for the
                          * time left */
    const char *text;    /* the piece of text made by this step, whole UTF-8 characters; NULL if none. Valid until the
                          * next step */
    double seconds;      /* spent in this step */
};

/* Do the next piece of work. Returns LANCE_STEP_MORE, LANCE_STEP_DONE (results are ready), or an error
 * code < 0, after which the job can only be closed. */
int lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error);

/* Have the step that runs, and every later one, fail with ERROR_CANCELLED as soon as may be: a step of a long video
 * takes minutes on a CPU, this milliseconds. Any thread, while the job is open. */
void lance_job_abort(struct lance_job *job);

/* A small picture of what the job is denoising towards: RGB, [*frames, *height, *width, 3], one pixel per latent
 * cell, of the first batch item; from a linear fit of latents to colours, no VAE. Memory belongs to the job, valid
 * until the next step. ERROR_NOT_FOUND before the first denoising step; ERROR_BAD_REQUEST when the request did not ask
 * for previews. */
int lance_job_preview(struct lance_job *job, const uint8_t **rgb, int *frames, int *height, int *width,
                      struct error *error);

struct lance_stage_time {
    enum lance_stage stage;
    double seconds;
    int steps;
    uint64_t peak_bytes;      /* device memory beside the weights, highest seen while it ran */
    uint64_t estimated_bytes; /* what was planned for it */
};

/* Results; memory belongs to the job. */
struct lance_result {
    const uint8_t *pixels;   /* [batch, frames, height, width, 3] or NULL */
    int batch, frames, height, width;
    double fps;
    const float *latents;    /* [batch, 48, latent_frames, latent_height, latent_width], the raw scale of the Wan 2.2
                              * VAE (z * std + mean), as ComfyUI's core nodes expect; NULL for x2t and decode */
    const float *latent_state; /* where noise is left: x_t itself, same shape; NULL otherwise */
    int latent_frames, latent_height, latent_width;
    const char *text;        /* x2t: the answer */
    const int32_t *token_ids;
    int tokens;
    struct lance_stage_time stages[STAGE_COUNT];
    int stage_count;
    uint64_t peak_bytes;      /* device memory beside the weights, highest seen */
    uint64_t estimated_bytes; /* device_bytes of lance_estimate; the peak is lower where a prefix was found */
};
int lance_job_result(const struct lance_job *job, struct lance_result *result, struct error *error);

/* What the job needs to go on from here, as one tensor file (safetensors): *state is malloc'ed, the caller's. Between
 * two steps, at any stage. Where the job is, latents while they are denoised and afterwards, tokens of an answer with
 * their keys and values, batch items that are decoded. Stages that have not ended and are not denoise, decode or text
 * begin again, and so does the batch item that is being decoded. ERROR_BAD_REQUEST when the job is done, ERROR_INTERNAL
 * when it has failed, ERROR_NO_MEMORY. */
int lance_job_save(const struct lance_job *job, void **state, size_t *bytes, struct error *error);

/* lance_job_start, and then on from where a job of the same request was saved, in this process or another: the same
 * bytes come out. The first stage runs again, and what the prompt's keys and values take; of the text the pieces that
 * were told are not told again. Beside the memory that is planned comes the state, until the stage begins that it was
 * saved in. `state` may come from anywhere and is not needed afterwards. Errors beside those of lance_job_start:
 * ERROR_BAD_FILE (damaged), ERROR_UNSUPPORTED (of another build, backend or model), ERROR_BAD_REQUEST (of another
 * request; of other payloads the first stage's end tells). */
int lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                     const void *state, size_t bytes, struct error *error);

/* Release everything the job holds, finished or not. NULL is allowed. */
void lance_job_close(struct lance_job *job);

#endif
