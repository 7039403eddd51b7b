/* options.c: see options.h. */
#include "daemon/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/command_line.h"
#include "daemon/log.h"
#include "protocol/message.h"

static const uint64_t NOT_SAID = UINT64_MAX, CACHE_BYTES = UINT64_C(1) << 30;

static const char usage[] =
    "lanced " LANCED_VERSION ": serves ByteDance Lance to ComfyUI, lancectl and programs\n"
    "\n"
    "usage: lanced --model DIR [options], or lanced --models DIR [options]\n"
    "\n"
    "models\n"
    "  --model DIR, --model NAME=DIR   a checkpoint to offer; the first one is the default; may be repeated.\n"
    "                                  Without NAME, the folder's name\n"
    "  --models DIR                    the checkpoints whose folders are in DIR, by their names, behind those of\n"
    "                                  --model; may be repeated. The log names those that cannot be offered\n"
    "  --list-models                   write the names of the models that would be offered, as JSON, and end\n"
    "  --vae FILE                      the VAE (Wan2.2_VAE.pth), when it is not in or beside DIR\n"
    "  --vit DIR                       the vision encoder's folder, when it is not in or beside DIR\n"
    "  --head exact|int8               what gives the logits of an answer's tokens: as the file has it (default), or\n"
    "                                  8 bits a weight, which is half as much to read for each token\n"
    "  --load-at-start                 load the default model before anyone asks (default); --lazy: at the first job\n"
    "  --models-resident N             how many models may be in memory at once, where there is room (default 1); the\n"
    "                                  one that was not used for longest makes room for another\n"
    "  --idle-unload SECONDS           free the model's memory when there was no job for so long; the next job "
    "loads it\n"
    "                                  again (default 0: never)\n"
    "  --backend auto|cpu|cuda         what computes (default auto: the GPU where the CUDA plugin and a card are "
    "there,\n"
    "                                  else the CPU)\n"
    "  --isa NAME                      the largest instruction set the CPU may use: portable, avx2, avx512,\n"
    "                                  avx512-bf16 or amx (default:\n"
    "                                  LANCED_ISA, else auto, the best it has); a processor without it takes the next\n"
    "  --precision float32|bf16|auto   what the CPU's products round their factors to (default float32); bf16 "
    "needs AMX or\n"
    "                                  AVX512-BF16; auto takes it where it is much faster: with AMX, and where a "
    "short\n"
    "                                  measurement says so of AVX512-BF16\n"
    "  --threads N                     CPU threads (default: one per core)\n"
    "  --memory BYTES                  memory jobs may take beside the weights; a job that needs more is refused\n"
    "                                  (default: what is available without the weights and a reserve: an eighth of\n"
    "                                  the machine, or a sixteenth of the GPU's memory)\n"
    "  --prefix-cache BYTES            part of it that may keep what pictures and prompts were turned into, for later\n"
    "                                  jobs with the same ones (default 1G; 0: nothing is kept)\n"
    "service\n"
    "  --endpoint URL                  ipc:///path, tcp://127.0.0.1:port or tls+tcp://0.0.0.0:port (default: "
    "LANCED_ENDPOINT,\n"
    "                                  else a socket in $XDG_RUNTIME_DIR/lanced or /tmp/lanced-<uid>); may be\n"
    "                                  repeated: one daemon, for its own machine by ipc and for others by tls+tcp\n"
    "  --cert FILE, --key FILE         certificate and key of a tls+tcp endpoint, which needs tokens too; lancectl ca "
    "makes\n"
    "                                  them\n"
    "  --token-file FILE               answer only clients that send the token in FILE (or in LANCED_TOKEN), who may\n"
    "                                  do everything\n"
    "  --tokens FILE                   answer clients by the tokens in FILE, one a line: NAME SECRET, or NAME SECRET "
    "admin;\n"
    "                                  each has its own jobs, and admins may do everything; SIGHUP reads it anew\n"
    "  --queue N                       jobs that may wait (default 64),\n"
    "  --queue-bytes BYTES             with requests of at most so much memory together (default 1G)\n"
    "  --blob-bytes BYTES              and payloads that clients put before their jobs of at most so much "
    "(default 256M)\n"
    "  --results N                     ended jobs to keep until they are fetched and released (default 64),\n"
    "  --result-bytes BYTES            in at most so much memory (default 1G),\n"
    "  --result-seconds S              for so long (default 600)\n"
    "  --orphans SECONDS               cancel a job that no client has asked about for so long (default 0: never)\n"
    "  --state DIR                     keep jobs in DIR, on a disk of this machine: what was accepted is done, "
    "whatever\n"
    "                                  becomes of this process, and results wait for their clients there,\n"
    "  --keep-bytes BYTES              in at most so much (default 2G),\n"
    "  --keep-days N                   for so long (default 7)\n"
    "  --save-seconds S                how often the state of a job that runs is kept there, to go on from "
    "(default 30;\n"
    "  --save-steps N                  0: never), and after how many steps (default 0: by time alone)\n"
    "  --result-cache BYTES            answer the same request at once with results that were made before, of at\n"
    "                                  most so much (default: 1G with --state, which keeps them; without it they\n"
    "                                  are kept in memory, and the default is 0: none)\n"
    "  --check                         with --state: say whether all that is kept is whole, and end; without: say as\n"
    "                                  JSON what this machine has and what lies in the models' folders, and end\n"
    "  --calibrate FILE                count how large inputs of the model's layers are, for lance-quant apply; no\n"
    "                                  prompt, picture or token is kept; without prefix cache, for one --model,\n"
    "  --calibrate-minutes N           and write FILE every so many minutes (default 5), and at the end\n"
    "  --on-term finish|cancel         what SIGTERM and SIGINT do with jobs (default finish; a second signal cancels;\n"
    "                                  with --state jobs are left to the next start instead of finished)\n"
    "  --until-eof                     end, as with SIGTERM, when standard input closes: for a program that starts\n"
    "                                  lanced for itself and may die before it can stop it\n"
    "  --log-level LEVEL               error, warning, info (default) or debug; the log goes to standard error\n"
    "  --log-json                      a JSON object a line: time, level, message, and job where it is about one\n"
    "  --version, --help\n"
    "\n"
    "BYTES may end in K, M or G (powers of 1024).\n";

