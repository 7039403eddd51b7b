/* Tests of daemon/engine/model/checkpoint/open.c and what it stands on: the published kinds open, what is missing is
 * listed in one message, and files that do not fit together are refused with the reason.
 *
 * Every test works on a folder of symbolic links to one of the demo models, in which it spoils something. */
#include "daemon/engine/model/checkpoint/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mapped_file.h"

static const char bf16[] = "demo/lance-demo", awq[] = "demo/lance-demo-awq", awq64[] = "demo/lance-demo-awq64",
                  nvfp4[] = "demo/lance-demo-nvfp4";

static char root[] = "/tmp/lance-checkpoint-XXXXXX"; /* of this test program */
static char model[64];                               /* of the current test: ROOT/N/Lance_3B */

static int run_command(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run_command(const char *format, ...)
{
    char command[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return system(command);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return run_command("rm -r %s", root);
}

/* A model folder of links to all the files of a demo model. */
static void use(const char *demo)
{
    static int number;
    snprintf(model, sizeof model, "%s/%d/Lance_3B", root, number++);
    assert_int_equal(run_command("mkdir -p %s && cp -rLs \"$PWD\"/%s/* %s/", model, demo, model), 0);
}

/* Replace the link NAME by a copy of the file, which can then be changed. */
static void own(const char *name)
{
    assert_int_equal(
        run_command("cd %s && { [ ! -L %s ] || cp -L --remove-destination \"$(readlink -f %s)\" %s; } && chmod u+w %s",
                    model, name, name, name, name),
        0);
}

static void leave_out(const char *name)
{
    assert_int_equal(run_command("rm -r %s/%s", model, name), 0);
}

/* Replace text in a (JSON) file of the model folder. */
static void edit(const char *name, const char *from, const char *to)
{
    own(name);
    assert_int_equal(
        run_command("grep -q '%s' %s/%s && sed -i 's#%s#%s#' %s/%s", from, model, name, from, to, model, name), 0);
}

/* Give a key of one weight's entry in awq_meta.json another value. */
static void edit_of_weight(const char *weight, const char *key, const char *value)
{
    own("awq_meta.json");
    assert_int_equal(run_command("sed -i '/\"%s.weight\"/,/}/ s#\"%s\": [^,]*#\"%s\": %s#' %s/awq_meta.json", weight,
                                 key, key, value, model),
                     0);
}

static struct checkpoint *open_model(void)
{
    struct error error = {0};
    struct checkpoint *checkpoint;
    if (checkpoint_open(&checkpoint, &(struct checkpoint_options){.model_dir = model}, &error))
        fail_msg("%s", error.text);
    return checkpoint;
}

/* The hash of the model's files. */
static void identify(char hash[65], const char *cache_folder)
{
    struct error error = {0};
    struct checkpoint *checkpoint;
    const struct checkpoint_options options = {.model_dir = model, .identifies = true, .cache_folder = cache_folder};
    if (checkpoint_open(&checkpoint, &options, &error) || checkpoint_identify(checkpoint, &error))
        fail_msg("%s", error.text);
    strcpy(hash, checkpoint_hash(checkpoint));
    checkpoint_close(checkpoint);
}

static const char *open_error(const struct checkpoint_options *options)
{
    static struct error error;
    struct checkpoint *checkpoint = NULL;
    int result = checkpoint_open(&checkpoint, options, &error);
    if (!result || checkpoint)
        fail_msg("opened, but should not");
    assert_true(result == ERROR_BAD_FILE || result == ERROR_UNSUPPORTED);
    return error.text;
}

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("says: %s\n  not: %s", text, part);
}

static void assert_refused(const char *message)
{
    assert_says(open_error(&(struct checkpoint_options){.model_dir = model}), message);
}

/* Write a safetensors file again, with changes to its tensors. */
typedef bool (*change)(struct tensor_view *tensor); /* false: leave it out */

static void rewrite(const char *name, change change_tensor)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", model, name);
    own(name);
    struct error error = {0};
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path, &error), 0);
    struct tensor_view *tensors = calloc(safetensors_count(file), sizeof *tensors);
    size_t count = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        tensors[count] = *safetensors_at(file, i);
        count += change_tensor(&tensors[count]);
    }
    void *data;
    uint64_t bytes;
    if (safetensors_write(&data, &bytes, tensors, count, NULL, NULL, 0, &error))
        fail_msg("%s", error.text);
    safetensors_close(file);
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(out);
    free(data);
    free(tensors);
}

/* --- what opens -------------------------------------------------------------------------- */

