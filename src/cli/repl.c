/* repl.c - the terminal side of a talk: lines, and the verbs that begin with a slash, which are Ollama's. */
#include "cli/repl.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#ifdef FM_HAVE_LIBEDIT
#include <editline/readline.h>
#endif

/* ---- Lines ---- */

#ifdef FM_HAVE_LIBEDIT
static bool keep_no_history; /* /set nohistory; the line editor's list is the program's too */
#endif

/* Appends a line without its newline; false at the end of the input. */
static bool read_line(fm_str *out, const char *prompt)
{
#ifdef FM_HAVE_LIBEDIT
    char *line = readline(prompt);
    if (!line) return false;
    if (*line && !keep_no_history) add_history(line);
    fm_str_puts(out, line);
    fm_free(NULL, line); /* the C library's, as fm_free(NULL) releases it */
    return true;
#else
    char part[4096];
    fputs(prompt, stdout);
    fflush(stdout);
    while (fgets(part, sizeof part, stdin)) {
        const size_t n = strcspn(part, "\r\n");
        fm_str_put(out, part, n);
        if (part[n]) return true;
    }
    return false;
#endif
}

/* A message: one line, or several between """ and """, which are never verbs; false at the end of the input, or where Ctrl-C
 * dropped it. */
static bool read_message(fm_str *out, bool *fenced)
{
    static const char fence[] = "\"\"\"";
    fm_str line = {0};
    bool more = read_line(&line, ">>> ");
    fm_str_reset(out);
    *fenced = more && line.p && !strncmp(line.p, fence, 3);
    const bool any = more;
    for (size_t skip = *fenced ? 3 : 0; more; skip = 0) {
        const char *part = line.p ? line.p + skip : "", *end = *fenced ? strstr(part, fence) : part + strlen(part);
        fm_str_put(out, part, end ? (size_t)(end - part) : strlen(part));
        if (end) break;
        fm_str_putc(out, '\n');
        fm_str_reset(&line);
        more = read_line(&line, "... ");
    }
    fm_str_free(&line);
    return any && !fm_cli_interrupted(NULL);
}

/* ---- Verbs ---- */

/* Cuts the next word off the line: NULL when there is none. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " ");
    const size_t n = strcspn(word, " ");
    *line = word + n + (word[n] != 0);
    word[n] = 0;
    return n ? word : NULL;
}

static void show_help(void)
{
    puts("/set system TEXT            the system message; begins the talk anew\n"
         "/set parameter NAME VALUE   temperature, top_k, top_p, min_p, repeat_penalty or seed\n"
         "/set verbose | quiet        timings after each answer, or not\n"
         "/set history | nohistory    keep the lines you write for the arrow keys, or not\n"
         "/show info | license        the model\n"
         "/show parameters | system   what is set\n"
         "/show template | modelfile  the chat template; all of it as Ollama writes it\n"
         "/save FILE                  save the state of the talk\n"
         "/load FILE                  go on from a saved state\n"
         "/clear                      forget the talk\n"
         "/bye                        leave (so does Ctrl-D)\n"
         "/? shortcuts                keys\n"
         "\"\"\"                         begins and ends a message of several lines");
}

static void show_shortcuts(void)
{
    puts("Ctrl-C   stop the answer\nCtrl-D   leave\nCtrl-A   to the beginning of the line\nCtrl-E   to its end\n"
         "Ctrl-K   delete to the end\nCtrl-U   delete the line\nCtrl-W   delete the word before\nCtrl-L   clear the screen");
}

/* Tries `p` with one number changed: the sampler knows the ranges. */
static void set_parameter(fm_talk *k, const char *name, const char *value)
{
    fm_sampling p = k->sampling.p;
    fm_error err = {0};
    fm_sampler *sampler;
    double v;
    const struct {
        const char *name;
        float *out;
    } floats[] = {{"temperature", &p.temperature},
                  {"temp", &p.temperature},
                  {"top_p", &p.top_p},
                  {"min_p", &p.min_p},
                  {"repeat_penalty", &p.repeat_penalty}};
    const int least = strcmp(name, "top_k") == 0 ? -1 : 0;
    bool known = false, fits = true;
    if (!fm_parse_f64(fm_view_of(value), &v)) {
        printf("'%s' is not a number\n", value);
        return;
    }
    for (size_t i = 0; i < FM_COUNT(floats); i++)
        if (!strcmp(name, floats[i].name)) *floats[i].out = (float)v, known = true;
    if (!strcmp(name, "top_k")) known = true, fits = v >= least && v <= 1 << 30, p.top_k = fits ? (int)v : 0;
    if (!strcmp(name, "seed")) known = true, fits = fm_parse_u64(fm_view_of(value), &p.seed);
    if (!fits) {
        printf("%s is '%s', expected a whole number that is not below %d, nor too large\n", name, value, least);
    } else if (!known) {
        printf("'%s' is none of temperature, top_k, top_p, min_p, repeat_penalty, seed\n", name);
    } else if (fm_sampler_open(&sampler, &p, fm_model_get_info(k->model).vocab, k->t, NULL, &err) != FM_OK) {
        puts(err.text);
    } else {
        fm_sampler_free(sampler);
        k->sampling.p = p;
    }
}

