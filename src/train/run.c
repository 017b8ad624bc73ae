/* run.c - see run.h. */
#include "train/run.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "train/internal.h"

#define FILE_BYTES_MAX ((size_t)256 << 20)

static const char *const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                              "chat_template.jinja", "generation_config.json"};

/* "step-00000120": the number. */
static bool step_of(const char *name, uint64_t *step)
{
    return strncmp(name, "step-", 5) == 0 && fm_parse_u64(fm_view_of(name + 5), step);
}

/* Steps of the checkpoints in the folder, ascending, at most `room` of the newest; returns how many. */
static size_t list_steps(const char *out, uint64_t *steps, size_t room)
{
    DIR *d = opendir(out);
    size_t n = 0;
    if (!d) return 0;
    for (const struct dirent *e; (e = readdir(d));) {
        uint64_t step;
        if (!step_of(e->d_name, &step)) continue;
        size_t at = n;
        while (at > 0 && steps[at - 1] > step) at--;
        if (n == room && at == 0) continue;
        if (n == room) {
            memmove(steps, steps + 1, (--at) * sizeof *steps);
        } else {
            memmove(steps + at + 1, steps + at, (n++ - at) * sizeof *steps);
        }
        steps[at] = step;
    }
    closedir(d);
    return n;
}

static char *step_path(const fm_run_folder *f, uint64_t step, const char *end, fm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "step-%08llu%s", (unsigned long long)step, end);
    return fm_path_join(f->out, name, f->a, err);
}

fm_status fm_run_newest(char **dir, const fm_run_folder *f, fm_error *err)
{
    uint64_t steps[1];
    *dir = NULL;
    if (list_steps(f->out, steps, 1) == 0) return FM_OK;
    *dir = step_path(f, steps[0], "", err);
    return *dir ? FM_OK : FM_ERR_MEMORY;
}

/* ---- Saving ---- */

static fm_status copy_file(const char *from, const char *to, const char *name, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    char *path = fm_path_join(from, name, a, err);
    if (!path) return FM_ERR_MEMORY;
    fm_status status = FM_OK;
    if (fm_path_exists(path)) {
        status = fm_file_read(&text, path, FILE_BYTES_MAX, err);
        if (status == FM_OK) status = fm_file_write(to, name, (fm_view){text.p, text.n}, a, err);
    }
    fm_str_free(&text);
    fm_free(a, path);
    return status;
}

static fm_status fill(const fm_run_folder *f, const fm_trainer *t, const char *dir, fm_error *err)
{
    const fm_str *config = &t->g.m->source.config;
    FM_TRY(fm_dir_make(dir, err));
    FM_TRY(fm_file_write(dir, "config.json", (fm_view){config->p, config->n}, f->a, err));
    for (size_t i = 0; f->tokenizer && i < FM_COUNT(tokenizer_files); i++)
        FM_TRY(copy_file(f->tokenizer, dir, tokenizer_files[i], f->a, err));
    return fm_trainer_save(t, dir, err);
}

/* A checkpoint's folder and the files directly in it. */
static void remove_folder(const char *dir, const fm_allocator *a)
{
    DIR *d = opendir(dir);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *path = fm_path_join(dir, e->d_name, a, NULL);
        if (path) unlink(path);
        fm_free(a, path);
    }
    closedir(d);
    rmdir(dir);
}

static void remove_old(const fm_run_folder *f)
{
    enum { ROOM = 256 };
    uint64_t steps[ROOM];
    const size_t n = list_steps(f->out, steps, ROOM);
    for (size_t i = 0; i + f->keep + 1 < n; i++) {
        char *path = step_path(f, steps[i], "", NULL);
        if (path) remove_folder(path, f->a);
        fm_free(f->a, path);
    }
}

static fm_status save_at(const fm_run_folder *f, const fm_trainer *t, const char *tmp, const char *dir, fm_error *err)
{
    remove_folder(tmp, f->a); /* of a run that was killed here */
    FM_TRY(fill(f, t, tmp, err));
    remove_folder(dir, f->a);
    if (rename(tmp, dir) != 0) return fm_fail_errno(err, "cannot put the finished checkpoint in place of %s", dir);
    remove_old(f);
    return FM_OK;
}

fm_status fm_run_save(const fm_run_folder *f, const fm_trainer *t, fm_error *err)
{
    FM_TRY(fm_dir_make(f->out, err));
    char *tmp = step_path(f, t->step, ".tmp", err), *dir = step_path(f, t->step, "", err);
    const fm_status status = tmp && dir ? save_at(f, t, tmp, dir, err) : FM_ERR_MEMORY;
    if (status != FM_OK && tmp) remove_folder(tmp, f->a);
    fm_free(f->a, tmp);
    fm_free(f->a, dir);
    return status;
}