static void every_published_kind_is_recognised(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *kind;
    } cases[] = {{bf16, "bf16"}, {awq, "awq-int4-g128"}, {awq64, "awq-int4-g64"}, {nvfp4, "nvfp4"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        use(cases[i].folder);
        struct checkpoint *checkpoint = open_model();
        assert_string_equal(checkpoint_kind(checkpoint), cases[i].kind);
        assert_string_equal(checkpoint_warnings(checkpoint), "");
        assert_true(checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
        checkpoint_close(checkpoint);
    }
}

static void the_configuration_comes_from_files_and_shapes(void **state)
{
    (void)state;
    use(bf16);
    struct checkpoint *checkpoint = open_model();
    const struct lance_config *c = checkpoint_config(checkpoint);
    assert_int_equal(c->hidden_size, 128);
    assert_int_equal(c->layers, 4);
    assert_int_equal(c->heads, 4);
    assert_int_equal(c->kv_heads, 2);
    assert_int_equal(c->head_dim, 32);
    assert_int_equal(c->intermediate_size, 384);
    assert_int_equal(c->vocab_size, 1024);
    assert_true(c->rope_theta == 100.0 && c->rms_norm_eps == 1e-6f);
    assert_true(c->mrope_section[0] == 2 && c->mrope_section[1] == 3 && c->mrope_section[2] == 11);
    assert_int_equal(c->tokens_per_second, 2);
    assert_int_equal(c->spatial_merge_size, 2);
    /* <|im_start|>, though llm_config.json says that bos is <|endoftext|> */
    assert_int_equal(c->bos_token_id, 663);
    assert_int_equal(c->eos_token_id, 664);
    assert_int_equal(c->vision_start_token_id, 671);
    assert_int_equal(c->vision_end_token_id, 672);
    assert_int_equal(c->video_token_id, 675);
    assert_true(c->vit.present && c->vit.depth == 4 && c->vit.hidden_size == 128 && c->vit.window_size == 56);
    assert_true(c->vit.full_attention_block_count == 2 && c->vit.full_attention_blocks[1] == 3);
    assert_true(c->vae.present && c->vae.latent_channels == 48 && c->vae.encoder_dim == 16 && c->vae.decoder_dim == 16);
    checkpoint_close(checkpoint);
}

static void position_tables_follow_the_configuration(void **state)
{
    (void)state;
    static const struct {
        const char *edited;
        bool float32;
    } cases[] = {
        {"\"position_tables\": \"bfloat16\"", false}, {"\"position_tables\": \"float32\"", true}, {"\"x\": 0", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        use(bf16);
        edit("llm_config.json", "\"position_tables\": \"float32\"", cases[i].edited);
        struct checkpoint *checkpoint = open_model();
        assert_int_equal(checkpoint_config(checkpoint)->tables_float32, cases[i].float32);
        checkpoint_close(checkpoint);
    }
    use(bf16);
    edit("llm_config.json", "\"position_tables\": \"float32\"", "\"position_tables\": \"float16\"");
    assert_refused("\"position_tables\" must be");
}

static void token_ids_that_the_configuration_lacks_come_from_the_tokenizer(void **state)
{
    (void)state;
    use(bf16);
    edit("llm_config.json", "\"video_token_id\": 675,", "");
    struct checkpoint *checkpoint = open_model();
    assert_int_equal(checkpoint_config(checkpoint)->video_token_id, 675);
    checkpoint_close(checkpoint);
}

static void tensors_of_all_files_are_found_by_name(void **state)
{
    (void)state;
    use(bf16);
    struct checkpoint *checkpoint = open_model();
    assert_non_null(checkpoint_tensor(checkpoint, "language_model.model.norm.weight"));
    assert_non_null(checkpoint_tensor(checkpoint, "vit_model.merger.ln_q.weight"));
    assert_non_null(checkpoint_tensor(checkpoint, "vae.decoder.conv1.weight"));
    assert_null(checkpoint_tensor(checkpoint, "decoder.conv1.weight"));
    assert_null(checkpoint_tensor(checkpoint, "latent_pos_embed.pos_embed")); /* computed, never read */
    checkpoint_close(checkpoint);
}

static void linears_convolutions_and_vectors_are_handed_out_with_checked_shapes(void **state)
{
    (void)state;
    use(bf16);
    struct error error = {0};
    struct checkpoint *checkpoint = open_model();
    struct linear_source linear;
    struct conv_source conv;
    float values[128];
    const char *q = "language_model.model.layers.0.self_attn.q_proj";
    assert_int_equal(checkpoint_linear(checkpoint, q, 128, 128, &linear, &error), 0);
    assert_true(linear.format == WEIGHT_BF16 && linear.bias && linear.bias_format == WEIGHT_BF16);
    assert_int_equal(checkpoint_linear(checkpoint, q, 128, 64, &linear, &error), ERROR_BAD_FILE);
    assert_says(error.text, "q_proj.weight\" has shape [128, 128] where [128, 64] is needed");
    assert_int_equal(checkpoint_linear(checkpoint, "nothing", 1, 1, &linear, &error), ERROR_BAD_FILE);
    assert_says(error.text, "\"nothing.weight\" is missing");
    /* A 1x1 convolution and the ViT's patch embedding are matrices, too. */
    assert_int_equal(checkpoint_linear(checkpoint, "vit_model.patch_embed.proj", 128, 3 * 2 * 14 * 14, &linear, &error),
                     0);
    assert_null(linear.bias);
    assert_int_equal(checkpoint_conv(checkpoint, "vae.decoder.conv1", &conv, &error), 0);
    assert_true(conv.out_channels == 64 && conv.in_channels == 48 && conv.kernel_t == 3 && conv.kernel_w == 3 &&
                conv.bias);
    assert_int_equal(checkpoint_conv(checkpoint, "vae.decoder.middle.1.proj", &conv, &error), 0);
    assert_true(conv.kernel_t == 1 && conv.kernel_h == 1);
    assert_int_equal(checkpoint_conv(checkpoint, q, &conv, &error), ERROR_BAD_FILE);
    assert_int_equal(checkpoint_vector(checkpoint, "language_model.model.norm.weight", 128, values, &error), 0);
    assert_true(values[0] > 0);
    assert_int_equal(checkpoint_vector(checkpoint, "language_model.model.norm.weight", 127, values, &error),
                     ERROR_BAD_FILE);
    checkpoint_close(checkpoint);
}

static void four_bit_linears_carry_codes_scales_and_group_size(void **state)
{
    (void)state;
    struct error error = {0};
    struct linear_source q;
    const char *name = "language_model.model.layers.1.mlp_moe_gen.down_proj";
    use(awq);
    struct checkpoint *checkpoint = open_model();
    assert_int_equal(checkpoint_linear(checkpoint, name, 128, 384, &q, &error), 0);
    assert_true(q.format == WEIGHT_AWQ_INT4 && q.group_size == 128 && q.data && q.scales && q.zeros && !q.bias);
    checkpoint_close(checkpoint);
    use(nvfp4);
    checkpoint = open_model();
    assert_int_equal(checkpoint_linear(checkpoint, name, 128, 384, &q, &error), 0);
    assert_true(q.format == WEIGHT_NVFP4 && q.group_size == 16 && q.data && q.scales && !q.scales_fp8);
    assert_true(q.tensor_scale == 1.0f);
    checkpoint_close(checkpoint);
}

static bool without_bf16_scales(struct tensor_view *tensor)
{
    return !strstr(tensor->name, ".scales_bf16");
}

static void nvfp4_without_bf16_scales_uses_the_fp8_ones_and_warns(void **state)
{
    (void)state;
    struct error error = {0};
    struct linear_source q;
    use(nvfp4);
    struct checkpoint *checkpoint = open_model();
    uint64_t bytes = checkpoint_bytes(checkpoint);
    checkpoint_close(checkpoint);
    rewrite("nvfp4_state_dict.safetensors", without_bf16_scales);
    checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "nvfp4-fp8-scales");
    assert_says(checkpoint_warnings(checkpoint), "FP8 scales are used");
    assert_true(checkpoint_bytes(checkpoint) < bytes);
    assert_int_equal(checkpoint_linear(checkpoint, "language_model.model.layers.0.mlp.up_proj", 384, 128, &q, &error),
                     0);
    assert_true(!q.scales && q.scales_fp8);
    checkpoint_close(checkpoint);
}

/* In the place of one of up's scales, what FP8 scales are multiplied by. */
static bool replaced_by_tensor_scale(struct tensor_view *tensor, const char *scales)
{
    static const float half = 0.5f;
    char name[128];
    snprintf(name, sizeof name, "language_model.model.layers.0.mlp.up_proj.%s", scales);
    if (!strcmp(tensor->name, name))
        *tensor = (struct tensor_view){.name = "language_model.model.layers.0.mlp.up_proj.tensor_scale",
            .dtype = DTYPE_F32,
                                       .dimensions = 1, .shape = {1}, .data = &half, .bytes = sizeof half};
    return true;
}

static bool whole_and_tensor_scale(struct tensor_view *tensor)
{
    return replaced_by_tensor_scale(tensor, "scales_fp8");
}
static bool fp8_and_tensor_scale(struct tensor_view *tensor) { return replaced_by_tensor_scale(tensor, "scales_bf16"); }

static void a_tensor_scale_is_of_fp8_scales_alone(void **state)
{
    (void)state;
    const char *name = "language_model.model.layers.0.mlp.up_proj";
    struct error error = {0};
    struct linear_source q;
    use(nvfp4);
    rewrite("nvfp4_state_dict.safetensors", whole_and_tensor_scale);
    struct checkpoint *checkpoint = open_model();
    assert_int_equal(checkpoint_linear(checkpoint, name, 384, 128, &q, &error), 0);
    assert_true(q.scales && !q.scales_fp8 && q.tensor_scale == 1.0f);
    checkpoint_close(checkpoint);
    use(nvfp4);
    rewrite("nvfp4_state_dict.safetensors", fp8_and_tensor_scale);
    checkpoint = open_model();
    assert_int_equal(checkpoint_linear(checkpoint, name, 384, 128, &q, &error), 0);
    assert_true(!q.scales && q.scales_fp8 && q.tensor_scale == 0.5f);
    checkpoint_close(checkpoint);
}

static float *widened[512];
static size_t widened_count;

static bool to_float32(struct tensor_view *tensor)
{
    struct error error;
    float *values = malloc((size_t)tensor_elements(tensor) * sizeof *values + 1);
    assert_int_equal(tensor_to_float(tensor, values, &error), 0);
    widened[widened_count++] = values;
    tensor->dtype = DTYPE_F32;
    tensor->bytes = tensor_elements(tensor) * sizeof *values;
    tensor->data = values;
    return true;
}

static void a_float32_release_opens(void **state)
{
    (void)state;
    use(bf16);
    rewrite("model.safetensors", to_float32);
    while (widened_count)
        free(widened[--widened_count]);
    struct checkpoint *checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "f32");
    checkpoint_close(checkpoint);
}

