/* make_command.c: see make_command.h. */
#include "tools/lancectl/make_command.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tools/lancectl/complain.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/say.h"
#include "tools/lancectl/submission.h"
#include "tools/media/exif.h"

static const struct task_kind kinds[] = {
    {"t2i", SOURCE_NONE, false, false},           {"t2v", SOURCE_NONE, true, false},
    {"i2v", SOURCE_PICTURE, true, false},         {"image_edit", SOURCE_PICTURE, false, false},
    {"video_edit", SOURCE_VIDEO, true, false},    {"x2t_image", SOURCE_PICTURE, false, true},
    {"x2t_video", SOURCE_VIDEO, false, true},     {"encode", SOURCE_EITHER, false, false},
    {"decode", SOURCE_NONE, false, false},
};

const struct task_kind *task_kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    return NULL;
}

/* Say what the daemon gets, where that is not what the file has. */
static void tell_of_changes(const struct clip *clip, const char *path)
{
    if (clip->orientation > EXIF_UPRIGHT)
        say(stderr,
            "%s: its EXIF wants it %s; it is used as it is stored, as the official code does (--upright turns it)\n",
            path, exif_turn_in_words(clip->orientation));
    if (clip->height != clip->source_height || clip->width != clip->source_width)
        say(stderr, "%s: sent at %dx%d instead of %dx%d, to stay within the daemon's limit for payloads\n", path,
            clip->width, clip->height, clip->source_width, clip->source_height);
    if (clip->frames != clip->source_frames && clip->fps > 0)
        say(stderr, "%s: %d of its %d frames are used, evenly over all of it\n", path, clip->frames,
            clip->source_frames);
    else if (clip->frames != clip->source_frames)
        say(stderr, "%s: the first of its %d pictures is used\n", path, clip->source_frames);
}

enum exit_code task_make(struct session *session, const struct task_wish *wish, const struct arguments *arguments)
{
    struct error error;
    struct clip clip = {0};
    struct latents_file latents = {0};
    const struct task_kind *kind = wish->kind;
    if (wish->source) {
        const struct source source = {.path = wish->source,
                                      .kind = kind ? kind->source : SOURCE_EITHER,
                                      .fps = arguments->fps,
                                      .upright = arguments->upright,
                                      .max_bytes = job_source_limit(session)};
        if (source_read(&clip, &source, &error)) {
            complain(error.code, &error);
            return EXIT_NOT_READ;
        }
        if (!arguments->quiet)
            tell_of_changes(&clip, wish->source);
        if (!arguments->quiet && source.kind == SOURCE_EITHER && clip.fps > 0)
            say(stderr, "%s: looked at as a clip of %d frames\n", wish->source, clip.source_frames);
    }
    if (wish->latents && latents_read(&latents, wish->latents, &error)) {
        complain(error.code, &error);
        clip_free(&clip);
        return EXIT_NOT_READ;
    }
    if (!kind)
        kind = task_kind_of(clip.fps > 0 ? "x2t_video" : "x2t_image");
    struct job job = {.task = kind->name,
                      .prompt = wish->prompt ? wish->prompt : "",
                      .system = wish->system,
                      .source = wish->source ? &clip : NULL,
                      .latents = wish->latents ? &latents : NULL,
                      .keeps_latents = wish->output && output_kind_of(wish->output) == OUTPUT_LATENT,
                      .answers_stdout = kind->answers && !wish->answer,
                      .shows_text = kind->answers && !arguments->json && !wish->answer};
    job_id_make(job.id);
    if (wish->job)
        snprintf(job.id, sizeof job.id, "%s", wish->job);
    enum exit_code exit_code = job_run(session, &job, arguments);
    clip_free(&clip);
    latents_close(&latents);
    if (exit_code != EXIT_OK)
        return exit_code;
    const struct saving saving = {
        .job = job.id, .output = wish->output, .text_is_shown = job.shows_text, .answer = wish->answer};
    return result_save(session, &saving, arguments);
}

enum exit_code task_command(struct session *session, const struct arguments *arguments)
{
    static const char *const tasks[COMMAND_COUNT] = {
        [COMMAND_T2I] = "t2i",         [COMMAND_T2V] = "t2v",
        [COMMAND_I2V] = "i2v",         [COMMAND_EDIT] = "image_edit",
        [COMMAND_VIDEO_EDIT] = "video_edit", [COMMAND_ENCODE] = "encode",
        [COMMAND_DECODE] = "decode",
    };
    struct error error;
    const struct given_parameter *given = arguments_given(arguments, "count");
    const double wanted = given ? given->numbers[0] : 1;
    const int count = wanted > 1 ? (int)fmin(wanted, 1e6) : 1; /* the daemon says what is too many */
    if ((arguments->output && output_check(arguments->output, count, &error)) ||
        (arguments->preview && output_check(arguments->preview, 1, &error))) {
        complain(error.code, &error);
        return EXIT_NOT_WRITTEN;
    }
    const char *name = tasks[arguments->command];
    const bool decodes = arguments->command == COMMAND_DECODE;
    const struct task_wish wish = {.kind = name ? task_kind_of(name) : NULL,
                                   .source = decodes ? NULL : arguments->source,
                                   .latents = decodes ? arguments->source : arguments->init_latent,
                                   .prompt = arguments->operand,
                                   .output = arguments->output,
                                   .job = arguments->job};
    return task_make(session, &wish, arguments);
}
