/* text_files.c: see text_files.h. Keys and special tokens: as in the official release. */
#include "tools/random-checkpoint/text_files.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/formats/weights.h"

static FILE *create(const char *path, struct error *error)
{
    FILE *file = fopen(path, "wx");
    if (!file)
        error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
    return file;
}

static int finish(FILE *file, const char *path, struct error *error)
{
    const int failed = ferror(file);
    if (!fclose(file) && !failed)
        return 0;
    unlink(path);
    return error_set(error, ERROR_IO, "%s: it could not be written whole", path);
}

/* --- configuration ------------------------------------------------------------------------------ */

static void put_vision(FILE *file, const struct sizes *s)
{
    fprintf(file, "\"depth\": %d, \"hidden_act\": \"silu\", \"hidden_size\": %d, \"intermediate_size\": %d, "
                  "\"num_heads\": %d,\n"
                  "  \"in_channels\": 3, \"in_chans\": 3, \"patch_size\": 14, \"spatial_merge_size\": 2, "
                  "\"spatial_patch_size\": 14,\n"
                  "  \"temporal_patch_size\": 2, \"tokens_per_second\": 2, \"window_size\": 112, "
                  "\"out_hidden_size\": %d,\n"
                  "  \"fullatt_block_indexes\": [", s->vit_depth, s->vit_hidden, s->vit_inter, s->vit_heads, s->hidden);
    for (int i = 0; i < s->vit_full_block_count; i++)
        fprintf(file, "%s%d", i ? ", " : "", s->vit_full_blocks[i]);
    fputs("]", file);
}

int text_write_llm_config(const char *path, const struct sizes *s, struct error *error)
{
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    fprintf(file,
            "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"torch_dtype\": \"bfloat16\",\n"
            " \"hidden_size\": %d, \"num_hidden_layers\": %d, \"intermediate_size\": %d, \"num_attention_heads\": %d,\n"
            " \"num_key_value_heads\": %d, \"max_window_layers\": %d, \"vocab_size\": %d,\n",
            s->hidden, s->layers, s->inter, s->heads, s->kv_heads, s->layers, VOCABULARY);
    fprintf(file, " \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [%d, %d, %d]},\n", s->mrope_section[0],
            s->mrope_section[1], s->mrope_section[2]);
    fputs(" \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"hidden_act\": \"silu\", \"attention_dropout\": 0.0,\n"
          " \"initializer_range\": 0.02, \"max_position_embeddings\": 128000, \"sliding_window\": 32768,\n"
          " \"use_sliding_window\": false, \"tie_word_embeddings\": true, \"use_cache\": true,\n"
          " \"bos_token_id\": 151643, \"eos_token_id\": 151645, \"vision_start_token_id\": 151652,\n"
          " \"vision_end_token_id\": 151653, \"vision_token_id\": 151654, \"image_token_id\": 151655, "
          "\"video_token_id\": 151656,\n"
          " \"vision_config\": {",
          file);
    put_vision(file, s);
    fputs("}}\n", file);
    return finish(file, path, error);
}

int text_write_vit_config(const char *path, const struct sizes *s, struct error *error)
{
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    fputs("{\"model_type\": \"qwen2_5_vl\", ", file);
    put_vision(file, s);
    fputs("}\n", file);
    return finish(file, path, error);
}

int text_write_meta(const char *path, const struct tensor_list *list, enum form form, struct error *error)
{
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    const int nvfp4 = form == FORM_NVFP4, group = nvfp4 ? 16 : form == FORM_AWQ_64 ? 64 : 128;
    const char *size_key = nvfp4 ? "block_size" : "group_size", *bits = nvfp4 ? "" : "\"n_bit\": 4, ";
    const char *scheme = nvfp4 ? "nvfp4_random" : "asym_int4_random";
    fprintf(file, "{%s\"%s\": %d, \"scheme\": \"%s\", %s\"per_weight\": {", bits, size_key, group, scheme,
            nvfp4 ? "\"fp4_lut_pos\": [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], " : "");
    const char *separator = "";
    for (size_t i = 0; i < list->count; i++) {
        const struct random_tensor *tensor = &list->tensors[i];
        const size_t length = strlen(tensor->name), suffix = strlen("." PART_CODES);
        if (length < suffix || strcmp(tensor->name + length - suffix, "." PART_CODES))
            continue;
        fprintf(file, "%s\n \"%.*s.weight\": {\"shape\": [%llu, %llu], %s\"%s\": %d, \"scheme\": \"%s\"}", separator,
                (int)(length - suffix), tensor->name, (unsigned long long)tensor->shape[0],
                2 * (unsigned long long)tensor->shape[1], bits, size_key, group, scheme);
        separator = ",";
    }
    fputs("}}\n", file);
    return finish(file, path, error);
}

/* --- tokenizer -------------------------------------------------------------------------------------- */