static bool first_half(struct tensor_view *tensor)
{
    return strstr(tensor->name, "layers.0.") || strstr(tensor->name, "layers.1.");
}

static bool second_half(struct tensor_view *tensor)
{
    return !first_half(tensor);
}

static void a_model_in_shards_opens(void **state)
{
    (void)state;
    use(bf16);
    own("model.safetensors");
    assert_int_equal(run_command("cd %s && cp model.safetensors a.safetensors && mv model.safetensors b.safetensors && "
                                 "echo '{\"weight_map\": {\"x\": \"a.safetensors\", \"y\": \"b.safetensors\", "
                                 "\"z\": \"a.safetensors\"}}' > model.safetensors.index.json",
                                 model),
                     0);
    assert_refused("is in two files");
    rewrite("a.safetensors", first_half);
    rewrite("b.safetensors", second_half);
    struct checkpoint *checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "bf16");
    checkpoint_close(checkpoint);
    leave_out("b.safetensors");
    assert_refused("names \"b.safetensors\", which is not in the folder");
    edit("model.safetensors.index.json", "b.safetensors", "../b.safetensors");
    assert_refused("must name files of its own folder");
}

static const char *renamed_prefix;
static char renamed[512][128];
static size_t renamed_count;

static bool with_prefix(struct tensor_view *tensor)
{
    snprintf(renamed[renamed_count], sizeof *renamed, "%s%s", renamed_prefix, tensor->name);
    tensor->name = renamed[renamed_count++];
    return true;
}

