/* gather.c: see gather.h. */
#include "daemon/engine/gather.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"

enum { EXPERTS = 2, THIRDS = 3, MOST_MATRICES = 3, MOST_LAYERS = 1024 };

/* The sums of every matrix of a place; NULL: not yet asked for. */
struct place {
    struct layer_sums *matrices[MOST_MATRICES];
    int count;
};

struct gather {
    struct statistics *statistics;
    gather_products *products; /* or NULL */
    int threads;
    struct place places[MOST_LAYERS][EXPERTS][LINEAR_PLACES];
    uint64_t tokens;
    struct error failure; /* code 0: none */
};

int gather_open(struct gather **out, struct statistics *statistics, gather_products *products, int threads,
                struct error *error)
{
    struct gather *gather = *out = calloc(1, sizeof *gather);
    if (!gather)
        return error_set(error, ERROR_NO_MEMORY, "statistics: no memory");
    gather->statistics = statistics;
    gather->products = products;
    gather->threads = threads;
    return 0;
}

void gather_close(struct gather *gather)
{
    free(gather);
}

/* Matrices with the same input have the same sums; the products are kept with the first. */
static int find_place(struct gather *gather, const struct linear_input *input, struct place *place)
{
    char name[LINEAR_NAME_BYTES];
    int status = 0;
    while (status == 0 && place->count < MOST_MATRICES &&
           linear_input_name(name, input->place, input->layer, input->generation, place->count)) {
        status = statistics_layer(gather->statistics, name, input->width, input->generation ? THIRDS : 1,
                                  gather->products && place->count == 0, &place->matrices[place->count],
                                  &gather->failure);
        place->count += status == 0;
    }
    return status;
}

struct addition {
    const struct linear_input *input;
    const struct place *place;
    gather_products *products;
    int part;
    bool good[1 << 14]; /* of each block: all numbers */
};

/* The sums of one block of inputs. */
static int add_block(void *context, int block)
{
    struct addition *addition = context;
    const struct linear_input *input = addition->input;
    const int first = block * STATISTICS_BLOCK, left = input->width - first;
    const int width = left < STATISTICS_BLOCK ? left : STATISTICS_BLOCK;
    float sums[STATISTICS_BLOCK] = {0}, squares[STATISTICS_BLOCK] = {0}, largest[STATISTICS_BLOCK] = {0}, all = 0;
    for (int r = 0; r < input->rows; r++) {
        const float *row = input->values + (size_t)r * (size_t)input->width + first;
        for (int i = 0; i < width; i++) {
            sums[i] += fabsf(row[i]);
            squares[i] += row[i] * row[i];
            largest[i] = fmaxf(largest[i], fabsf(row[i]));
        }
    }
    for (int m = 0; m < addition->place->count; m++) {
        struct layer_sums *to = addition->place->matrices[m];
        const size_t at = (size_t)addition->part * (size_t)to->width + (size_t)first;
        for (int i = 0; i < width; i++) {
            all += squares[i];
            to->sum_abs[at + (size_t)i] += sums[i];
            to->sum_squares[at + (size_t)i] += squares[i];
            to->largest[at + (size_t)i] = fmaxf(to->largest[at + (size_t)i], largest[i]);
        }
    }
    addition->good[block] = isfinite(all);
    float *moments = addition->place->matrices[0]->moments;
    if (moments && addition->products)
        addition->products(input->values + first, input->rows, input->width, width,
                           moments + (size_t)block * STATISTICS_BLOCK * STATISTICS_BLOCK);
    return 0;
}

static int third_of(float time)
{
    return time < 1.0f / THIRDS ? 0 : time < 2.0f / THIRDS ? 1 : 2;
}

void gather_watch(void *context, const struct linear_input *input)
{
    struct gather *gather = context;
    if (gather->failure.code != 0)
        return;
    const int blocks = statistics_blocks(input->width);
    if (input->layer >= MOST_LAYERS) {
        error_set(&gather->failure, ERROR_UNSUPPORTED, "more than %d layers", MOST_LAYERS);
        return;
    }
    struct place *place = &gather->places[input->layer][input->generation][input->place];
    struct addition addition = {.input = input, .place = place, .products = gather->products,
                                .part = input->generation ? third_of(input->time) : 0};
    if (place->count == 0 && find_place(gather, input, place) != 0)
        return;
    for (int m = 0; m < place->count; m++)
        place->matrices[m]->tokens[addition.part] += (uint64_t)input->rows;
    if (input->layer == 0 && input->place == PLACE_QKV)
        gather->tokens += (uint64_t)input->rows;
    parallel_run(blocks, gather->threads, add_block, &addition);
    for (int b = 0; b < blocks; b++)
        if (!addition.good[b])
            error_set(&gather->failure, ERROR_BAD_FILE, "the inputs of %s are no numbers: the model is damaged",
                      place->matrices[0]->name);
}

int gather_check(const struct gather *gather, struct error *error)
{
    if (gather->failure.code != 0)
        *error = gather->failure;
    return gather->failure.code;
}

uint64_t gather_tokens(const struct gather *gather)
{
    return gather->tokens;
}