enum option_code {
    OPTION_MODEL = 1000, OPTION_MODELS, OPTION_LIST_MODELS,
    OPTION_VAE, OPTION_VIT, OPTION_HEAD, OPTION_LOAD_AT_START, OPTION_LAZY, OPTION_IDLE_UNLOAD, OPTION_MODELS_RESIDENT,
    OPTION_BACKEND,
    OPTION_ISA, OPTION_PRECISION, OPTION_THREADS, OPTION_MEMORY, OPTION_PREFIX_CACHE,
    OPTION_ENDPOINT, OPTION_TOKEN_FILE, OPTION_TOKENS, OPTION_CERT, OPTION_KEY, OPTION_QUEUE,
    OPTION_QUEUE_BYTES, OPTION_BLOB_BYTES, OPTION_RESULTS,
    OPTION_RESULT_BYTES,
    OPTION_RESULT_SECONDS, OPTION_STATE, OPTION_KEEP_BYTES, OPTION_KEEP_DAYS, OPTION_SAVE_SECONDS, OPTION_SAVE_STEPS,
        OPTION_RESULT_CACHE,
    OPTION_CHECK, OPTION_ORPHANS, OPTION_CALIBRATE, OPTION_CALIBRATE_MINUTES, OPTION_ON_TERM, OPTION_UNTIL_EOF,
    OPTION_LOG_LEVEL, OPTION_LOG_JSON, OPTION_VERSION, OPTION_HELP
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, OPTION_MODEL},
    {"models", required_argument, NULL, OPTION_MODELS},
    {"list-models", no_argument, NULL, OPTION_LIST_MODELS},
    {"vae", required_argument, NULL, OPTION_VAE},
    {"vit", required_argument, NULL, OPTION_VIT},
    {"head", required_argument, NULL, OPTION_HEAD},
    {"load-at-start", no_argument, NULL, OPTION_LOAD_AT_START},
    {"lazy", no_argument, NULL, OPTION_LAZY},
    {"idle-unload", required_argument, NULL, OPTION_IDLE_UNLOAD},
    {"models-resident", required_argument, NULL, OPTION_MODELS_RESIDENT},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"isa", required_argument, NULL, OPTION_ISA},
    {"precision", required_argument, NULL, OPTION_PRECISION},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"prefix-cache", required_argument, NULL, OPTION_PREFIX_CACHE},
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"token-file", required_argument, NULL, OPTION_TOKEN_FILE},
    {"tokens", required_argument, NULL, OPTION_TOKENS},
    {"cert", required_argument, NULL, OPTION_CERT},
    {"key", required_argument, NULL, OPTION_KEY},
    {"queue", required_argument, NULL, OPTION_QUEUE},
    {"queue-bytes", required_argument, NULL, OPTION_QUEUE_BYTES},
    {"blob-bytes", required_argument, NULL, OPTION_BLOB_BYTES},
    {"results", required_argument, NULL, OPTION_RESULTS},
    {"result-bytes", required_argument, NULL, OPTION_RESULT_BYTES},
    {"result-seconds", required_argument, NULL, OPTION_RESULT_SECONDS},
    {"state", required_argument, NULL, OPTION_STATE},
    {"keep-bytes", required_argument, NULL, OPTION_KEEP_BYTES},
    {"keep-days", required_argument, NULL, OPTION_KEEP_DAYS},
    {"save-seconds", required_argument, NULL, OPTION_SAVE_SECONDS},
    {"save-steps", required_argument, NULL, OPTION_SAVE_STEPS},
    {"result-cache", required_argument, NULL, OPTION_RESULT_CACHE},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"orphans", required_argument, NULL, OPTION_ORPHANS},
    {"calibrate", required_argument, NULL, OPTION_CALIBRATE},
    {"calibrate-minutes", required_argument, NULL, OPTION_CALIBRATE_MINUTES},
    {"on-term", required_argument, NULL, OPTION_ON_TERM},
    {"until-eof", no_argument, NULL, OPTION_UNTIL_EOF},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"log-json", no_argument, NULL, OPTION_LOG_JSON},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int read_number(uint64_t *out, const char *name, const char *text, uint64_t lowest, uint64_t highest,
                       struct error *error)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || number < lowest || number > highest)
        return error_set(error, ERROR_BAD_REQUEST, "--%s: must be a whole number from %llu to %llu, not \"%.40s\"",
                         name, (unsigned long long)lowest, (unsigned long long)highest, text);
    *out = number;
    return 0;
}