static void the_main_file_may_hold_the_vit(void **state)
{
    (void)state;
    use(bf16);
    assert_int_equal(
        run_command("cd %s && cp -L Qwen2.5-VL-ViT/vit.safetensors b.safetensors && chmod u+w b.safetensors && "
                    "rm -r Qwen2.5-VL-ViT && mv model.safetensors a.safetensors && "
                    "echo '{\"weight_map\": {\"x\": \"a.safetensors\", \"y\": \"b.safetensors\"}}' > "
                    "model.safetensors.index.json",
                    model),
        0);
    renamed_prefix = "vit_model.";
    rewrite("b.safetensors", with_prefix);
    struct checkpoint *checkpoint = open_model(); /* its configuration: vision_config in llm_config.json */
    assert_true(checkpoint_can_see(checkpoint));
    assert_non_null(checkpoint_tensor(checkpoint, "vit_model.merger.ln_q.weight"));
    checkpoint_close(checkpoint);
}

static void vae_and_vit_are_found_beside_the_folder(void **state)
{
    (void)state;
    use(bf16);
    assert_int_equal(run_command("cd %s && mv Wan2.2_VAE.pth Qwen2.5-VL-ViT ..", model), 0);
    struct checkpoint *checkpoint = open_model();
    assert_true(checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    checkpoint_close(checkpoint);
}

static void a_bare_quantised_release_uses_the_official_folder_beside_it(void **state)
{
    (void)state;
    use(bf16);
    char official[64];
    strcpy(official, model);
    assert_int_equal(run_command("cd %s && mv Wan2.2_VAE.pth Qwen2.5-VL-ViT ..", model), 0);
    assert_int_equal(
        run_command("mkdir %s/../Lance_3B-AWQ && cp \"$PWD\"/%s/awq_* %s/../Lance_3B-AWQ", model, awq, model), 0);
    snprintf(model, sizeof model, "%.50s-AWQ", official);
    struct checkpoint *checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "awq-int4-g128");
    assert_says(checkpoint_directory(checkpoint), "/Lance_3B");
    assert_says(checkpoint_warnings(checkpoint), "the tokenizer is taken from");
    checkpoint_close(checkpoint);
}

