/* residency.c: see residency.h.
 *
 * Two locks, never held together:
 *   lock         the snapshot that other threads read
 *   models_lock  held for writing while the worker's thread puts a model in its place or takes it away, for reading
 *                while another thread has a request checked by it
 * The worker's thread itself reads `model` without a lock: nobody else writes it.
 */
#include "daemon/residency.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mapped_file.h"
#include "base/sha256.h"
#include "daemon/cache_folder.h"
#include "daemon/log.h"
#include "daemon/machine_memory.h"
#include "kernels/kernels.h"

/* An offered model; the owner of its mapped files. */
struct resident {
    struct lance_model *model; /* NULL: not in memory */
    int holds;                 /* this and the next are the worker's thread's own */
    double used_at;
    uint64_t limit_bytes; /* of its jobs, beside those of other models */

    bool is_loaded; /* this and the rest are guarded by `lock` */
    struct lance_model_info info;
    struct lance_prefixes prefixes;
    struct lance_held held;
    char kind[32]; /* learnt when it was loaded first, with the next; "": never */
    unsigned tasks;
    uint64_t failed_attempt; /* number of the last load of it that failed; 0: none, */
    struct error failure;    /* and why */
};

struct residency {
    const struct options *options;
    struct calibration *calibration; /* or NULL */
    struct kernels *kernels;
    uint64_t budget_bytes;
    void (*on_load)(void *context);
    void *context;
    pthread_rwlock_t models_lock;
    struct resident residents[OFFERED_MAX_MODELS];

    pthread_mutex_t lock; /* guards the rest */
    int loaded, last;     /* as in residency_status */
    uint64_t memory_limit_bytes; /* of all jobs, beside the weights of what is in memory; 0: none */
    char backend[400];
    uint64_t attempts, loads, unloads;
};

int residency_open(struct residency **out, const struct options *options, struct kernels *kernels,
                   struct error *error)
{
    struct residency *residency = *out = calloc(1, sizeof *residency);
    if (!residency)
        return error_set(error, ERROR_NO_MEMORY, "models: out of memory");
    residency->options = options;
    residency->kernels = kernels;
    residency->loaded = -1;
    snprintf(residency->backend, sizeof residency->backend, "%s", kernels->name);
    pthread_mutex_init(&residency->lock, NULL);
    pthread_rwlock_init(&residency->models_lock, NULL);
    int code = model_choice_budget(&residency->budget_bytes, options,
                                   kernels->host_memory ? 0 : kernels->memory_available(kernels), error);
    if (code == 0)
        return 0;
    residency_close(residency);
    *out = NULL;
    return code;
}

void residency_close(struct residency *residency)
{
    if (!residency)
        return;
    residency_unload(residency);
    pthread_rwlock_destroy(&residency->models_lock);
    pthread_mutex_destroy(&residency->lock);
    free(residency);
}

void residency_calibrate(struct residency *residency, struct calibration *calibration)
{
    residency->calibration = calibration;
}

void residency_on_load(struct residency *residency, void (*on_load)(void *context), void *context)
{
    residency->on_load = on_load;
    residency->context = context;
}

/* --- For the worker's thread -------------------------------------------------------------- */

static void put_model(struct residency *residency, int index, struct lance_model *model)
{
    pthread_rwlock_wrlock(&residency->models_lock);
    residency->residents[index].model = model;
    pthread_rwlock_unlock(&residency->models_lock);
}

/* The model in memory that was used last, or -1. */
static int latest(const struct residency *residency)
{
    int latest = -1;
    for (int i = 0; i < residency->options->model_count; i++) {
        const struct resident *resident = &residency->residents[i];
        if (resident->model && (latest < 0 || resident->used_at >= residency->residents[latest].used_at))
            latest = i;
    }
    return latest;
}

/* Of all models in memory. For the worker's thread, or with the lock held. */
static struct lance_held held_by_all(const struct residency *residency)
{
    struct lance_held all = {0};
    for (int i = 0; i < residency->options->model_count; i++) {
        const struct resident *resident = &residency->residents[i];
        if (!resident->is_loaded)
            continue;
        all.weight_bytes += resident->info.weight_bytes;
        all.prefix_bytes += resident->held.prefix_bytes;
        all.job_bytes += resident->held.job_bytes;
        all.promised_bytes += resident->held.promised_bytes;
    }
    return all;
}

