/* help.c: see help.h; docs/lancectl.md says the same at more length. */
#include "tools/lancectl/help.h"

static const char *const usage[COMMAND_COUNT] = {
    [COMMAND_T2I] = "lancectl t2i \"a red fox in snow\" -o fox.png           make a picture\n",
    [COMMAND_T2V] = "lancectl t2v \"a fox runs\" -o fox.mp4 --frames 49      make a video\n",
    [COMMAND_I2V] = "lancectl i2v fox.png \"it runs away\" -o run.mp4        a video that begins with a picture\n",
    [COMMAND_EDIT] = "lancectl edit fox.jpg \"make it blue\" -o blue.png      change a picture\n",
    [COMMAND_VIDEO_EDIT] = "lancectl video-edit run.mp4 \"at night\" -o night.mp4   change a video\n",
    [COMMAND_ASK] = "lancectl ask fox.png \"What animal is this?\"           ask about a picture or a video\n",
    [COMMAND_ENCODE] =
        "lancectl encode fox.png -o fox.latent                 latents of a picture or video, for ComfyUI or "
        "--init-latent\n",
    [COMMAND_DECODE] = "lancectl decode fox.latent -o fox.png                 the picture or video of latents\n",
    [COMMAND_RUN] =
        "lancectl run --examples FILE.json -o FOLDER           everything in an example file of the official code\n",
    [COMMAND_GRAPH] =
        "lancectl graph WORKFLOW.json -o FOLDER                run a workflow that ComfyUI exported (API form), "
        "without ComfyUI\n",
    [COMMAND_GRAPHS] =
        "lancectl graphs                                       the same for each line of standard input, for "
        "lance-farm\n",
    [COMMAND_SHEET] =
        "lancectl sheet *.png -o sheet.png                     a contact sheet of pictures and the first frames "
        "of videos\n",
    [COMMAND_CLIP] =
        "lancectl clip *.png -o clip.mp4 --fps 12              pictures and videos one after the other as one video\n",
    [COMMAND_CA] =
        "lancectl ca FOLDER HOST...                            a private CA, and certificates for lanceds that other "
        "machines reach\n",
    [COMMAND_FETCH] =
        "lancectl fetch JOB -o fox.png                         fetch the result of a job that has ended\n",
    [COMMAND_CANCEL] = "lancectl cancel JOB                                   stop a job\n",
    [COMMAND_STATUS] = "lancectl status                                       what the daemon is and does\n",
    [COMMAND_TOP] =
        "lancectl top                                          the same, with its jobs, a screen that follows it\n",
    [COMMAND_JOBS] = "lancectl jobs                                         the jobs that it has, and whose they are\n",
    [COMMAND_HISTORY] =
        "lancectl history --since 7d                           the jobs that it had, newest first (lanced --state)\n",
    [COMMAND_METRICS] =
        "lancectl metrics                                      its counters and times, as Prometheus reads them\n",
    [COMMAND_MODELS] = "lancectl models                                       the models it offers\n",
    [COMMAND_LOAD] = "lancectl load NAME                                    put a model's weights into memory\n",
    [COMMAND_UNLOAD] = "lancectl unload                                       free them\n",
    [COMMAND_SHUTDOWN] =
        "lancectl shutdown [--cancel]                          end the daemon, after its jobs or without them\n",
    [COMMAND_DOCTOR] =
        "lancectl doctor [--model DIR]                         what is installed and missing, what the daemon and "
        "models can do\n",
    [COMMAND_SHOW] =
        "lancectl show fox.png                                 print how a picture, video or latents were made\n",
    [COMMAND_HELP] = "lancectl help COMMAND                                 the options of one command\n",
};

/* A line about an option, by whose name arguments.c knows the commands it is for; without one, the head of the lines
 * that follow. Without a text it is one of parameter_options.h, which explains it. */