static void vae_and_vit_can_be_given(void **state)
{
    (void)state;
    use(bf16);
    assert_int_equal(run_command("cd %s && mkdir ../else && mv Wan2.2_VAE.pth Qwen2.5-VL-ViT ../else", model), 0);
    char folder[100], vae[128], vit[128], gone[128];
    snprintf(folder, sizeof folder, "%s/../else", model);
    snprintf(vae, sizeof vae, "%s/Wan2.2_VAE.pth", folder);
    snprintf(vit, sizeof vit, "%s/Qwen2.5-VL-ViT", folder);
    snprintf(gone, sizeof gone, "%s/gone", folder);
    struct error error = {0};
    struct checkpoint *checkpoint;
    struct checkpoint_options options = {.model_dir = model, .vae_path = vae, .vit_path = vit};
    assert_int_equal(checkpoint_open(&checkpoint, &options, &error), 0);
    assert_true(checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    checkpoint_close(checkpoint);
    char vit_file[160];
    snprintf(vit_file, sizeof vit_file, "%s/vit.safetensors", vit);
    options = (struct checkpoint_options){.model_dir = model, .vae_path = folder, .vit_path = vit_file};
    assert_int_equal(checkpoint_open(&checkpoint, &options, &error), 0);
    assert_true(checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    checkpoint_close(checkpoint);
    options = (struct checkpoint_options){.model_dir = model, .vae_path = gone};
    assert_says(open_error(&options), "VAE: ");
    options = (struct checkpoint_options){.model_dir = model, .vit_path = gone};
    assert_says(open_error(&options), "ViT: ");
}

static void the_hash_is_over_every_byte_of_every_file(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "Qwen2.5-VL-ViT/vit.safetensors",
        "Qwen2.5-VL-ViT/config.json",
                                        "Wan2.2_VAE.pth", "llm_config.json", "vocab.json", "merges.txt",
                                            "tokenizer_config.json"};
    char first[65], other[65], path[160];
    use(bf16);
    identify(first, NULL);
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    use(bf16); /* in another place */
    identify(other, NULL);
    assert_string_equal(other, first);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        use(bf16);
        own(files[i]);
        snprintf(path, sizeof path, "%s/%s", model, files[i]);
        /* A byte that changes nothing of what is read: white space at the end of a text, one bit of a weight. */
        const bool is_text = strstr(files[i], ".json") || strstr(files[i], ".txt");
        FILE *file = fopen(path, is_text ? "ab" : "r+b");
        assert_non_null(file);
        fseek(file, is_text ? 0 : -40000, SEEK_END);
        const int byte = is_text ? ' ' : fgetc(file) ^ 1;
        fseek(file, is_text ? 0 : -40000, SEEK_END);
        fputc(is_text && strstr(files[i], ".txt") ? '\n' : byte, file);
        fclose(file);
        identify(other, NULL);
        if (!strcmp(first, other))
            fail_msg("a byte of %s makes no difference", files[i]);
    }
}

/* --- what is missing ------------------------------------------------------------------------- */