static void set_history(bool on)
{
#ifdef FM_HAVE_LIBEDIT
    keep_no_history = !on;
    if (!on) clear_history();
#else
    if (on) puts("this build has no line editor, so lines are not kept");
#endif
}

/* Ollama's words for what is always so here, or never: false when it is none of them. */
static bool set_nothing(const char *word)
{
    static const char *const words[][2] = {
        {"wordwrap", "lines are wrapped by the terminal"},
        {"nowordwrap", "lines are wrapped by the terminal"},
        {"format", "answers cannot be held to a format; ask for it in the message"},
        {"noformat", NULL},
        {"think", "these models have no thinking to show apart"},
        {"nothink", NULL},
    };
    for (size_t i = 0; i < FM_COUNT(words); i++) {
        if (strcmp(word, words[i][0]) != 0) continue;
        if (words[i][1]) puts(words[i][1]);
        return true;
    }
    return false;
}

static void verb_set(fm_talk *k, char *rest)
{
    char *word = next_word(&rest), *name = word ? next_word(&rest) : NULL, *value = name && *rest ? rest : NULL;
    if (word && !strcmp(word, "verbose")) {
        k->verbose = true;
    } else if (word && !strcmp(word, "quiet")) {
        k->verbose = false;
    } else if (word && (!strcmp(word, "history") || !strcmp(word, "nohistory"))) {
        set_history(word[0] == 'h');
    } else if (word && !strcmp(word, "parameter") && value) {
        set_parameter(k, name, value);
    } else if (word && !strcmp(word, "system")) {
        fm_str_reset(&k->system);
        if (name) fm_str_puts(&k->system, name);
        if (value) fm_str_printf(&k->system, " %s", value);
        fm_talk_forget(k);
        if (!k->chat) puts("no chat template is used, so a system message has no effect");
    } else if (!word || !set_nothing(word)) {
        puts("/set system TEXT, /set parameter NAME VALUE, /set verbose, /set quiet, /set history or /set nohistory");
    }
}

static void show_info(const fm_talk *k)
{
    const fm_model_info i = fm_model_get_info(k->model);
    printf("%s: %s, %s %s, %zu parameters, %zu layers of width %zu; a state of %zu bytes that has seen %llu tokens\n", i.name,
           i.arch, i.format, i.type, i.n_params, i.n_layer, i.d_model, i.state_bytes,
           (unsigned long long)fm_seq_tokens(k->session, k->seq));
}

/* Each number on a line of its own; a Modelfile says PARAMETER before it. */
static void show_parameters(const fm_talk *k, const char *before)
{
    const fm_sampling *p = &k->sampling.p;
    printf("%stemperature %g\n%stop_k %d\n%stop_p %g\n", before, (double)p->temperature, before, p->top_k, before,
           (double)p->top_p);
    printf("%smin_p %g\n%srepeat_penalty %g\n%sseed %llu\n", before, (double)p->min_p, before, (double)p->repeat_penalty,
           before, (unsigned long long)p->seed);
}

static const char *template_text(const fm_talk *k)
{
    const char *text = fm_model_chat_template(k->model);
    return text ? text : k->plain ? "none: the model continues text" : "ChatML";
}

static void show_modelfile(const fm_talk *k)
{
    printf("FROM %s\n", fm_model_get_info(k->model).name);
    if (k->chat) printf("TEMPLATE \"\"\"%s\"\"\"\n", template_text(k));
    if (k->system.n) printf("SYSTEM \"\"\"%s\"\"\"\n", k->system.p);
    show_parameters(k, "PARAMETER ");
}