enum { BYTES = 256, PAIRS = BYTES * BYTES, FIRST_SPECIAL = 151643 };

/* All bytes, those that begin words first: tokens of three bytes begin with the first ones. */
static int byte_of_rank(int rank)
{
    if (rank == 0)
        return ' ';
    if (rank <= 26)
        return 'a' + rank - 1;
    rank -= 27;
    if (rank < ' ')
        return rank;
    rank++;
    return rank < 'a' ? rank : rank + 26;
}

/* The letter that tokenizer files write for a byte, as UTF-8: printable Latin-1 characters stand for themselves, the
 * other bytes are the letters from U+0100 on. */
static const char *letter_of(int byte, char letter[3])
{
    int code = byte, others = 0;
    for (int b = 0; b <= byte; b++) {
        const int printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        if (b == byte && !printable)
            code = 0x100 + others;
        others += !printable;
    }
    int used = 0;
    if (code >= 0x80)
        letter[used++] = (char)(0xc0 | code >> 6);
    letter[used++] = (char)(code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    letter[used] = '\0';
    return letter;
}

/* The letters of token `id` below FIRST_SPECIAL, cut where its merge puts two tokens
 * together: "" and all for one byte. */
static void token_letters(int id, char left[8], char right[8])
{
    char letter[3];
    left[0] = '\0';
    if (id < BYTES) {
        strcpy(right, letter_of(byte_of_rank(id), letter));
        return;
    }
    const int merge = id - BYTES, pair = merge < PAIRS ? merge : (merge - PAIRS) / BYTES;
    strcpy(left, letter_of(byte_of_rank(pair / BYTES), letter));
    strcpy(right, letter_of(byte_of_rank(pair % BYTES), letter));
    if (merge < PAIRS)
        return;
    strcat(left, right);
    strcpy(right, letter_of(byte_of_rank((merge - PAIRS) % BYTES), letter));
}

static void put_quoted(FILE *file, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        fputc(*text, file);
    }
}

static int write_vocabulary(const char *path, struct error *error)
{
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    for (int id = 0; id < FIRST_SPECIAL; id++) {
        char left[8], right[8];
        token_letters(id, left, right);
        fputs(id ? ", \"" : "{\"", file);
        put_quoted(file, left);
        put_quoted(file, right);
        fprintf(file, "\": %d", id);
    }
    fputs("}\n", file);
    return finish(file, path, error);
}

static int write_merges(const char *path, struct error *error)
{
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    fputs("#version: 0.2\n", file);
    for (int id = BYTES; id < FIRST_SPECIAL; id++) {
        char left[8], right[8];
        token_letters(id, left, right);
        fprintf(file, "%s %s\n", left, right);
    }
    return finish(file, path, error);
}

static int write_tokenizer_config(const char *path, struct error *error)
{
    static const char *const special[] = {
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
        "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
        "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"};
    enum { SPECIAL = sizeof special / sizeof *special, REALLY_SPECIAL = 14 };
    _Static_assert(FIRST_SPECIAL + SPECIAL - 1 == LAST_TOKEN, "the tokenizer's ids end where those of the model do");
    FILE *file = create(path, error);
    if (!file)
        return ERROR_IO;
    fputs("{\"tokenizer_class\": \"Qwen2Tokenizer\", \"model_max_length\": 131072, \"add_prefix_space\": false,\n"
          " \"add_bos_token\": false, \"bos_token\": null, \"unk_token\": null, \"eos_token\": \"<|im_end|>\",\n"
          " \"pad_token\": \"<|endoftext|>\", \"errors\": \"replace\", \"clean_up_tokenization_spaces\": false,\n"
          " \"split_special_tokens\": false, \"additional_special_tokens\": [", file);
    for (int i = 1; i < REALLY_SPECIAL; i++)
        fprintf(file, "%s\"%s\"", i > 1 ? ", " : "", special[i]);
    fputs("],\n \"added_tokens_decoder\": {", file);
    for (int i = 0; i < SPECIAL; i++)
        fprintf(file,
                "%s\n  \"%d\": {\"content\": \"%s\", \"lstrip\": false, \"normalized\": false, \"rstrip\": false, "
                "\"single_word\": false, \"special\": %s}",
                i ? "," : "", FIRST_SPECIAL + i, special[i], i < REALLY_SPECIAL ? "true" : "false");
    fputs("}}\n", file);
    return finish(file, path, error);
}

int text_write_tokenizer(const char *folder, struct error *error)
{
    const struct {
        const char *name;
        int (*write)(const char *path, struct error *error);
    } files[] = {{"vocab.json", write_vocabulary},
                 {"merges.txt", write_merges},
                 {"tokenizer_config.json", write_tokenizer_config}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", folder, files[i].name) >= (int)sizeof path)
            return error_set(error, ERROR_IO, "%s: the path is too long", folder);
        const int result = files[i].write(path, error);
        if (result)
            return result;
    }
    return 0;
}
