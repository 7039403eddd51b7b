/* Work that is recorded and played again, against the same work launched kernel by kernel: the same bytes, whatever
 * changes from one time to the next. */
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/matrix_fixture.h"

#include <dlfcn.h>

#include "daemon/engine/model/decoder.h"
#include "tests/golden/assemble.h"

enum { WIDTH = 128, HEADS = 4, HEAD_DIM = 32, ROWS_MAX = 20, CAPACITY = 700, PLAIN = 0, GRAPHS = 1 };

static struct kernels *kernels[2]; /* one that launches kernels one by one, one that records */

static struct kernels *open_card(bool graphs)
{
    struct kernels *k = NULL;
    struct error error = {0};
    setenv("LANCED_CUDA_GRAPHS", graphs ? "on" : "off", 1);
    if (kernels_cuda_load(&k, 0, &error))
        print_error("%s\n", error.text);
    unsetenv("LANCED_CUDA_GRAPHS");
    return k;
}

static int open_backends(void **state)
{
    (void)state;
    choose_emulated_plugin();
    kernels[PLAIN] = open_card(false);
    kernels[GRAPHS] = open_card(true);
    return kernels[PLAIN] && kernels[GRAPHS] ? 0 : -1;
}

static int close_backends(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        kernels[i]->close(kernels[i]);
    return 0;
}

