/* request_hash.c: see request_hash.h. */
#include "daemon/engine/request_hash.h"
#include "base/sha256.h"
#include "daemon/engine/parameters.h"

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
    parameters_hash(&sha, r);
    sha256_add(&sha, source, sizeof source);
    sha256_add(&sha, noise, sizeof noise);
    add_latents_shape(&sha, r->latents);
    add_latents_shape(&sha, r->latent_state);
    add_latents_shape(&sha, r->latent_mask);
    sha256_finish(&sha, hex);
}