/* What jobs may take when these models are in memory: what the command line says, or what is left beside the weights.
 * On a machine whose memory is the device's, weights are pages of files that count as available; `machine` is as it was
 * before those of `more_bytes` came. */
static uint64_t limit_beside_weights(const struct residency *residency, const struct machine_memory *machine,
                                     uint64_t more_bytes)
{
    struct kernels *kernels = residency->kernels;
    const struct lance_held held = held_by_all(residency);
    const uint64_t of_jobs = held.prefix_bytes + held.job_bytes; /* not available, since they have it */
    if (residency->options->memory_limit_bytes != 0)
        return residency->options->memory_limit_bytes;
    if (!kernels->host_memory)
        return device_memory_for_jobs(kernels->memory_available(kernels) + of_jobs);
    const struct machine_memory beside = {machine->total_bytes, machine->available_bytes + of_jobs};
    return machine_memory_for_jobs(&beside, held.weight_bytes + more_bytes);
}

/* Have a model's jobs take no more than this. */
static void limit_model(struct residency *residency, int index, uint64_t limit_bytes)
{
    struct resident *resident = &residency->residents[index];
    if (resident->limit_bytes == limit_bytes)
        return;
    resident->limit_bytes = limit_bytes;
    pthread_rwlock_wrlock(&residency->models_lock);
    lance_model_limit_memory(resident->model, limit_bytes);
    pthread_rwlock_unlock(&residency->models_lock);
}

/* All models in memory share what there is. */
static void share_memory(struct residency *residency, uint64_t limit_bytes)
{
    for (int i = 0; i < residency->options->model_count; i++)
        if (residency->residents[i].model)
            limit_model(residency, i, limit_bytes);
    pthread_mutex_lock(&residency->lock);
    residency->memory_limit_bytes = limit_bytes;
    pthread_mutex_unlock(&residency->lock);
}

static void unload(struct residency *residency, int index)
{
    struct resident *resident = &residency->residents[index];
    struct lance_model *model = resident->model;
    put_model(residency, index, NULL);
    lance_model_close(model);
    log_info(NULL, "model %s unloaded", residency->options->models[index].name);
    pthread_mutex_lock(&residency->lock);
    resident->is_loaded = false;
    residency->loaded = latest(residency);
    residency->unloads++;
    const bool are_others_there = residency->loaded >= 0;
    pthread_mutex_unlock(&residency->lock);
    struct machine_memory machine;
    struct error unused;
    if (are_others_there && machine_memory_read(&machine, "", &unused) == 0)
        share_memory(residency, limit_beside_weights(residency, &machine, 0));
}

void residency_unload(struct residency *residency)
{
    for (int i = 0; i < residency->options->model_count; i++)
        if (residency->residents[i].model && residency->residents[i].holds == 0)
            unload(residency, i);
}

/* What a model's weights will take: what they took, without a ViT that stayed for there was much room, or what its
 * files have. */
static uint64_t weights_of(const struct residency *residency, int index)
{
    const struct resident *resident = &residency->residents[index];
    struct model_facts facts;
    if (resident->kind[0] != '\0')
        return resident->info.weight_bytes - (resident->info.vit_stays ? resident->info.vit_bytes : 0);
    model_facts_read(&facts, residency->options, index, residency->budget_bytes);
    return facts.file_bytes;
}

/* Whether a model's weights have room beside those that are in memory, and what jobs may take beside them all: at least
 * what the command line says, or an eighth of what there is. Where nothing is known of the memory there is room. */