static void verb_show(fm_talk *k, char *rest)
{
    const char *word = next_word(&rest);
    if (word && !strcmp(word, "info")) {
        show_info(k);
    } else if (word && !strcmp(word, "parameters")) {
        show_parameters(k, "");
    } else if (word && !strcmp(word, "system")) {
        puts(k->system.n ? k->system.p : "no system message is set");
    } else if (word && !strcmp(word, "template")) {
        puts(template_text(k));
    } else if (word && !strcmp(word, "modelfile")) {
        show_modelfile(k);
    } else if (word && !strcmp(word, "license")) {
        puts("the licence does not travel with the weights: see the page the model came from");
    } else {
        puts("/show info, /show parameters, /show system, /show template, /show modelfile or /show license");
    }
}

static fm_status save_state(const fm_talk *k, const char *path, fm_error *err)
{
    fm_state *st;
    FM_TRY(fm_state_take(&st, k->session, k->seq, err));
    const fm_status status = fm_state_save(st, NULL, path, FM_STATE_F32, err);
    fm_state_free(st);
    return status;
}

static fm_status load_state(fm_talk *k, const char *path, fm_error *err)
{
    fm_state *st;
    FM_TRY(fm_state_load(&st, NULL, path, NULL, err));
    const fm_status status = fm_talk_resume(k, st, fm_opt_flag(&k->c->options, FM_OPT_FORCE), err);
    fm_state_free(st);
    return status;
}

static void verb_file(fm_talk *k, const char *rest, bool save)
{
    const char *path = rest + strspn(rest, " "); /* which may have blanks within */
    fm_error err = {0};
    if (!*path) {
        puts(save ? "/save FILE" : "/load FILE");
        return;
    }
    if ((save ? save_state(k, path, &err) : load_state(k, path, &err)) != FM_OK) {
        puts(err.text);
        return;
    }
    printf("%s: %llu tokens\n", path, (unsigned long long)fm_seq_tokens(k->session, k->seq));
    if (!save && k->chat && k->plain)
        puts("from here on the model continues text: the chat template does not say how a message follows an answer");
}

/* false: leave */
static bool obey(fm_talk *k, char *line)
{
    const size_t n = strcspn(line, " ");
    char *rest = line + n + (line[n] == ' ');
    const fm_view verb = {line, n};
    if (fm_view_is(verb, "/bye") || fm_view_is(verb, "/exit")) return false;
    if (fm_view_is(verb, "/clear"))
        fm_talk_forget(k), puts("forgotten");
    else if (fm_view_is(verb, "/set"))
        verb_set(k, rest);
    else if (fm_view_is(verb, "/show"))
        verb_show(k, rest);
    else if (fm_view_is(verb, "/save"))
        verb_file(k, rest, true);
    else if (fm_view_is(verb, "/load"))
        verb_file(k, rest, false);
    else if ((fm_view_is(verb, "/?") || fm_view_is(verb, "/help")) && !strcmp(rest, "shortcuts"))
        show_shortcuts();
    else if (fm_view_is(verb, "/?") || fm_view_is(verb, "/help"))
        show_help();
    else
        printf("'%.*s' is unknown: /? lists what there is\n", (int)n, line);
    return true;
}

/* ---- The loop ---- */

static void say(fm_talk *k, const char *text)
{
    fm_error err = {0};
    bool cancelled;
    if (fm_talk_say(k, text, &cancelled, &err) != FM_OK)
        fm_cli_fail(&err);
    else if (cancelled)
        puts("(stopped)");
}

/* The line editor takes bytes for characters as the locale says; here they are UTF-8, whatever the environment says. */
static void take_utf8(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "");
}

int fm_repl(fm_talk *k)
{
    fm_str message = {0};
    bool fenced;
    take_utf8();
    if (k->plain)
        printf("%s: it continues what you write.\n",
               fm_model_chat_template(k->model) ? "The model is not asked to talk" : "This model has no chat template");
    puts("/? for help, Ctrl-D to leave");
    for (bool more = true; more && !fm_cli_terminated();) {
        fm_cli_catch_interrupt();
        if (!read_message(&message, &fenced)) {
            more = fm_cli_interrupted(NULL);
            clearerr(stdin);
            putchar('\n');
        } else if (message.n && !message.failed) {
            if (message.p[0] == '/' && !fenced)
                more = obey(k, message.p);
            else
                say(k, message.p);
        }
    }
    fm_str_free(&message);
    return FM_EXIT_OK;
}