static const struct line {
    const char *option, *text;
} lines[] = {
    {NULL, "Pictures and videos\n"},
    {"output", "  -o, --output FILE       .png for a picture; .mp4, .webm, .y4m or FOLDER/ (PNGs) for a video\n"},
    {"count", NULL},
    {"seed", NULL},
    {"steps", NULL},
    {"guidance", NULL},
    {"size", NULL},
    {"frames", NULL},
    {"shift", NULL},
    {"interval", NULL},
    {"negative", NULL},
    {"renorm", NULL},
    {"renorm-min", NULL},
    {"noise", NULL},
    {"positions", NULL},
    {"preview", "  --preview FILE.png      a small picture, rewritten while the job runs\n"},
    {NULL, "Latents\n"},
    {"init-latent", "  -o FILE.latent          the latents instead of the picture or video\n"
                    "  --init-latent FILE      start from latents\n"},
    {"denoise", NULL},
    {"start-step", NULL},
    {"end-step", NULL},
    {"leftover-noise", NULL},
    {"no-noise", NULL},
    {NULL, "Sources\n"},
    {"resolution", NULL},
    {"fps",
     "  --fps X                 frames per second of the source, instead of its own; or a fraction, 24000/1001\n"},
    {"upright", "  --upright               turn pictures as their EXIF asks, which the official code does not\n"},
    {"latent-mean", NULL},
    {"source-seed", NULL},
    {NULL, "Questions\n"},
    {"max-tokens", NULL},
    {"temperature", NULL},
    {"top-k", NULL},
    {"top-p", NULL},
    {"repetition-penalty", NULL},
    {NULL, "Examples\n"},
    {"examples",
     "  --examples FILE.json, --task TASK (where the file does not show it), --root FOLDER (of the paths in it)\n"},
    {NULL, "Workflows\n"},
    {"set", "  --set NODE.INPUT=VALUE  another value for a node's input; the node by its id, or a title that only one "
            "has; may be repeated\n"},
    {"input-dir", "  --input-dir FOLDER      where the files are that the workflow reads (default: beside it)\n"},
    {"dry-run", "  --dry-run               check the workflow and say what would be run\n"},
    {NULL, "Sheets\n"},
    {"columns", "  --columns N             cells in a row (default: as many as there are rows)\n"},
    {"cell", "  --cell PIXELS           the longer side of a cell (default 256)\n"},
    {NULL, "Jobs\n"},
    {"system", NULL},
    {"job", "  --job ID                the job's id (default: random)\n"},
    {"priority", NULL},
    {"wait", "  --wait                  when the daemon's queue is full, wait until there is room\n"},
    {"no-cache", "  --no-cache              make it, also where the daemon has kept the result of the same request\n"},
    {"model", "  --model DIR             when no daemon answers, start a private one with this checkpoint and end it\n"
              "                          afterwards; when one answers, have it use the model of that name\n"},
    {"precision",
     "  --precision P           of the private one's products on the CPU: float32 (default), bf16, or auto: bf16 "
     "where\n"
     "                          the processor is many times faster in it\n"},
    {NULL, "History\n"},
    {"since", "  --since TIME            submitted since: 90m, 12h or 7d ago, or a day, 2026-11-20\n"},
    {"failed", "  --task TASK             of one task; --prompt TEXT: with this in the prompt; --failed: those that "
               "failed alone\n"},
    {NULL, "Following the daemon\n"},
    {"once", "  --once                  one look instead of a screen\n"},
    {NULL, "Certificates\n"},
    {"days", "  --days N                how long those of hosts are good (default 825)\n"},
    {NULL, "Ending the daemon\n"},
    {"cancel", "  --cancel                without its jobs\n"},
    {NULL, "Everywhere\n"},
    {"endpoint", "  --endpoint URL          default: $LANCED_ENDPOINT, else ipc://$XDG_RUNTIME_DIR/lanced/lanced.ipc,\n"
                 "                          else ipc:///tmp/lanced-UID/lanced.ipc\n"},
    {"ca", "  --ca FILE               the CA of a tls+tcp endpoint's certificate (default: $LANCED_CA)\n"},
    {"silence", "  --silence SECONDS       how long a daemon that is there may owe an answer (default: "
                "$LANCED_SILENCE_SECONDS, else 60)\n"},
    {"json", "  --json                  print the answer as JSON\n"},
    {"quiet", "  -q, --quiet             no progress\n"},
    {"help", "  -h, --help; --version\n"},
};
enum { LINES = sizeof lines / sizeof *lines };

static const char sources[] =
    "Pictures are read as PNG, JPEG, WebP; videos as mp4, webm, other video files, y4m, or a folder of pictures.\n"
    "What is not given is left to the daemon, whose defaults are those of the official script.\n";

static const char exit_codes[] =
    "Exit codes: 0 done; 1 the job failed; 2 wrong command line; 3 no daemon; 4 refused by the daemon;\n"
    "5 a file or the output could not be written (the result is still with the daemon); 6 a file could not be read;\n"
    "130 cancelled with Ctrl-C.\n";

static const char doctor_codes[] =
    "Exit codes of doctor: 0 all well; else the gravest of what is not: 3 no daemon answers (well with --model), 4 it\n"
    "refuses this client, 6 a model lacks something, 1 anything else (memory, what is installed, the short run).\n"
    "With --model a lanced is started for that folder alone; the one that answers is left as it is.\n";

static bool applies(const struct line *line, enum command topic)
{
    return topic == COMMAND_HELP || arguments_option_is_for(line->option, topic);
}

/* The lines after a head, up to the next one. The head is printed if any of them is. */
static void print_group(FILE *out, int head, enum command topic)
{
    bool has_head = false;
    for (int i = head + 1; i < LINES && lines[i].option; i++) {
        if (!applies(&lines[i], topic))
            continue;
        if (!has_head)
            fputs(lines[head].text, out);
        has_head = true;
        if (lines[i].text)
            fputs(lines[i].text, out);
        else
            parameter_option_print_help(out, &parameter_options[parameter_option_find(lines[i].option)]);
    }
}

void help_print(FILE *out, enum command topic)
{
    if (topic == COMMAND_HELP)
        fputs("lancectl talks to lanced, the Lance daemon.\n\n", out);
    for (int command = 0; command < COMMAND_COUNT; command++)
        if (usage[command] && (topic == COMMAND_HELP || (int)topic == command))
            fprintf(out, "  %s", usage[command]);
    fputc('\n', out);
    if (topic == COMMAND_HELP)
        fprintf(out, "%s\n", sources);
    for (int i = 0; i < LINES; i++)
        if (!lines[i].option)
            print_group(out, i, topic);
    fputc('\n', out);
    if (topic == COMMAND_HELP)
        fputs(exit_codes, out);
    fputs(topic == COMMAND_HELP || topic == COMMAND_DOCTOR ? doctor_codes
                                                           : "lancectl help lists all commands and the exit codes.\n",
          out);
}