static bool has_memory(const struct residency *residency, int index)
{
    struct kernels *kernels = residency->kernels;
    const uint64_t weights = weights_of(residency, index), wanted = residency->options->memory_limit_bytes;
    struct machine_memory machine;
    struct error unused;
    if (!kernels->host_memory) {
        const uint64_t there = kernels->memory_available(kernels);
        return there > weights && device_memory_for_jobs(there - weights) >= (wanted != 0 ? wanted : there / 8);
    }
    if (machine_memory_read(&machine, "", &unused) != 0 || machine.total_bytes == 0)
        return true;
    return machine_memory_for_jobs(&machine, held_by_all(residency).weight_bytes + weights) >=
           (wanted != 0 ? wanted : machine.total_bytes / 8);
}

static int count_models(const struct residency *residency)
{
    int count = 0;
    for (int i = 0; i < residency->options->model_count; i++)
        count += residency->residents[i].model != NULL;
    return count;
}

bool residency_has_room(const struct residency *residency, int index)
{
    const int count = count_models(residency);
    return residency->residents[index].model || count == 0 ||
           (count < residency->options->models_resident && has_memory(residency, index));
}

/* The model, other than this one, that was not used for longest and nobody holds, or -1. */
static int oldest_but(const struct residency *residency, int index)
{
    int oldest = -1;
    for (int i = 0; i < residency->options->model_count; i++) {
        const struct resident *resident = &residency->residents[i];
        if (i != index && resident->model && resident->holds == 0 &&
            (oldest < 0 || resident->used_at < residency->residents[oldest].used_at))
            oldest = i;
    }
    return oldest;
}

static struct lance_model_options options_of(const struct residency *residency, int index, const char *cache_folder)
{
    return (struct lance_model_options){
        .model_dir = residency->options->models[index].directory,
        .vae_path = residency->options->vae_path,
        .vit_path = residency->options->vit_path,
        .byte_head = residency->options->byte_head,
        .cache_folder = cache_folder,
        .prefix_cache_bytes = residency->options->prefix_cache_bytes,
    };
}

/* Whether a model's weights would fit if no other were in memory. What cannot be known before is let pass: a device has
 * neither all that its files have nor as many bytes of it, and where memory is the machine's, weights are pages of
 * files. */
static int check_size(const struct residency *residency, int index, struct error *error)
{
    struct kernels *kernels = residency->kernels;
    const uint64_t weights = weights_of(residency, index);
    uint64_t there;
    struct machine_memory machine;
    if (kernels->host_memory) {
        if (machine_memory_read(&machine, "", error) != 0)
            return error->code;
        there = machine.total_bytes;
    } else if (residency->residents[index].kind[0] != '\0') { /* it was loaded before */
        there = kernels->memory_available(kernels) + held_by_all(residency).weight_bytes;
    } else
        return 0;
    if (there == 0 || weights <= there)
        return 0;
    return error_set(error, ERROR_NO_MEMORY,
                     "its weights take %.1f MB, and with no other model in memory there are %.1f",
                     (double)weights / 1e6, (double)there / 1e6);
}

/* All that can be known of a model while others serve, before one of them goes for it. */
static int check_before(const struct residency *residency, int index, struct error *error)
{
    const struct lance_model_options options = options_of(residency, index, NULL);
    const int code = lance_model_check(&options, error);
    return code != 0 ? code : check_size(residency, index, error);
}

/* Unload models until there is memory for this one, which is checked before. One that is merely too many stays until
 * this one is there: a load that fails leaves it. gone: those that had to go. */
static int make_room(struct residency *residency, int index, bool gone[OFFERED_MAX_MODELS], struct error *error)
{
    bool is_checked = false;
    while (!residency_has_room(residency, index)) {
        const int oldest = oldest_but(residency, index);
        if (oldest < 0)
            return error_set(error, ERROR_BUSY, "models: the %d that are in memory are in use; try again later",
                             count_models(residency));
        if (has_memory(residency, index))
            return 0;
        if (!is_checked && check_before(residency, index, error) != 0)
            return error->code;
        is_checked = true;
        gone[oldest] = true;
        unload(residency, oldest);
    }
    return 0;
}

/* Unload what is too many beside a model that was loaded; make_room has seen that it can be. */
static void keep_to_number(struct residency *residency, int index)
{
    int oldest;
    while (count_models(residency) > residency->options->models_resident &&
           (oldest = oldest_but(residency, index)) >= 0)
        unload(residency, oldest);
}