static int read_int(int *out, const char *name, const char *text, int lowest, int highest, struct error *error)
{
    uint64_t number;
    int code = read_number(&number, name, text, (uint64_t)lowest, (uint64_t)highest, error);
    if (code == 0)
        *out = (int)number;
    return code;
}

static int read_bytes(uint64_t *out, const char *name, const char *text, uint64_t lowest, struct error *error)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    int shift = 0;
    if (*end != '\0' && end[1] == '\0')
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : -1;
    else if (*end != '\0')
        shift = -1;
    if (!isdigit((unsigned char)text[0]) || errno != 0 || shift < 0 || number > (UINT64_C(1) << 52) >> shift ||
        number << shift < lowest)
        return error_set(error, ERROR_BAD_REQUEST,
                         "--%s: must be a number of bytes of at least %llu, such as 268435456 or 256M, not \"%.40s\"",
                         name, (unsigned long long)lowest, text);
    *out = (uint64_t)number << shift;
    return 0;
}

static int read_seconds(double *seconds, const char *name, const char *value, uint64_t least, struct error *error)
{
    uint64_t whole;
    int code = read_number(&whole, name, value, least, 10000000, error);
    if (code == 0)
        *seconds = (double)whole;
    return code;
}

/* --backend, --isa, --precision. */
static int read_backend_option(struct backend_options *backend, int code, const char *value, struct error *error)
{
    if (code == OPTION_BACKEND) {
        if (backend_of(value) < 0)
            return error_set(error, ERROR_BAD_REQUEST, "--backend: must be auto, cpu or cuda, not \"%.40s\"", value);
        backend->backend = (enum backend)backend_of(value);
    } else if (code == OPTION_ISA) {
        if (isa_of(value) < 0)
            return error_set(error, ERROR_BAD_REQUEST, "--isa: must be " ISA_NAMES ", not \"%.40s\"", value);
        backend->isa = (enum isa)isa_of(value);
    } else {
        if (precision_of(value) < 0)
            return error_set(error, ERROR_BAD_REQUEST, "--precision: must be float32, bf16 or auto, not \"%.40s\"",
                             value);
        backend->precision = (enum precision)precision_of(value);
    }
    return 0;
}