static void everything_that_is_missing_is_in_one_message(void **state)
{
    (void)state;
    use(bf16);
    leave_out("*");
    const char *text = open_error(&(struct checkpoint_options){.model_dir = model});
    static const char *const parts[] = {"model.safetensors", "llm_config.json", "vocab.json",         "merges.txt",
                                        "tokenizer_config.json", "Wan2.2_VAE.pth", "vit.safetensors"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_says(text, parts[i]);
    assert_says(open_error(&(struct checkpoint_options){.model_dir = "/nonexistent"}), "/nonexistent: No such file");
    assert_says(open_error(&(struct checkpoint_options){.model_dir = "Makefile"}), "Makefile: not a folder");
}

static void the_folder_around_checkpoints_is_told_from_one(void **state)
{
    (void)state;
    use(awq);
    char around[sizeof model + 3];
    snprintf(around, sizeof around, "%s/..", model);
    assert_int_equal(run_command("cp -rP %s %s/Another && mkdir %s/Empty", model, around, around), 0);
    assert_says(open_error(&(struct checkpoint_options){.model_dir = around}),
                ": is no checkpoint, but these in it are: Another, Lance_3B; name the folder of one");
}

static void a_coreml_package_is_refused_by_name(void **state)
{
    (void)state;
    use(bf16);
    leave_out("model.safetensors");
    assert_int_equal(run_command("mkdir %s/Lance.mlpackage", model), 0);
    assert_refused("Lance.mlpackage is a CoreML package, whose palettised weights only Apple's libraries read");
    assert_int_equal(run_command("rmdir %s/Lance.mlpackage", model), 0);
}

static void each_missing_file_is_named(void **state)
{
    (void)state;
    static const char *const files[] = {"llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        use(awq);
        leave_out(files[i]);
        char expected[100];
        snprintf(expected, sizeof expected, "missing: %s", files[i]);
        assert_refused(expected);
    }
}

static void without_vae_or_vit_the_other_tasks_remain(void **state)
{
    (void)state;
    use(bf16);
    leave_out("Wan2.2_VAE.pth");
    struct checkpoint *checkpoint = open_model();
    assert_true(!checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    assert_says(checkpoint_warnings(checkpoint),
                "t2i, t2v, i2v, image_edit and video_edit are off; missing: VAE: Wan2.2_VAE.pth");
    checkpoint_close(checkpoint);
    use(bf16);
    leave_out("Qwen2.5-VL-ViT");
    checkpoint = open_model();
    assert_true(checkpoint_can_generate(checkpoint) && !checkpoint_can_see(checkpoint));
    assert_says(checkpoint_warnings(checkpoint), "x2t_image and x2t_video are off; missing: ViT");
    checkpoint_close(checkpoint);
    leave_out("Wan2.2_VAE.pth");
    assert_refused("no task is possible; missing: VAE");
}

static bool without_generation(struct tensor_view *tensor)
{
    return !strstr(tensor->name, "_moe_gen") && !strstr(tensor->name, "vae") && !strstr(tensor->name, "time_embedder");
}

static void weights_for_understanding_only_open(void **state)
{
    (void)state;
    use(bf16);
    rewrite("model.safetensors", without_generation);
    struct checkpoint *checkpoint = open_model();
    assert_true(!checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    assert_says(checkpoint_warnings(checkpoint), "missing: weights for generation");
    checkpoint_close(checkpoint);
}

static bool without_some(struct tensor_view *tensor)
{
    return !strstr(tensor->name, "layers.2.self_attn.o_proj") &&
           !strstr(tensor->name, "layers.1.self_attn.k_proj.bias");
}

static bool without_llm2vae(struct tensor_view *tensor)
{
    return !strstr(tensor->name, "llm2vae");
}

static void single_missing_tensors_are_named(void **state)
{
    (void)state;
    use(bf16);
    rewrite("model.safetensors", without_some);
    assert_refused("weights: missing tensors (2): language_model.model.layers.1.self_attn.k_proj.bias; "
                   "language_model.model.layers.2.self_attn.o_proj");
    use(awq);
    rewrite("awq_state_dict.safetensors", without_llm2vae);
    assert_refused("weights for generation: missing tensors (2): llm2vae; llm2vae.bias");
}

/* --- what does not fit --------------------------------------------------------------------------- */

static bool transposed_gate(struct tensor_view *tensor)
{
    if (!strcmp(tensor->name, "language_model.model.layers.3.mlp.gate_proj.weight")) {
        tensor->shape[0] = 128;
        tensor->shape[1] = 384;
    }
    return true;
}

static bool half_precision(struct tensor_view *tensor)
{
    if (tensor->dtype == DTYPE_BF16)
        tensor->dtype = DTYPE_F16;
    return true;
}

static void tensors_that_do_not_fit_the_configuration_are_refused(void **state)
{
    (void)state;
    use(bf16);
    rewrite("model.safetensors", transposed_gate);
    assert_refused("layers.3.mlp.gate_proj.weight\" has shape [128, 384] where [384, 128] is needed");
    use(bf16);
    rewrite("model.safetensors", half_precision);
    assert_refused("has dtype F16; weights must be BF16 or F32");
    use(bf16);
    edit("llm_config.json", "\"vocab_size\": 1024", "\"vocab_size\": 2048");
    assert_refused("embed_tokens.weight\" has shape [1024, 128] where [2048, 128] is needed");
    use(bf16);
    edit("llm_config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
    assert_refused("more layers than the 3");
    use(bf16);
    edit("Qwen2.5-VL-ViT/config.json", "\"depth\": 4", "\"depth\": 5");
    assert_refused("ViT: missing tensors (12): vit_model.blocks.4.norm1.weight");
}

static void numbers_out_of_range_are_refused_with_file_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"hidden_size\": 128,", "\"hidden_size\": -1,", "llm_config.json: \"hidden_size\" must be a whole number"},
        {"\"hidden_size\": 128,", "\"hidden_size\": 128.5,", "\"hidden_size\" must be a whole number"},
        {"\"hidden_size\": 128,", "\"hidden_size\": 1e99,", "\"hidden_size\" must be a whole number"},
        {"\"hidden_size\": 128,", "\"hidden_size\": \"128\",", "\"hidden_size\" must be a whole number"},
        {"\"hidden_size\"", "\"hidden\"", "\"hidden_size\" is missing"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "does not divide num_attention_heads"},
        {"\"num_attention_heads\": 4", "\"num_attention_heads\": 6", "must make up hidden_size"},
        {"\"rope_theta\": 100.0", "\"rope_theta\": 0", "\"rope_theta\" must be a number"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 2", "\"rms_norm_eps\" must be a number"},
        {"\"mrope_section\"", "\"section\"", "\"mrope_section\" must be three numbers"},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", "\"hidden_act\" is not \"silu\""},
        {"\"video_token_id\": 675", "\"video_token_id\": 1024", "has id 1024, but the vocabulary has 1024 entries"},
        {"{", "[", "llm_config.json: not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        use(bf16);
        edit("llm_config.json", cases[i].from, cases[i].to);
        assert_refused(cases[i].message);
    }
    use(bf16);
    edit("tokenizer_config.json", "<|im_end|>", "<|im_over|>");
    assert_refused("tokenizer_config.json: no token <|im_end|>");
    use(bf16);
    edit("Qwen2.5-VL-ViT/config.json", "\"window_size\": 56", "\"window_size\": 57");
    assert_refused("Qwen2.5-VL-ViT/config.json: \"window_size\" must be a multiple");
    use(bf16);
    edit("Qwen2.5-VL-ViT/config.json", "\"patch_size\": 14", "\"patch_size\": 16");
    assert_refused("Qwen2.5-VL-ViT/config.json: \"patch_size\" is 16; pictures are prepared for patches of 14");
    use(bf16);
    edit("Qwen2.5-VL-ViT/config.json", "\"out_hidden_size\": 128", "\"out_hidden_size\": 256");
    assert_refused("\"out_hidden_size\" differs");
}

static bool one_scale_less(struct tensor_view *tensor)
{
    if (!strcmp(tensor->name, "language_model.model.layers.0.self_attn.q_proj.scales"))
        tensor->dtype = DTYPE_U8, tensor->shape[1] *= 2;
    return true;
}

static bool wide_codes(struct tensor_view *tensor)
{
    if (!strcmp(tensor->name, "language_model.model.layers.0.self_attn.q_proj.qweight"))
        tensor->shape[0] /= 2, tensor->shape[1] *= 2;
    return true;
}

static bool without_zeros(struct tensor_view *tensor)
{
    return strcmp(tensor->name, "language_model.model.layers.0.self_attn.q_proj.zeros") != 0;
}

static void four_bit_tensors_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    use(awq);
    rewrite("awq_state_dict.safetensors", one_scale_less);
    assert_refused("q_proj.scales\" has dtype U8 where BF16 is needed");
    use(awq);
    rewrite("awq_state_dict.safetensors", wide_codes);
    assert_refused("q_proj.qweight\" has shape [64, 128] where [128, 64] is needed");
    use(awq);
    rewrite("awq_state_dict.safetensors", without_zeros);
    assert_refused("q_proj.scales_fp8\" is missing");
    use(awq);
    edit("awq_meta.json", "\"n_bit\": 4", "\"n_bit\": 3");
    assert_refused("\"n_bit\" is not 4, 5 or 8");
    use(awq);
    edit("awq_meta.json", "\"n_bit\": 4", "\"n_bit\": 5");
    assert_refused("q_proj\" should be a weight whose codes are bytes, but is not");
    static const char weight[] = "language_model.model.layers.0.self_attn.k_proj";
    use(awq);
    edit_of_weight(weight, "n_bit", "6");
    assert_refused("\"n_bit\" of language_model.model.layers.0.self_attn.k_proj is not 4, 5 or 8");
    use(awq);
    edit_of_weight(weight, "n_bit", "8");
    assert_refused("\"language_model.model.layers.0.self_attn.k_proj\" should be a weight whose codes are bytes");
    use(awq);
    edit_of_weight(weight, "scheme", "\"sym_int4\"");
    assert_refused("\"scheme\" of language_model.model.layers.0.self_attn.k_proj is \"sym_int4\"; asym_int4, asym");
    use(awq);
    edit("awq_meta.json", "\"scheme\": \"asym_int4_grouped_awq\"", "\"scheme\": \"sym_int6\"");
    assert_refused("\"scheme\" is \"sym_int6\"");
    use(awq);
    edit("awq_meta.json", "\"per_weight\": {", "\"per_weight\": [], \"was\": {");
    assert_refused("\"per_weight\" must be an object");
    use(awq);
    edit("awq_meta.json", "\"group_size\": 128", "\"group_size\": 32");
    assert_refused("should have groups of 32 columns, but its scales are for 128");
    use(awq);
    leave_out("awq_meta.json");
    struct checkpoint *checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "awq-int4-g128");
    assert_says(checkpoint_warnings(checkpoint), "awq_meta.json is missing");
    checkpoint_close(checkpoint);
}