/* Open a model, with its memory limit: what the command line says, or what the machine has left beside the weights. */
static int open_model(struct residency *residency, int index, struct lance_model **model, uint64_t *memory_limit_bytes,
                      struct error *error)
{
    struct machine_memory machine;
    int code = machine_memory_read(&machine, "", error); /* before the weights are there */
    if (code != 0)
        return code;
    char cache_folder[CACHE_FOLDER_BYTES];
    cache_folder_make(cache_folder, sizeof cache_folder);
    const struct lance_model_options options =
        options_of(residency, index, cache_folder[0] != '\0' ? cache_folder : NULL);
    const void *before = mapped_files_belong_to(&residency->residents[index]);
    code = lance_model_open(model, residency->kernels, &options, error);
    mapped_files_belong_to(before);
    if (code != 0)
        return code;
    struct lance_model_info info;
    lance_model_info(*model, &info);
    *memory_limit_bytes = limit_beside_weights(residency, &machine, info.weight_bytes);
    lance_model_limit_host_memory(*model, machine_memory_for_jobs(&machine, 0));
    code = calibration_watch(residency->calibration, *model, error);
    if (code != 0) {
        lance_model_close(*model);
        *model = NULL;
    }
    return code;
}

static void say_loaded(const struct lance_model *model, const struct lance_model_info *info)
{
    log_info(NULL, "model %s loaded in %.2f s: %s, %d layers of %d, %.1f MB of weights, hash %.12s", info->name,
             info->load_seconds, info->kind, info->layers, info->hidden_size, (double)info->weight_bytes / 1e6,
             info->hash);
    if (*lance_model_warnings(model))
        log_warning(NULL, "model %s: %s", info->name, lance_model_warnings(model));
    if (info->byte_head)
        log_info(NULL, "model %s: what gives an answer's tokens has 8 bits a weight (--head)", info->name);
    if (info->vit_bytes != 0)
        log_info(NULL, "the vision transformer's weights, %.1f MB, %s", (double)info->vit_bytes / 1e6,
                 info->vit_stays ? "stay on the card" : "are on the card only while a picture is looked at");
}

static void note_loaded(struct residency *residency, int index, const struct lance_model_info *info,
                        uint64_t memory_limit_bytes)
{
    struct resident *resident = &residency->residents[index];
    resident->used_at = clock_seconds();
    resident->limit_bytes = UINT64_MAX; /* none was set yet */
    pthread_mutex_lock(&residency->lock);
    residency->attempts++;
    residency->loads++;
    residency->loaded = residency->last = index;
    resident->is_loaded = true;
    resident->info = *info;
    snprintf(resident->kind, sizeof resident->kind, "%s", info->kind);
    resident->tasks = info->tasks;
    pthread_mutex_unlock(&residency->lock);
    residency_note(residency, index);
    share_memory(residency, memory_limit_bytes);
}

static void note_failed(struct residency *residency, int index, const struct error *failure)
{
    pthread_mutex_lock(&residency->lock);
    residency->residents[index].failed_attempt = ++residency->attempts;
    residency->residents[index].failure = *failure;
    pthread_mutex_unlock(&residency->lock);
}

/* Open a model in the room that there is, and put it in its place. */
static int open_in_place(struct residency *residency, int index, struct error *error)
{
    const struct model_choice *choice = &residency->options->models[index];
    struct lance_model *model = NULL;
    struct lance_model_info info = {0};
    uint64_t memory_limit_bytes = 0;
    log_info(NULL, "loading model %s from %s", choice->name, choice->directory);
    int code = open_model(residency, index, &model, &memory_limit_bytes, error);
    if (code == 0 && (code = residency_check_files(residency, index, error)) != 0)
        lance_model_close(model);
    if (code != 0)
        return code;
    lance_model_info(model, &info);
    snprintf(info.name, sizeof info.name, "%s", choice->name); /* the name clients know it by */
    put_model(residency, index, model);
    say_loaded(model, &info);
    note_loaded(residency, index, &info, memory_limit_bytes);
    return 0;
}

