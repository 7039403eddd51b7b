/* Tests of prompt.c: what the official code packs for every task, with numbers seen in its runs, and words that are
 * awkward for it. */
#include "daemon/engine/model/prompt.h"
#include "daemon/engine/system_prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { IM_START = 151644, IM_END = 151645, VISION_START = 151652, VISION_END = 151653, VIDEO_PAD = 151656 };

static struct tokenizer *tokenizer;
static const struct lance_config config = {
    .tokens_per_second = 2,
    .spatial_merge_size = 2,
    .video_token_id = VIDEO_PAD,
    .vision_start_token_id = VISION_START,
    .vision_end_token_id = VISION_END,
    .bos_token_id = IM_START,
    .eos_token_id = IM_END,
};

static int open_tokenizer(void **state)
{
    (void)state;
    struct error error;
    return tokenizer_open(&tokenizer, "tests/golden/data/tiny/downloads/Lance_3B", &error);
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static struct prompt *pack(const char *system, const char *text, struct token_grid vit, struct token_grid reference,
                           struct token_grid target)
{
    const struct prompt_request request = {system, text, NULL, vit, reference, target};
    struct prompt *prompt;
    struct error error;
    if (prompt_pack(&prompt, tokenizer, &config, &request, &error))
        fail_msg("%s", error.text);
    return prompt;
}

static const struct token_grid none = {0, 0, 0};

static void assert_splits(const struct prompt *prompt, int count, const int *lengths)
{
    assert_int_equal(prompt->split_count, count);
    for (int i = 0, start = 0; i < count; i++) {
        assert_int_equal(prompt->splits[i].start, start);
        assert_int_equal(prompt->splits[i].length, lengths[i]);
        start += lengths[i];
    }
}

static void assert_position(int32_t *const positions[3], int token, int t, int h, int w)
{
    assert_int_equal(positions[0][token], t);
    assert_int_equal(positions[1][token], h);
    assert_int_equal(positions[2][token], w);
}

static void a_picture_prompt_is_head_caption_tail_and_target(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_T2I, true), "A cat holds a poster with rainbow text \"STOP\"", none,
                            none, (struct token_grid){1, 8, 8});
    static const int32_t head[] = {IM_START, 8948, 198, 74785, 279, 2168},
                         tail[] = {IM_END, 198, IM_START, 77091, 198, VISION_START};
    assert_splits(p, 4, (int[]){34, 11, 5, 66});
    assert_int_equal(p->prefix_splits, 3);
    assert_memory_equal(p->ids, head, sizeof head);
    assert_memory_equal(p->ids + 45, tail, sizeof tail);
    assert_int_equal(p->splits[1].modality, MODALITY_CAPTION);
    assert_int_equal(p->splits[3].attention, SPLIT_NOISE);
    assert_position(p->positions, 51, 51, 51, 51);
    assert_position(p->positions, 114, 51, 58, 58);
    assert_position(p->positions, 115, 59, 59, 59);
    assert_position(p->uncond_positions, 45, 34, 34, 34);
    assert_position(p->uncond_positions, 50, 39, 39, 39);
    assert_position(p->uncond_positions, 115, 48, 48, 48);
    prompt_free(p);
}

static void a_clip_advances_two_positions_a_frame(void **state)
{
    (void)state;
    struct prompt *p =
        pack(system_prompt(LANCE_I2V, true), "The disc drifts to the right while the camera holds still.", none, none,
             (struct token_grid){3, 14, 19});
    assert_splits(p, 4, (int[]){40, 13, 5, 800});
    assert_position(p->positions, 59, 59, 59, 59);
    assert_position(p->positions, 59 + 14 * 19, 61, 59, 59);
    assert_position(p->positions, 59 + 3 * 14 * 19 - 1, 63, 72, 77);
    assert_position(p->positions, 59 + 3 * 14 * 19, 78, 78, 78);
    prompt_free(p);
}

static void an_edit_moves_the_vit_block_and_puts_the_target_where_the_reference_is(void **state)
{
    (void)state;
    struct prompt *p =
        pack(system_prompt(LANCE_IMAGE_EDIT, true), "Remove the red disc from the picture.",
             (struct token_grid){1, 6, 9}, (struct token_grid){1, 14, 19}, (struct token_grid){1, 14, 19});
    assert_splits(p, 6, (int[]){64, 56, 268, 8, 5, 268});
    static const enum split_attention attention[] = {SPLIT_CAUSAL, SPLIT_FULL,   SPLIT_FULL_NOISE,
                                                     SPLIT_CAUSAL, SPLIT_CAUSAL, SPLIT_NOISE};
    static const enum modality modality[] = {MODALITY_TEMPLATE, MODALITY_VIT,      MODALITY_REFERENCE,
                                             MODALITY_CAPTION,  MODALITY_TEMPLATE, MODALITY_TARGET};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(p->splits[i].attention, attention[i]);
        assert_int_equal(p->splits[i].modality, modality[i]);
    }
    assert_position(p->positions, 64, 1000, 64, 64);
    assert_position(p->positions, 65, 1001, 65, 65);
    assert_position(p->positions, 119, 1010, 74, 74);
    assert_position(p->positions, 120, 75, 75, 75);
    assert_position(p->positions, 387, 95, 95, 95);
    assert_position(p->positions, 388, 96, 96, 96);
    for (int axis = 0; axis < 3; axis++) {
        assert_memory_equal(p->positions[axis] + 401, p->positions[axis] + 120, 268 * sizeof(int32_t));
        assert_memory_equal(p->uncond_positions[axis] + 401, p->positions[axis] + 120, 268 * sizeof(int32_t));
    }
    assert_position(p->uncond_positions, 396, 96, 96, 96);
    prompt_free(p);
}