static void four_bit_weights_win_over_the_full_ones_beside_them(void **state)
{
    (void)state;
    use(awq);
    assert_int_equal(run_command("cp -s \"$PWD\"/%s/model.safetensors %s/", bf16, model), 0);
    struct checkpoint *checkpoint = open_model();
    assert_string_equal(checkpoint_kind(checkpoint), "awq-int4-g128");
    assert_says(checkpoint_warnings(checkpoint),
                "awq_state_dict.safetensors is used, model.safetensors in the same folder is not");
    checkpoint_close(checkpoint);
}

static void damaged_files_are_refused_by_their_path(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "Wan2.2_VAE.pth", "Qwen2.5-VL-ViT/vit.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        use(bf16);
        own(files[i]);
        assert_int_equal(run_command("truncate -s -1 %s/%s", model, files[i]), 0);
        assert_refused(files[i]);
        assert_int_equal(run_command("truncate -s 0 %s/%s", model, files[i]), 0);
        assert_refused(files[i]);
        assert_int_equal(run_command("echo 'version https://git-lfs.github.com/spec/v1' > %s/%s", model, files[i]), 0);
        assert_refused("run git lfs pull");
    }
}

static void what_was_put_in_place_of_a_file_is_named(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "Wan2.2_VAE.pth", "llm_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        use(bf16);
        own(files[i]);
        char expected[120];
        assert_int_equal(run_command("echo 'version https://git-lfs.github.com/spec/v1' > %s/%s", model, files[i]), 0);
        snprintf(expected, sizeof expected, "%s: a Git LFS pointer, not the file itself; run git lfs pull", files[i]);
        assert_refused(expected);
        assert_int_equal(run_command("echo '<!DOCTYPE html><title>404</title>' > %s/%s", model, files[i]), 0);
        snprintf(expected, sizeof expected, "%s: an HTML page, not the file itself; download it again", files[i]);
        assert_refused(expected);
    }
}