/* Memory that was counted on may not have been there: then others make room all the same. */
static int open_in_room(struct residency *residency, int index, bool gone[OFFERED_MAX_MODELS], struct error *error)
{
    int code, oldest;
    while ((code = open_in_place(residency, index, error)) == ERROR_NO_MEMORY &&
           (oldest = oldest_but(residency, index)) >= 0) {
        gone[oldest] = true;
        unload(residency, oldest);
    }
    return code;
}

/* The model of those that are gone that was used last, or -1. */
static int latest_gone(const struct residency *residency, const bool gone[OFFERED_MAX_MODELS])
{
    int latest = -1;
    for (int i = 0; i < residency->options->model_count; i++)
        if (gone[i] && (latest < 0 || residency->residents[i].used_at > residency->residents[latest].used_at))
            latest = i;
    return latest;
}

/* Load again what went for a model that could not be loaded, as far as there is room, and say so in `error`. */
static void bring_back(struct residency *residency, bool gone[OFFERED_MAX_MODELS], struct error *error)
{
    for (int i; (i = latest_gone(residency, gone)) >= 0; gone[i] = false) {
        const struct error failure = *error;
        const char *name = residency->options->models[i].name;
        struct error why;
        if (!residency_has_room(residency, i))
            continue;
        if (open_in_place(residency, i, &why) == 0) {
            error_set(error, failure.code, "%s; model %s, which had made room for it, is loaded again", failure.text,
                      name);
            continue;
        }
        log_error(NULL, "model %s: %s", name, why.text);
        note_failed(residency, i, &why);
        error_set(error, failure.code, "%s; model %s had made room for it, and cannot be loaded again: %s",
                  failure.text, name, why.text);
    }
}

int residency_load(struct residency *residency, int index, struct error *error)
{
    bool gone[OFFERED_MAX_MODELS] = {false};
    if (residency->residents[index].model)
        return 0;
    int code = make_room(residency, index, gone, error);
    if (code == ERROR_BUSY) /* nothing was tried */
        return code;
    if (code == 0)
        code = open_in_room(residency, index, gone, error);
    if (code == 0) {
        keep_to_number(residency, index);
        if (residency->memory_limit_bytes != 0)
            log_info(NULL, "jobs may take %.1f MB of memory beside the weights",
                     (double)residency->memory_limit_bytes / 1e6);
    } else {
        log_error(NULL, "model %s: %s", residency->options->models[index].name, error->text);
        bring_back(residency, gone, error);
        note_failed(residency, index, error);
    }
    if (residency->on_load)
        residency->on_load(residency->context);
    return code;
}

/* What jobs of other models have been promised, and what is kept for them. */
static uint64_t held_by_others(const struct residency *residency, int index)
{
    const struct lance_held all = held_by_all(residency), *own = &residency->residents[index].held;
    return all.prefix_bytes - own->prefix_bytes + all.promised_bytes - own->promised_bytes;
}

struct lance_model *residency_hold(struct residency *residency, int index)
{
    const uint64_t limit = residency->memory_limit_bytes, others = held_by_others(residency, index);
    residency->residents[index].holds++;
    limit_model(residency, index, limit == 0 ? 0 : limit > others ? limit - others : 1);
    pthread_mutex_lock(&residency->lock);
    residency->loaded = index;
    pthread_mutex_unlock(&residency->lock);
    return residency->residents[index].model;
}

bool residency_is_alone(const struct residency *residency)
{
    return count_models(residency) == 1;
}

bool residency_give_way(struct residency *residency, int index)
{
    const int oldest = oldest_but(residency, index);
    if (oldest >= 0)
        unload(residency, oldest);
    return oldest >= 0;
}

void residency_let_go(struct residency *residency, int index)
{
    struct resident *resident = &residency->residents[index];
    resident->used_at = clock_seconds();
    if (--resident->holds == 0 && residency_check_lost(residency, index, NULL) != 0)
        unload(residency, index); /* the next job reads the files anew */
    else
        residency_note(residency, index);
}

