/* request_hash.c: see request_hash.h. */
#include "daemon/engine/request_hash.h"
#include "base/sha256.h"
#include "daemon/engine/parameters.h"

#include <string.h>

static void add_text(struct sha256 *sha, const char *text)
{
    sha256_add(sha, text ? text : "", text ? strlen(text) : 0);
    sha256_add(sha, text ? "\1" : "\2", 1); /* none is not the empty one */
}

static void add_parameter(struct sha256 *sha, const struct parameter *p, const struct lance_request *r)
{
    const void *field = parameter_field(p, r, r->source);
    add_text(sha, p->name);
    switch (p->kind) {
    case PARAMETER_TEXT:
        add_text(sha, *(const char *const *)field);
        break;
    case PARAMETER_INTEGER:
    case PARAMETER_CHOICE:
        sha256_add(sha, field, sizeof(int));
        break;
    case PARAMETER_WHOLE:
        sha256_add(sha, field, sizeof(uint64_t));
        break;
    case PARAMETER_NUMBER:
        sha256_add(sha, field, sizeof(double));
        break;
    case PARAMETER_FLAG:
        sha256_add(sha, field, sizeof(bool));
        break;
    case PARAMETER_LIST:
        sha256_add(sha, field, 2 * sizeof(double));
        break;
    }
}

static void add_latents_shape(struct sha256 *sha, const struct lance_latents *l)
{
    const int shape[] = {l ? l->batch : 0, l ? l->channels : 0, l ? l->frames : 0, l ? l->height : 0, l ? l->width : 0};
    sha256_add(sha, shape, sizeof shape);
}

void request_hash(const struct lance_request *r, char hex[65])
{
    const struct lance_media *s = r->source;
    const int source[] = {s ? s->frames : 0, s ? s->height : 0, s ? s->width : 0};
    const size_t noise[] = {r->noise ? r->noise_values : 0, r->source_latent_noise ? r->source_latent_noise_values : 0};
    struct sha256 sha;
    sha256_start(&sha);
    add_text(&sha, lance_task_name(r->task));
    for (const struct parameter *p = lance_parameters; p->name; p++)
        if (s || !p->of_source)
            add_parameter(&sha, p, r);
    sha256_add(&sha, source, sizeof source);
    sha256_add(&sha, noise, sizeof noise);
    add_latents_shape(&sha, r->latents);
    add_latents_shape(&sha, r->latent_state);
    add_latents_shape(&sha, r->latent_mask);
    sha256_finish(&sha, hex);
}