static void a_vae_of_another_kind_is_refused(void **state)
{
    (void)state;
    use(bf16);
    assert_int_equal(
        run_command("cd %s && rm Wan2.2_VAE.pth && cp -L Qwen2.5-VL-ViT/vit.safetensors Wan2.2_VAE.pth", model), 0);
    assert_refused("Wan2.2_VAE.pth");
    assert_int_equal(run_command("cd %s && mv Wan2.2_VAE.pth Wan2.2_VAE.safetensors", model), 0);
    assert_refused("VAE: missing tensors (6): vae.conv1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_published_kind_is_recognised),
        cmocka_unit_test(the_configuration_comes_from_files_and_shapes),
        cmocka_unit_test(position_tables_follow_the_configuration),
        cmocka_unit_test(token_ids_that_the_configuration_lacks_come_from_the_tokenizer),
        cmocka_unit_test(tensors_of_all_files_are_found_by_name),
        cmocka_unit_test(linears_convolutions_and_vectors_are_handed_out_with_checked_shapes),
        cmocka_unit_test(four_bit_linears_carry_codes_scales_and_group_size),
        cmocka_unit_test(nvfp4_without_bf16_scales_uses_the_fp8_ones_and_warns),
        cmocka_unit_test(a_tensor_scale_is_of_fp8_scales_alone),
        cmocka_unit_test(a_float32_release_opens),
        cmocka_unit_test(a_model_in_shards_opens),
        cmocka_unit_test(the_main_file_may_hold_the_vit),
        cmocka_unit_test(vae_and_vit_are_found_beside_the_folder),
        cmocka_unit_test(a_bare_quantised_release_uses_the_official_folder_beside_it),
        cmocka_unit_test(vae_and_vit_can_be_given),
        cmocka_unit_test(the_hash_is_over_every_byte_of_every_file),
        cmocka_unit_test(everything_that_is_missing_is_in_one_message),
        cmocka_unit_test(the_folder_around_checkpoints_is_told_from_one),
        cmocka_unit_test(a_coreml_package_is_refused_by_name),
        cmocka_unit_test(each_missing_file_is_named),
        cmocka_unit_test(without_vae_or_vit_the_other_tasks_remain),
        cmocka_unit_test(weights_for_understanding_only_open),
        cmocka_unit_test(single_missing_tensors_are_named),
        cmocka_unit_test(tensors_that_do_not_fit_the_configuration_are_refused),
        cmocka_unit_test(numbers_out_of_range_are_refused_with_file_and_key),
        cmocka_unit_test(four_bit_tensors_that_do_not_fit_are_refused),
        cmocka_unit_test(four_bit_weights_win_over_the_full_ones_beside_them),
        cmocka_unit_test(damaged_files_are_refused_by_their_path),
        cmocka_unit_test(what_was_put_in_place_of_a_file_is_named),
        cmocka_unit_test(a_vae_of_another_kind_is_refused),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