static int read_head(struct options *options, const char *value, struct error *error)
{
    options->byte_head = strcmp(value, "int8") == 0;
    if (options->byte_head || strcmp(value, "exact") == 0)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--head: must be exact or int8, not \"%.40s\"", value);
}

static int read_on_term(struct options *options, const char *value, struct error *error)
{
    options->cancel_on_term = strcmp(value, "cancel") == 0;
    if (options->cancel_on_term || strcmp(value, "finish") == 0)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--on-term: must be finish or cancel, not \"%.40s\"", value);
}

static int read_log_level(struct options *options, const char *value, struct error *error)
{
    options->log_level = log_level_of(value);
    if (options->log_level >= 0)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--log-level: must be error, warning, info or debug, not \"%.40s\"",
                     value);
}

static int read_log_option(struct options *options, int code, const char *value, struct error *error)
{
    if (code == OPTION_LOG_LEVEL)
        return read_log_level(options, value, error);
    options->log_json = true;
    return 0;
}

/* --state and what belongs to it. */
static int read_state_option(struct options *options, int code, const char *value, struct error *error)
{
    uint64_t days;
    switch (code) {
    case OPTION_STATE:
        options->state_folder = value;
        return value[0] != '\0' ? 0 : error_set(error, ERROR_BAD_REQUEST, "--state: must be a folder");
    case OPTION_KEEP_BYTES:
        return read_bytes(&options->journal.result_bytes, "keep-bytes", value, 1 << 20, error);
    case OPTION_KEEP_DAYS:
        if (read_number(&days, "keep-days", value, 1, 3650, error) != 0)
            return error->code;
        options->journal.result_seconds = (double)days * 86400;
        return 0;
    case OPTION_SAVE_SECONDS:
        return read_seconds(&options->save_seconds, "save-seconds", value, 0, error);
    case OPTION_SAVE_STEPS:
        return read_int(&options->save_steps, "save-steps", value, 0, 1000000, error);
    case OPTION_RESULT_CACHE:
        return read_bytes(&options->journal.cache_bytes, "result-cache", value, 0, error);
    default:
        options->check = true;
        return 0;
    }
}

/* `value` NULL: where it is when nothing was said. */
static int add_endpoint(struct options *options, const char *value, struct error *error)
{
    if (options->endpoint_count == OPTIONS_MAX_ENDPOINTS)
        return error_set(error, ERROR_BAD_REQUEST, "--endpoint: at most %d may be given", OPTIONS_MAX_ENDPOINTS);
    struct endpoint *endpoint = &options->endpoints[options->endpoint_count];
    const int code = endpoint_resolve(endpoint, value, error);
    if (code != 0)
        return code;
    for (int i = 0; i < options->endpoint_count; i++)
        if (strcmp(options->endpoints[i].url, endpoint->url) == 0)
            return error_set(error, ERROR_BAD_REQUEST, "--endpoint %s: is given twice", endpoint->url);
    options->endpoint_count++;
    return 0;
}

/* --endpoint, and who is let in there. */
static int read_endpoint_option(struct options *options, int code, const char *value, struct error *error)
{
    switch (code) {
    case OPTION_ENDPOINT:
        return add_endpoint(options, value, error);
    case OPTION_TOKEN_FILE:
        return token_read_file(options->token, value, "--token-file", error);
    case OPTION_TOKENS:
        options->tokens_path = value;
        return 0;
    case OPTION_CERT:
        options->certificate = value;
        return 0;
    default:
        options->key = value;
        return 0;
    }
}

static const char statistics_ending[] = ".safetensors";

/* Of one model, whose jobs are computed from their first token on. */
static int check_calibration(struct options *options, struct error *error)
{
    options->prefix_cache_bytes = 0;
    if (options->model_count <= 1)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--calibrate: is for one --model, not for %d", options->model_count);
}

static int read_calibrate_option(struct options *options, int code, const char *value, struct error *error)
{
    int minutes = 0;
    if (code == OPTION_CALIBRATE) {
        options->calibrate_file = value;
        return strlen(value) > strlen(statistics_ending) &&
                       strcmp(value + strlen(value) - strlen(statistics_ending), statistics_ending) == 0
                   ? 0
                   : error_set(error, ERROR_BAD_REQUEST, "--calibrate: the file's name must end in %s",
                               statistics_ending);
    }
    const int status = read_int(&minutes, "calibrate-minutes", value, 1, 1440, error);
    options->calibrate_seconds = 60.0 * minutes;
    return status;
}