void residency_drop_changed(struct residency *residency, int index, const char *job)
{
    struct error why;
    struct resident *resident = &residency->residents[index];
    if (!resident->model || resident->holds > 0 || mapped_files_change(resident, &why) == MAPPED_SAME)
        return;
    log_warning(job, "%s: the model is loaded again", why.text);
    unload(residency, index);
}

int residency_check_lost(const struct residency *residency, int index, struct error *error)
{
    return mapped_files_check(&residency->residents[index], error);
}

int residency_check_files(const struct residency *residency, int index, struct error *error)
{
    if (residency_check_lost(residency, index, error) != 0)
        return error->code;
    if (mapped_files_change(&residency->residents[index], error) != MAPPED_REWRITTEN)
        return 0;
    struct error why = *error;
    return error_set(error, ERROR_BAD_FILE,
                     "%s; try again when it is whole (files that are renamed into place always are)", why.text);
}

void residency_note(struct residency *residency, int index)
{
    struct resident *resident = &residency->residents[index];
    struct lance_prefixes prefixes;
    struct lance_held held;
    lance_model_prefixes(resident->model, &prefixes);
    lance_model_held(resident->model, &held);
    pthread_mutex_lock(&residency->lock);
    snprintf(residency->backend, sizeof residency->backend, "%s", residency->kernels->name);
    resident->prefixes = prefixes;
    resident->held = held;
    pthread_mutex_unlock(&residency->lock);
}

/* When a model will have been idle for long enough; 0: never, or not while it is held. */
static double idle_end_of(const struct residency *residency, int index)
{
    const struct resident *resident = &residency->residents[index];
    const double seconds = residency->options->idle_unload_seconds;
    return resident->model && resident->holds == 0 && seconds > 0 ? resident->used_at + seconds : 0;
}

double residency_idle_end(const struct residency *residency)
{
    double first = 0;
    for (int i = 0; i < residency->options->model_count; i++) {
        const double end = idle_end_of(residency, i);
        if (end > 0 && (first <= 0 || end < first))
            first = end;
    }
    return first;
}

void residency_unload_idle(struct residency *residency)
{
    for (int i = 0; i < residency->options->model_count; i++) {
        const double end = idle_end_of(residency, i);
        if (end <= 0 || clock_seconds() < end)
            continue;
        log_info(NULL, "no job for %.0f s", residency->options->idle_unload_seconds);
        unload(residency, i);
    }
}

/* --- For any thread ------------------------------------------------------------------------ */

void residency_status(struct residency *residency, struct residency_status *out)
{
    *out = (struct residency_status){0};
    pthread_mutex_lock(&residency->lock);
    out->loaded = residency->loaded;
    out->last = residency->last;
    out->loads = residency->loads;
    out->unloads = residency->unloads;
    snprintf(out->backend, sizeof out->backend, "%s", residency->backend);
    if (out->loaded >= 0) {
        const struct resident *resident = &residency->residents[out->loaded];
        out->info = resident->info;
        out->prefixes = resident->prefixes;
    }
    out->memory_limit_bytes = residency->memory_limit_bytes;
    out->all_held = held_by_all(residency);
    pthread_mutex_unlock(&residency->lock);
}

void residency_info(struct residency *residency, int index, struct lance_model_info *out)
{
    pthread_mutex_lock(&residency->lock);
    *out = residency->residents[index].info;
    pthread_mutex_unlock(&residency->lock);
}

bool residency_identify(struct residency *residency, int index, char *hash, char backend[400])
{
    const struct resident *resident = &residency->residents[index];
    pthread_mutex_lock(&residency->lock);
    const bool is_loaded = resident->is_loaded;
    const uint64_t unloads = residency->unloads;
    snprintf(hash, SHA256_HEX_BYTES, "%s", resident->info.hash);
    snprintf(backend, sizeof residency->backend, "%s", residency->backend);
    pthread_mutex_unlock(&residency->lock);
    if (!is_loaded || mapped_files_check(resident, NULL) != 0 || mapped_files_change(resident, NULL) != MAPPED_SAME)
        return false;
    pthread_mutex_lock(&residency->lock);
    const bool has_stayed = residency->unloads == unloads; /* else its files may have changed unseen */
    pthread_mutex_unlock(&residency->lock);
    return has_stayed;
}