/* Graphs launched so far; -1 on a card, which does not tell. */
static int graph_launches(void)
{
    void *plugin = dlopen(getenv("LANCED_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(plugin);
    const unsigned *launches = dlsym(plugin, "emulated_graph_launches");
    dlclose(plugin);
    return launches ? (int)*launches : -1;
}

/* What was counted so far (tests/cuda_emulation/streams.h); -1 on a card. */
enum counted { KERNELS_PUT = 0, NODES_SET = 2 };
static long count_of(enum counted which)
{
    void *plugin = dlopen(getenv("LANCED_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(plugin);
    const unsigned long *counts = dlsym(plugin, "emulated_counts");
    dlclose(plugin);
    return counts ? (long)counts[which] : -1;
}

/* A layer as the decoder has them, whose keys are kept: each time it is run there are more of them. */
struct layer {
    struct kernels *k;
    struct graph *graph;
    struct linear *to_key, *to_value, *to_out;
    act *x, *h, *a, *keys, *values, *spare;
    param *norm;
    int rows, stored;
    bool twice;          /* another piece of work: the last product is done two times */
    const float *upload; /* what cannot be recorded: a transfer amid the work */
};

static struct linear *open_matrix(struct kernels *k, enum weight_format format)
{
    struct matrix m = make_matrix(format, WIDTH, WIDTH, format == WEIGHT_NVFP4 ? 16 : 64, false, WEIGHT_BF16, true);
    struct linear *w = NULL;
    struct error error = {0};
    if (k->linear_open(k, &w, &m.source, &error))
        fail_msg("%s", error.text);
    free_matrix(&m);
    return w;
}

static struct layer open_layer(int backend, int rows)
{
    struct kernels *k = kernels[backend];
    static float zeros[CAPACITY * WIDTH], ones[WIDTH];
    *random_state() = 88172645463325252ull; /* the same on both */
    for (int i = 0; i < WIDTH; i++)
        ones[i] = 1.0f;
    float *keys = random_bf16(CAPACITY * WIDTH, 1.0f), *x = random_bf16(ROWS_MAX * WIDTH, 1.0f);
    struct layer layer = {
        .k = k,
        .to_key = open_matrix(k, WEIGHT_AWQ_INT4),
        .to_value = open_matrix(k, WEIGHT_NVFP4),
        .to_out = open_matrix(k, WEIGHT_BF16),
        .x = act_with(k, x, ROWS_MAX * WIDTH),
        .h = act_with(k, zeros, ROWS_MAX * WIDTH),
        .a = act_with(k, zeros, ROWS_MAX * WIDTH),
        .keys = act_with(k, keys, CAPACITY * WIDTH),
        .values = act_with(k, keys, CAPACITY * WIDTH),
        .spare = act_with(k, zeros, 2 * ROWS_MAX * WIDTH),
        .norm = param_with(k, ones, WIDTH),
        .rows = rows,
        .stored = 60,
    };
    free(keys), free(x);
    return layer;
}

static void close_layer(struct layer *l)
{
    struct kernels *k = l->k;
    void *const memory[] = {l->x, l->h, l->a, l->keys, l->values, l->spare, l->norm};
    k->graph_close(k, l->graph);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        k->memory_free(k, memory[i]);
    k->linear_close(k, l->to_key);
    k->linear_close(k, l->to_value);
    k->linear_close(k, l->to_out);
}

/* One key head for all query heads, as wide as all of them lie beside each other: only its first columns are used. */
static void work(void *context)
{
    struct layer *l = context;
    struct kernels *k = l->k;
    const size_t n = (size_t)l->rows * WIDTH;
    k->rms_norm(k, l->x, l->rows, WIDTH, l->norm, 1e-6f, l->h);
    k->linear(k, l->to_key, l->h, l->rows, act_at(k, l->keys, (size_t)l->stored * WIDTH), false);
    k->linear(k, l->to_value, l->h, l->rows, act_at(k, l->values, (size_t)l->stored * WIDTH), false);
    struct attention attention = {
        .q = l->h, .q_rows = l->rows, .q_stride = WIDTH, .heads = HEADS, .kv_heads = 1, .head_dim = HEAD_DIM,
        .scale = 0.2f, .causal = true, .segments = 1, .out = l->a, .out_stride = WIDTH};
    attention.segment[0].keys = l->keys;
    attention.segment[0].values = l->values;
    attention.segment[0].rows = l->stored + l->rows;
    attention.segment[0].stride = WIDTH;
    k->attention(k, &attention, 1);
    k->linear(k, l->to_out, l->a, l->rows, l->x, true);
    if (l->twice)
        k->linear(k, l->to_out, l->a, l->rows, l->x, true);
    if (l->upload)
        k->upload(k, l->x, l->upload, WIDTH);
    k->copy(k, l->spare, l->x, n);
    k->zero(k, act_at(k, l->spare, n), n);
    k->add(k, act_at(k, l->spare, n), n, l->x);
}

static void run_layer(struct layer *l, int more_keys)
{
    l->stored += more_keys;
    l->k->graph_run(l->k, &l->graph, 1, work, l);
}

static void assert_same_bytes(struct layer *l)
{
    const size_t n = (size_t)l[0].rows * WIDTH;
    float *plain = values_of_act(l[0].k, l[0].x, n), *recorded = values_of_act(l[1].k, l[1].x, n);
    for (size_t i = 0; i < n; i++)
        assert_true(isfinite(plain[i]));
    assert_memory_equal(recorded, plain, n * sizeof *plain);
    free(plain), free(recorded);
}

static void open_layers(struct layer l[2], int rows)
{
    for (int i = 0; i < 2; i++)
        l[i] = open_layer(i, rows);
}

static void close_layers(struct layer l[2])
{
    for (int i = 0; i < 2; i++)
        close_layer(&l[i]);
}

/* With the number of keys grows the number of parts that they are cut into: from one, which
 * needs no kernel to join them. */
static void repeated_work_gives_the_bytes_of_plain_launches_while_its_keys_grow(void **state)
{
    (void)state;
    static const int rows[] = {1, ROWS_MAX}; /* of weights as they are, and of decoded ones */
    for (size_t r = 0; r < 2; r++) {
        enum { TIMES = 12 };
        struct layer l[2];
        open_layers(l, rows[r]);
        const int before = graph_launches();
        for (int time = 0; time < TIMES; time++) {
            for (int i = 0; i < 2; i++)
                run_layer(&l[i], 45);
            assert_same_bytes(l);
        }
        if (before >= 0)
            assert_int_equal(graph_launches() - before, TIMES - 1); /* all but the first */
        assert_string_equal(kernels[GRAPHS]->notice, "");
        close_layers(l);
    }
}

static void several_times_without_waiting_are_each_with_their_own_arguments(void **state)
{
    (void)state;
    struct layer l[2];
    open_layers(l, 1);
    for (int i = 0; i < 2; i++)
        for (int time = 0; time < 8; time++)
            run_layer(&l[i], 1);
    assert_same_bytes(l);
    close_layers(l);
}

static void work_that_becomes_another_is_recorded_again(void **state)
{
    (void)state;
    struct layer l[2];
    open_layers(l, 2);
    for (int time = 0; time < 9; time++) {
        for (int i = 0; i < 2; i++) {
            l[i].twice = time / 3 == 1;
            if (time == 7) {
                act *other = l[i].h; /* of the same size, elsewhere */
                l[i].h = l[i].spare, l[i].spare = other;
            }
            run_layer(&l[i], 1);
        }
        assert_same_bytes(l);
    }
    close_layers(l);
}

static void work_that_is_another_each_time_is_not_recorded_for_ever(void **state)
{
    (void)state;
    enum { TIMES = 12 };
    struct layer l[2];
    open_layers(l, 2);
    const int before = graph_launches();
    for (int time = 0; time < TIMES; time++) {
        for (int i = 0; i < 2; i++) {
            l[i].twice = time % 2;
            run_layer(&l[i], 1);
        }
        assert_same_bytes(l);
    }
    if (before >= 0)
        assert_in_range(graph_launches() - before, 1, TIMES / 2);
    assert_non_null(strstr(kernels[GRAPHS]->notice, "it is another each time"));
    kernels[GRAPHS]->notice[0] = '\0';
    close_layers(l);
}

static void scratch_memory_that_moves_does_no_harm(void **state)
{
    (void)state;
    struct layer l[2];
    open_layers(l, ROWS_MAX);
    struct linear *large[2] = {NULL, NULL};
    for (int time = 0; time < 6; time++)
        for (int i = 0; i < 2; i++) {
            if (time == 4) { /* decoded weights need more room from here on */
                struct matrix m = make_matrix(WEIGHT_AWQ_INT4, 512, 256, 64, false, WEIGHT_BF16, false);
                struct error error = {0};
                assert_int_equal(kernels[i]->linear_open(kernels[i], &large[i], &m.source, &error), 0);
                free_matrix(&m);
            }
            run_layer(&l[i], 1);
        }
    assert_same_bytes(l);
    for (int i = 0; i < 2; i++)
        kernels[i]->linear_close(kernels[i], large[i]);
    close_layers(l);
}

static void work_that_cannot_be_recorded_is_done_all_the_same_and_the_log_is_told(void **state)
{
    (void)state;
    float row[WIDTH];
    struct layer l[2];
    open_layers(l, 1);
    for (int time = 0; time < 6; time++) {
        for (int i = 0; i < WIDTH; i++)
            row[i] = (float)(i + time);
        for (int i = 0; i < 2; i++) {
            l[i].upload = row;
            run_layer(&l[i], 1);
        }
        assert_same_bytes(l);
    }
    assert_non_null(strstr(kernels[GRAPHS]->notice, "a transfer cannot be recorded"));
    assert_string_equal(kernels[PLAIN]->notice, "");
    kernels[GRAPHS]->notice[0] = '\0';
    close_layers(l);
}

static void a_card_that_refuses_to_record_gets_plain_launches(void **state)
{
    (void)state;
    if (graph_launches() < 0)
        return; /* a real one does not */
    struct layer l[2];
    open_layers(l, 1);
    setenv("LANCED_EMULATION_CAPTURES", "0", 1);
    for (int time = 0; time < 6; time++)
        for (int i = 0; i < 2; i++)
            run_layer(&l[i], 1);
    unsetenv("LANCED_EMULATION_CAPTURES");
    assert_same_bytes(l);
    assert_non_null(strstr(kernels[GRAPHS]->notice, "not permitted"));
    kernels[GRAPHS]->notice[0] = '\0';
    close_layers(l);
}

static void a_card_too_full_for_a_graph_gets_plain_launches(void **state)
{
    (void)state;
    if (graph_launches() < 0)
        return; /* a card is not filled for this */
    struct layer l[2];
    struct error error;
    open_layers(l, 1);
    setenv("LANCED_EMULATION_GRAPH_MEMORY", "0", 1);
    for (int time = 0; time < 6; time++)
        for (int i = 0; i < 2; i++) {
            run_layer(&l[i], 1);
            if (kernels[i]->sync(kernels[i], &error))
                fail_msg("%s", error.text);
        }
    unsetenv("LANCED_EMULATION_GRAPH_MEMORY");
    assert_same_bytes(l);
    assert_non_null(strstr(kernels[GRAPHS]->notice, "out of memory"));
    kernels[GRAPHS]->notice[0] = '\0';
    close_layers(l);
}

static void cancelled_work_leaves_nothing_behind_that_disturbs_later_work(void **state)
{
    (void)state;
    atomic_bool stop = true;
    struct error error;
    struct layer l[2];
    open_layers(l, 1);
    for (int time = 0; time < 8; time++) {
        for (int i = 0; i < 2; i++) {
            kernels[i]->watch(kernels[i], time % 3 == 1 ? &stop : NULL);
            run_layer(&l[i], 1);
            assert_int_equal(kernels[i]->sync(kernels[i], &error), time % 3 == 1 ? ERROR_CANCELLED : 0);
            kernels[i]->watch(kernels[i], NULL);
        }
        assert_same_bytes(l);
    }
    close_layers(l);
}

static void add_work(void *context)
{
    struct layer *l = context;
    l->k->add(l->k, l->h, WIDTH, l->x);
}

/* So that a cancelled job has little left to run: what was enqueued when the host goes on is nearly done. */
static void only_a_few_graphs_wait_for_the_card(void **state)
{
    (void)state;
    if (graph_launches() < 0)
        return; /* a card's memory cannot be looked into */
    enum { TIMES = 20, WAITING = 4 };
    struct layer l = open_layer(GRAPHS, 1);
    float zeros[WIDTH] = {0}, ones[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        ones[i] = 1.0f;
    l.k->upload(l.k, l.x, zeros, WIDTH);
    l.k->upload(l.k, l.h, ones, WIDTH);
    for (int time = 0; time < TIMES; time++)
        l.k->graph_run(l.k, &l.graph, 0, add_work, &l);
    uint16_t done;
    memcpy(&done, l.x, sizeof done); /* without waiting */
    const float count = bf16_to_float(done);
    assert_true(count >= TIMES - WAITING);
    float *end = values_of_act(l.k, l.x, WIDTH);
    assert_true(end[0] == TIMES && count < TIMES);
    free(end);
    close_layer(&l);
}

/* ---- the decoder ---- */

enum { HIDDEN = 128, FIRST_TOKENS = 20, TOKENS = 6, STEPS = 5, CELLS = 9 };

/* What a pass left, with what was there before it made from `seed`. */
static float *run_pass(struct decoder *decoder, struct decoder_workspace *workspace, const struct decoder_block *block,
                       int seed)
{
    struct kernels *k = kernels[GRAPHS];
    const size_t n = (size_t)(block->sequences * (block->und_rows + block->gen_rows)) * HIDDEN;
    *random_state() = 1000 + (uint64_t)seed;
    float *x = random_bf16(n, 1.0f);
    k->upload(k, decoder_workspace_x(workspace), x, n);
    free(x);
    decoder_run(decoder, workspace, block);
    return values_of_act(k, decoder_workspace_x(workspace), n);
}

/* Passes one after the other over a cache of their own, into *out. */
static void run_passes(struct decoder *decoder, bool with_graphs, float *out)
{
    struct kv_cache *cache, *both[2];
    struct decoder_workspace *workspace;
    struct graph *graph[2] = {NULL, NULL}; /* of tokens and of denoising steps */
    struct error error;
    int32_t steps[FIRST_TOKENS + TOKENS];
    for (int i = 0; i < FIRST_TOKENS + TOKENS; i++)
        steps[i] = i;
    assert_int_equal(kv_cache_open(&cache, decoder, NULL, FIRST_TOKENS + TOKENS, &error), 0);
    assert_int_equal(
        decoder_workspace_open(&workspace, decoder, FIRST_TOKENS + 2 * CELLS, FIRST_TOKENS + 2 * CELLS, &error), 0);
    both[0] = both[1] = cache;
    for (int token = -1; token < TOKENS; token++) { /* the first are stored at once */
        const int first = token < 0 ? 0 : FIRST_TOKENS + token, rows = token < 0 ? FIRST_TOKENS : 1;
        const int32_t *const positions[3] = {steps + first, steps + first, steps + first};
        const struct decoder_block block = {.sequences = 1, .und_rows = rows, .caches = both, .causal = true,
            .store = true,
                                            .graph = with_graphs && token >= 0 ? &graph[0] : NULL};
        assert_int_equal(decoder_set_positions(decoder, workspace, 0, positions, rows, &error), 0);
        float *x = run_pass(decoder, workspace, &block, token);
        memcpy(out, x, HIDDEN * sizeof *x);
        out += HIDDEN;
        free(x);
    }
    for (int step = 0; step < STEPS; step++) {
        const struct decoder_block block = {.sequences = 2, .und_rows = 2, .gen_rows = CELLS, .caches = both,
                                            .graph = with_graphs ? &graph[1] : NULL};
        float *x = run_pass(decoder, workspace, &block, 100 + step);
        memcpy(out, x, HIDDEN * sizeof *x);
        out += HIDDEN;
        free(x);
    }
    for (int i = 0; i < 2; i++)
        kernels[GRAPHS]->graph_close(kernels[GRAPHS], graph[i]);
    decoder_workspace_close(workspace);
    kv_cache_close(cache);
}

/* The recorded cases' decoder, in a folder that goes with it. */
struct opened {
    char folder[32];
    struct checkpoint *checkpoint;
    struct decoder *decoder;
};

static struct opened open_decoder(void)
{
    struct opened o = {.folder = "/tmp/lance-graph-XXXXXX"};
    struct error error = {0};
    assert_non_null(mkdtemp(o.folder));
    assert_int_equal(assemble_checkpoint("tests/golden/data", NULL, o.folder, &error), 0);
    assert_int_equal(checkpoint_open(&o.checkpoint, &(struct checkpoint_options){.model_dir = o.folder}, &error), 0);
    const struct decoder_options options = {.round_tables = true};
    assert_int_equal(decoder_open(&o.decoder, kernels[GRAPHS], o.checkpoint, &options, &error), 0);
    assert_int_equal(decoder_hidden_size(o.decoder), HIDDEN);
    return o;
}

static void close_decoder(struct opened *o)
{
    char command[64];
    decoder_close(o->decoder);
    checkpoint_close(o->checkpoint);
    snprintf(command, sizeof command, "rm -r %s", o->folder);
    assert_int_equal(system(command), 0);
}

static void tokens_and_denoising_steps_are_the_same_with_graphs_and_without(void **state)
{
    (void)state;
    enum { VALUES = (1 + TOKENS + STEPS) * HIDDEN };
    static float plain[VALUES], recorded[VALUES];
    struct opened o = open_decoder();
    struct decoder *decoder = o.decoder;
    run_passes(decoder, false, plain);
    const int before = graph_launches();
    run_passes(decoder, true, recorded);
    if (before >= 0)
        assert_true(graph_launches() - before >= TOKENS - 1 + STEPS - 1);
    for (int i = 0; i < VALUES; i++)
        assert_true(isfinite(plain[i]));
    assert_memory_equal(recorded, plain, sizeof plain);
    assert_string_equal(kernels[GRAPHS]->notice, "");
    close_decoder(&o);
}

/* A layer: queries, keys and values of the normed row; their rotation; attention; its product; SwiGLU's two products of
 * the normed row; the last product. So 36 layers and what is around them stay below 250 launches. */
static void a_token_takes_six_kernels_a_layer_however_many_keys_there_are(void **state)
{
    (void)state;
    enum { FIRST = 300, OF_LAYER = 6 };
    if (count_of(KERNELS_PUT) < 0)
        return;
    struct opened o = open_decoder();
    const int layers = checkpoint_config(o.checkpoint)->layers;
    struct kv_cache *cache;
    struct decoder_workspace *workspace;
    struct error error;
    int32_t steps[FIRST + 1];
    for (int i = 0; i <= FIRST; i++)
        steps[i] = i;
    assert_int_equal(kv_cache_open(&cache, o.decoder, NULL, FIRST + 1, &error), 0);
    assert_int_equal(decoder_workspace_open(&workspace, o.decoder, FIRST, FIRST, &error), 0);
    for (int rows = FIRST; rows > 0; rows = rows == 1 ? 0 : 1) {
        const int first = rows == 1 ? FIRST : 0;
        const int32_t *const positions[3] = {steps + first, steps + first, steps + first};
        const struct decoder_block block = {.sequences = 1, .und_rows = rows, .caches = &cache, .causal = true,
                                            .store = true};
        assert_int_equal(decoder_set_positions(o.decoder, workspace, 0, positions, rows, &error), 0);
        kernels[GRAPHS]->zero(kernels[GRAPHS], decoder_workspace_x(workspace), (size_t)rows * HIDDEN);
        const long before = count_of(KERNELS_PUT);
        decoder_run(o.decoder, workspace, &block);
        if (rows == 1)
            assert_int_equal(count_of(KERNELS_PUT) - before, OF_LAYER * layers + 1); /* and the last norm */
        assert_int_equal(kernels[GRAPHS]->sync(kernels[GRAPHS], &error), 0);
    }
    decoder_workspace_close(workspace);
    kv_cache_close(cache);
    close_decoder(&o);
}

/* Two answers about the same prompt, written in turns. */
enum { ANSWERS = 2, PROMPT = 200, ANSWERED = 51, ANSWER_TOKENS = 12 };
struct answers {
    struct kv_cache *prompt, *cache[ANSWERS];
    struct decoder_workspace *workspace;
    struct graph *graph[ANSWERS];
};

static void store(struct decoder *decoder, struct answers *a, struct kv_cache *cache, int first, int rows, int seed)
{
    struct error error;
    int32_t steps[PROMPT];
    const int32_t *const positions[3] = {steps, steps, steps};
    for (int i = 0; i < rows; i++)
        steps[i] = first + i;
    const struct decoder_block block = {
        .sequences = 1, .und_rows = rows, .caches = &cache, .causal = true, .store = true};
    assert_int_equal(decoder_set_positions(decoder, a->workspace, 0, positions, rows, &error), 0);
    free(run_pass(decoder, a->workspace, &block, seed));
}

static void open_answers(struct decoder *decoder, struct answers *a)
{
    struct error error;
    *a = (struct answers){.prompt = NULL};
    assert_int_equal(decoder_workspace_open(&a->workspace, decoder, PROMPT, PROMPT, &error), 0);
    assert_int_equal(kv_cache_open(&a->prompt, decoder, NULL, PROMPT, &error), 0);
    store(decoder, a, a->prompt, 0, PROMPT, 1);
    for (int i = 0; i < ANSWERS; i++) { /* of different lengths */
        const int most = ANSWERED + ANSWERS + ANSWER_TOKENS;
        assert_int_equal(kv_cache_open(&a->cache[i], decoder, a->prompt, most, &error), 0);
        store(decoder, a, a->cache[i], PROMPT, ANSWERED + i, 2 + i);
    }
}

static void close_answers(struct answers *a)
{
    for (int i = 0; i < ANSWERS; i++) {
        kernels[GRAPHS]->graph_close(kernels[GRAPHS], a->graph[i]);
        kv_cache_close(a->cache[i]);
    }
    kv_cache_close(a->prompt);
    decoder_workspace_close(a->workspace);
}

/* What the next token's pass leaves. */
static void run_token(struct decoder *decoder, struct answers *a, int answer, int token, bool with_graph, float *out)
{
    struct error error;
    const int32_t at = PROMPT + ANSWERED + answer + token;
    const int32_t *const positions[3] = {&at, &at, &at};
    const struct decoder_block block = {.sequences = 1, .und_rows = 1, .caches = &a->cache[answer], .causal = true,
                                        .store = true, .graph = with_graph ? &a->graph[answer] : NULL};
    assert_int_equal(decoder_set_positions(decoder, a->workspace, 0, positions, 1, &error), 0);
    float *x = run_pass(decoder, a->workspace, &block, 10 + ANSWERS * token + answer);
    memcpy(out, x, HIDDEN * sizeof *x);
    free(x);
}

/* Where the new key goes, and how many there are, the card reads: attention alone is another when it is cut into more
 * parts, here with the 256th key. */
static void a_token_changes_no_graph_but_where_attention_is_cut_anew_and_has_the_bytes_of_one_without(void **state)
{
    (void)state;
    enum { PARTS_AT = 256 };
    static float plain[HIDDEN], recorded[HIDDEN];
    struct opened o = open_decoder();
    const int layers = checkpoint_config(o.checkpoint)->layers;
    struct answers without, with;
    open_answers(o.decoder, &without);
    open_answers(o.decoder, &with);
    for (int token = 0; token < ANSWER_TOKENS; token++)
        for (int answer = 0; answer < ANSWERS; answer++) {
            run_token(o.decoder, &without, answer, token, false, plain);
            const long before = count_of(NODES_SET);
            run_token(o.decoder, &with, answer, token, true, recorded);
            assert_memory_equal(recorded, plain, sizeof plain);
            const bool more_parts = PROMPT + ANSWERED + answer + token + 1 == PARTS_AT;
            if (before >= 0)
                assert_int_equal(count_of(NODES_SET) - before, more_parts ? layers : 0);
        }
    assert_string_equal(kernels[GRAPHS]->notice, "");
    close_answers(&with);
    close_answers(&without);
    close_decoder(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeated_work_gives_the_bytes_of_plain_launches_while_its_keys_grow),
        cmocka_unit_test(several_times_without_waiting_are_each_with_their_own_arguments),
        cmocka_unit_test(work_that_becomes_another_is_recorded_again),
        cmocka_unit_test(work_that_is_another_each_time_is_not_recorded_for_ever),
        cmocka_unit_test(scratch_memory_that_moves_does_no_harm),
        cmocka_unit_test(work_that_cannot_be_recorded_is_done_all_the_same_and_the_log_is_told),
        cmocka_unit_test(a_card_that_refuses_to_record_gets_plain_launches),
        cmocka_unit_test(a_card_too_full_for_a_graph_gets_plain_launches),
        cmocka_unit_test(cancelled_work_leaves_nothing_behind_that_disturbs_later_work),
        cmocka_unit_test(only_a_few_graphs_wait_for_the_card),
        cmocka_unit_test(tokens_and_denoising_steps_are_the_same_with_graphs_and_without),
        cmocka_unit_test(a_token_takes_six_kernels_a_layer_however_many_keys_there_are),
        cmocka_unit_test(a_token_changes_no_graph_but_where_attention_is_cut_anew_and_has_the_bytes_of_one_without),
    };
    return cmocka_run_group_tests(tests, open_backends, close_backends);
}