static void on_odd_model(void *context, const struct error *remark)
{
    struct options *options = context;
    options->odd_model = *remark;
    log_warning(NULL, "%s", remark->text);
}

static struct offered_models offered_of(struct options *options)
{
    return (struct offered_models){options->models, &options->model_count, on_odd_model, options};
}

/* --model, --models, --list-models. */
static int read_offer(struct options *options, int code, const char *value, struct error *error)
{
    const struct offered_models offered = offered_of(options);
    switch (code) {
    case OPTION_MODEL:
        return offered_add(&offered, value, error);
    case OPTION_MODELS:
        if (options->model_folder_count == OPTIONS_MAX_MODEL_FOLDERS)
            return error_set(error, ERROR_BAD_REQUEST, "--models: at most %d folders", OPTIONS_MAX_MODEL_FOLDERS);
        options->model_folders[options->model_folder_count++] = value;
        return 0;
    default:
        options->list_models = true;
        return 0;
    }
}

/* What becomes of the models that are offered. */
static int read_model_option(struct options *options, int code, const char *value, struct error *error)
{
    switch (code) {
    case OPTION_VAE:
        options->vae_path = value;
        return 0;
    case OPTION_VIT:
        options->vit_path = value;
        return 0;
    case OPTION_HEAD:
        return read_head(options, value, error);
    case OPTION_LOAD_AT_START:
    case OPTION_LAZY:
        options->lazy = code == OPTION_LAZY;
        return 0;
    case OPTION_MODELS_RESIDENT:
        return read_int(&options->models_resident, "models-resident", value, 1, OFFERED_MAX_MODELS, error);
    default:
        return read_seconds(&options->idle_unload_seconds, "idle-unload", value, 0, error);
    }
}

static int read_option(struct options *options, int code, const char *value, struct error *error)
{
    if (code >= OPTION_STATE && code <= OPTION_CHECK)
        return read_state_option(options, code, value, error);
    if (code >= OPTION_ENDPOINT && code <= OPTION_KEY)
        return read_endpoint_option(options, code, value, error);
    if (code >= OPTION_MODEL && code <= OPTION_LIST_MODELS)
        return read_offer(options, code, value, error);
    if (code >= OPTION_VAE && code <= OPTION_MODELS_RESIDENT)
        return read_model_option(options, code, value, error);
    switch (code) {
    case OPTION_BACKEND:
    case OPTION_ISA:
    case OPTION_PRECISION:
        return read_backend_option(&options->backend, code, value, error);
    case OPTION_THREADS:
        return read_int(&options->backend.threads, "threads", value, 1, 1024, error);
    case OPTION_MEMORY:
        return read_bytes(&options->memory_limit_bytes, "memory", value, 1 << 20, error);
    case OPTION_PREFIX_CACHE:
        return read_bytes(&options->prefix_cache_bytes, "prefix-cache", value, 0, error);
    case OPTION_QUEUE:
        return read_int(&options->jobs.queue, "queue", value, 1, 10000, error);
    case OPTION_BLOB_BYTES:
        return read_bytes(&options->blob_bytes, "blob-bytes", value, 1 << 20, error);
    case OPTION_QUEUE_BYTES:
        return read_bytes(&options->jobs.queue_bytes, "queue-bytes", value, 1 << 20, error);
    case OPTION_RESULTS:
        return read_int(&options->jobs.results, "results", value, 1, 10000, error);
    case OPTION_RESULT_BYTES:
        return read_bytes(&options->jobs.result_bytes, "result-bytes", value, 1 << 20, error);
    case OPTION_RESULT_SECONDS:
        return read_seconds(&options->jobs.result_seconds, "result-seconds", value, 1, error);
    case OPTION_CALIBRATE:
    case OPTION_CALIBRATE_MINUTES:
        return read_calibrate_option(options, code, value, error);
    case OPTION_ORPHANS:
        return read_seconds(&options->jobs.orphan_seconds, "orphans", value, 0, error);
    case OPTION_ON_TERM:
        return read_on_term(options, value, error);
    case OPTION_UNTIL_EOF:
        options->until_eof = true;
        return 0;
    case OPTION_LOG_LEVEL:
    case OPTION_LOG_JSON:
        return read_log_option(options, code, value, error);
    default:
        return error_set(error, ERROR_INTERNAL, "option %d is not handled", code);
    }
}