static void a_question_ends_where_the_answer_begins(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_X2T_VIDEO, true), "Which way does the disc move?",
                            (struct token_grid){5, 8, 8}, none, none);
    static const int32_t question[] = {23085, 1616, 1558, 279, 2560, 3271, 30, IM_END, 198, IM_START, 77091, 198};
    assert_splits(p, 3, (int[]){17, 322, 12});
    assert_int_equal(p->prefix_splits, 3);
    assert_memory_equal(p->ids + 339, question, sizeof question);
    assert_position(p->positions, 17, 17, 17, 17);
    assert_position(p->positions, 338, 27, 27, 27);
    assert_position(p->positions, 350, 39, 39, 39);
    prompt_free(p);
}

static void a_plain_caption_has_no_question(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_X2T_IMAGE, false), "", (struct token_grid){1, 9, 6}, none, none);
    static const int32_t tail[] = {IM_END, 198, IM_START, 77091, 198};
    assert_splits(p, 3, (int[]){27, 56, 5});
    assert_memory_equal(p->ids + 83, tail, sizeof tail);
    prompt_free(p);
}

/* "user" is a word of the template: the official search finds it there and the unconditional branch leaves that out. */
static void a_caption_that_occurs_in_the_template_is_found_there(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_T2I, true), "user", none, none, (struct token_grid){1, 4, 4});
    assert_splits(p, 4, (int[]){32, 1, 7, 18});
    assert_int_equal(p->ids[32], 872);
    assert_int_equal(p->modalities[32], MODALITY_CAPTION);
    assert_int_equal(p->modalities[34], MODALITY_TEMPLATE);
    prompt_free(p);
}

/* The official code raises an error here. */
static void a_caption_that_begins_with_a_line_break_is_every_token_it_touches(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_T2I, true), "\nblue square", none, none, (struct token_grid){1, 4, 4});
    assert_int_equal(p->split_count, 4);
    assert_int_equal(p->splits[0].length, 33);
    assert_int_equal(p->splits[1].modality, MODALITY_CAPTION);
    assert_int_equal(p->ids[p->splits[2].start], IM_END);
    assert_int_equal(p->splits[2].length, 5);
    prompt_free(p);
}

static void special_tokens_in_the_text_do_not_make_blocks(void **state)
{
    (void)state;
    struct prompt *p = pack(system_prompt(LANCE_T2I, true), "<|vision_start|><|video_pad|><|vision_end|><|im_end|>",
                            none, none, (struct token_grid){1, 4, 4});
    assert_splits(p, 4, (int[]){34, 4, 5, 18});
    assert_position(p->positions, 35, 35, 35, 35);
    assert_position(p->positions, 44, 44, 44, 44);
    prompt_free(p);
}

static void text_without_end_is_refused(void **state)
{
    (void)state;
    static char text[100001];
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = i % 2 ? ' ' : 'x';
    const struct prompt_request long_bytes = {"", text, NULL, none, none, {1, 4, 4}};
    struct prompt *prompt;
    struct error error;
    assert_int_equal(prompt_pack(&prompt, tokenizer, &config, &long_bytes, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "prompt has 100000 bytes; at most 65536"));
    assert_null(prompt);
    text[PROMPT_MAX_BYTES] = 0;
    assert_int_equal(prompt_pack(&prompt, tokenizer, &config, &long_bytes, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "tokens with its system prompt; at most 8192"));
    assert_null(prompt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_prompt_is_head_caption_tail_and_target),
        cmocka_unit_test(a_clip_advances_two_positions_a_frame),
        cmocka_unit_test(an_edit_moves_the_vit_block_and_puts_the_target_where_the_reference_is),
        cmocka_unit_test(a_question_ends_where_the_answer_begins),
        cmocka_unit_test(a_plain_caption_has_no_question),
        cmocka_unit_test(a_caption_that_occurs_in_the_template_is_found_there),
        cmocka_unit_test(a_caption_that_begins_with_a_line_break_is_every_token_it_touches),
        cmocka_unit_test(special_tokens_in_the_text_do_not_make_blocks),
        cmocka_unit_test(text_without_end_is_refused),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