uint64_t residency_attempts(struct residency *residency)
{
    pthread_mutex_lock(&residency->lock);
    uint64_t attempts = residency->attempts;
    pthread_mutex_unlock(&residency->lock);
    return attempts;
}

bool residency_is_loaded(struct residency *residency, int index)
{
    pthread_mutex_lock(&residency->lock);
    bool is_loaded = residency->residents[index].is_loaded;
    pthread_mutex_unlock(&residency->lock);
    return is_loaded;
}

bool residency_has_failed(struct residency *residency, int index, uint64_t since, struct error *error)
{
    pthread_mutex_lock(&residency->lock);
    const struct resident *resident = &residency->residents[index];
    bool has_failed = resident->failed_attempt > since;
    if (has_failed)
        *error = resident->failure;
    pthread_mutex_unlock(&residency->lock);
    return has_failed;
}

bool residency_knows(struct residency *residency, int index, char kind[32], unsigned *tasks)
{
    pthread_mutex_lock(&residency->lock);
    const struct resident *resident = &residency->residents[index];
    snprintf(kind, sizeof resident->kind, "%s", resident->kind);
    *tasks = resident->tasks;
    pthread_mutex_unlock(&residency->lock);
    return kind[0] != '\0';
}

uint64_t residency_budget_bytes(const struct residency *residency)
{
    return residency->budget_bytes;
}

int residency_find(struct residency *residency, const char *name, int *index, struct error *error)
{
    const struct options *options = residency->options;
    if (!name) {
        pthread_mutex_lock(&residency->lock);
        *index = residency->loaded >= 0 ? residency->loaded : residency->last;
        pthread_mutex_unlock(&residency->lock);
        return 0;
    }
    for (*index = 0; *index < options->model_count; ++*index)
        if (strcmp(options->models[*index].name, name) == 0)
            return 0;
    char offered[400] = "";
    for (int i = 0; i < options->model_count; i++) {
        size_t at = strlen(offered);
        snprintf(offered + at, sizeof offered - at, "%s%s", i > 0 ? ", " : "", options->models[i].name);
    }
    return error_set(error, ERROR_NOT_FOUND, "model: \"%.64s\" is not offered here; offered: %s", name, offered);
}

int residency_choose(struct residency *residency, const char *name, enum lance_task task, int *index,
                     struct error *error)
{
    if (!name || strcmp(name, MODEL_AUTOMATIC) != 0)
        return residency_find(residency, name, index, error);
    struct residency_status status;
    residency_status(residency, &status);
    if (status.loaded >= 0 && task_is_of_vae(task)) {
        *index = status.loaded; /* all have the same VAE: no reason to load another */
        return 0;
    }
    *index = model_choose_offered(residency->options, residency->budget_bytes, task);
    return 0;
}

int residency_estimate(struct residency *residency, int index, const struct lance_request *request,
                       struct lance_memory *memory, struct error *error)
{
    if (pthread_rwlock_tryrdlock(&residency->models_lock) != 0)
        return error_set(error, ERROR_BUSY, "a model is being loaded or unloaded");
    const struct lance_model *model = residency->residents[index].model;
    int result = !model ? error_set(error, ERROR_NOT_FOUND, "the model is not in memory")
                        : lance_estimate(model, request, memory, error);
    if (result == 0)
        result = lance_request_check(model, request, error);
    pthread_rwlock_unlock(&residency->models_lock);
    return result;
}

int residency_check(struct residency *residency, int index, const struct lance_request *request, struct error *error)
{
    /* A model that is put in its place or taken away right now is no reason to wait: the job itself is checked
     * again. */
    if (pthread_rwlock_tryrdlock(&residency->models_lock) != 0)
        return 0;
    const struct lance_model *model = residency->residents[index].model;
    int result = model ? lance_request_check(model, request, error) : 0;
    const int count = count_models(residency);
    pthread_rwlock_unlock(&residency->models_lock);
    return result == ERROR_TOO_LARGE && count > 1 ? 0 : result; /* it may fit when others have made way */
}