/* A file of tokens stands in the place of the only one, whoever set LANCED_TOKEN for a client. */
static int settle_token(struct options *options, struct error *error)
{
    const char *token = getenv("LANCED_TOKEN");
    if (options->tokens_path && options->token[0] != '\0')
        return error_set(error, ERROR_BAD_REQUEST,
                         "--tokens and --token-file: give one of them; the latter's token is that of an admin");
    if (options->tokens_path || options->token[0] != '\0' || !token || token[0] == '\0')
        return 0;
    return token_read(options->token, token, "LANCED_TOKEN", error);
}

/* Other machines reach a tls+tcp endpoint: it takes all that keeps strangers out. */
static int check_tls(const struct options *options, struct error *error)
{
    const bool has_files = options->certificate && options->key;
    const struct endpoint *tls = NULL;
    for (int i = options->endpoint_count - 1; i >= 0; i--)
        if (options->endpoints[i].is_tls)
            tls = &options->endpoints[i];
    if (!tls)
        return !options->certificate && !options->key
                   ? 0
                   : error_set(error, ERROR_BAD_REQUEST, "--cert and --key: are for a tls+tcp:// endpoint, not for %s",
                               options->endpoints[0].url);
    if (!has_files)
        return error_set(error, ERROR_BAD_REQUEST,
                         "endpoint %s: needs --cert FILE and --key FILE; lancectl ca makes them", tls->url);
    if (!options->tokens_path && options->token[0] == '\0')
        return error_set(error, ERROR_BAD_REQUEST,
                         "endpoint %s: other machines reach it, so that it needs --tokens FILE or --token-file FILE",
                         tls->url);
    return 0;
}

int options_read(struct options *out, enum options_action *action, int argc, char **argv, struct error *error)
{
    *out = (struct options){
        .blob_bytes = UINT64_C(256) << 20,
        .prefix_cache_bytes = UINT64_C(1) << 30,
        .jobs = {.queue = 64, .queue_bytes = UINT64_C(1) << 30, .results = 64, .result_bytes = UINT64_C(1) << 30,
                 .result_seconds = 600},
        .journal = {.result_bytes = UINT64_C(2) << 30, .result_seconds = 7 * 86400, .cache_bytes = NOT_SAID},
        .save_seconds = 30,
        .models_resident = 1,
        .calibrate_seconds = 300,
        .log_level = LOG_LEVEL_INFO,
    };
    *action = OPTIONS_RUN;
    int status = 0;
    opterr = 0;
    optind = 1;
    int code;
    while (status == 0 && (code = command_line_next(argc, argv, ":", long_options, "lanced", error)) != -1) {
        if (code == OPTION_HELP || code == OPTION_VERSION) {
            fputs(code == OPTION_HELP ? usage : "lanced " LANCED_VERSION "\n", stdout);
            *action = OPTIONS_EXIT;
            return 0;
        }
        status = code == '?' ? ERROR_BAD_REQUEST : read_option(out, code, optarg, error);
    }
    if (status == 0 && optind < argc)
        status = error_set(error, ERROR_BAD_REQUEST, "\"%s\": lanced takes options only; did you mean --model %s?",
                           argv[optind], argv[optind]);
    const struct offered_models offered = offered_of(out);
    for (int i = 0; status == 0 && i < out->model_folder_count; i++)
        status = offered_add_folder(&offered, out->model_folders[i], error);
    if (status == 0 && out->list_models)
        return 0;
    if (out->journal.cache_bytes == NOT_SAID)
        out->journal.cache_bytes = out->state_folder ? CACHE_BYTES : 0;
    if (status == 0)
        status = settle_token(out, error);
    if (status == 0 && out->calibrate_file)
        status = check_calibration(out, error);
    if (status == 0 && out->check)
        return 0;
    if (status == 0 && out->model_count == 0 && out->odd_model.code != 0) {
        *error = out->odd_model;
        status = error->code;
    }
    if (status == 0 && out->model_count == 0)
        status = error_set(error, ERROR_BAD_REQUEST,
                           out->model_folder_count > 0 ? "no model: there is no checkpoint in the folder of --models"
                                                       : "no model: give the checkpoint's folder with --model DIR; "
                                                         "see lanced --help");
    if (status == 0 && out->endpoint_count == 0)
        status = add_endpoint(out, NULL, error);
    return status != 0 ? status : check_tls(out, error);
}
