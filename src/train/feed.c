/* feed.c - see feed.h. */
#include "train/feed.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static fm_status add_file(fm_feed *s, const char *path, const fm_tokenizing *o, fm_error *err)
{
    FM_TRY(fm_grow((void **)&s->parts, &s->cap, s->n_parts + 1, sizeof *s->parts, s->a, "the files of a source", err));
    FM_TRY(fm_tokens_read(&s->parts[s->n_parts], path, o, err));
    s->n_parts++;
    return FM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct names {
    char **list;
    size_t n, cap;
} names;

/* Megatron's indices come with their .bin files. */
static bool is_wanted(const char *name)
{
    return name[0] != '.' && !fm_view_ends(fm_view_of(name), ".idx");
}

static fm_status list_folder(names *l, const char *path, const fm_allocator *a, fm_error *err)
{
    DIR *d = opendir(path);
    fm_status status = FM_OK;
    if (!d) return fm_fail_errno(err, "cannot list %s", path);
    for (const struct dirent *e; status == FM_OK && (e = readdir(d));) {
        if (!is_wanted(e->d_name)) continue;
        status = fm_grow((void **)&l->list, &l->cap, l->n + 1, sizeof *l->list, a, "the files of a source", err);
        if (status == FM_OK) l->list[l->n] = fm_path_join(path, e->d_name, a, err);
        if (status == FM_OK && !l->list[l->n++]) status = FM_ERR_MEMORY;
    }
    closedir(d);
    if (l->n > 0) qsort(l->list, status == FM_OK ? l->n : 0, sizeof *l->list, by_name);
    return status;
}

static fm_status add_folder(fm_feed *s, const char *path, const fm_tokenizing *o, fm_error *err)
{
    names l = {0};
    fm_status status = list_folder(&l, path, s->a, err);
    if (status == FM_OK && l.n == 0)
        status = fm_fail(err, FM_ERR_IO, "%s is an empty folder: expected text or token shards in it", path);
    for (size_t i = 0; i < l.n && status == FM_OK; i++) status = add_file(s, l.list[i], o, err);
    for (size_t i = 0; i < l.n; i++) fm_free(s->a, l.list[i]);
    fm_free(s->a, l.list);
    return status;
}

/* Cuts "*WEIGHT" off. */
static void take_weight(char *path, double *weight)
{
    char *star = strrchr(path, '*');
    *weight = 1.0;
    if (star && fm_parse_f64(fm_view_of(star + 1), weight) && *weight > 0.0)
        *star = '\0';
    else
        *weight = 1.0;
}

fm_status fm_feed_open(fm_feed *s, const char *text, const fm_tokenizing *o, fm_error *err)
{
    *s = (fm_feed){.a = o->a};
    char *path = fm_strdup(o->a, text, strlen(text), err);
    if (!path) return FM_ERR_MEMORY;
    take_weight(path, &s->weight);
    const fm_status status = fm_path_is_dir(path) ? add_folder(s, path, o, err) : add_file(s, path, o, err);
    fm_free(o->a, path);
    if (status != FM_OK) fm_feed_free(s);
    return status;
}

void fm_feed_free(fm_feed *s)
{
    for (size_t i = 0; i < s->n_parts; i++) fm_tokens_free(&s->parts[i]);
    fm_free(s->a, s->parts);
    *s = (fm_feed){0};
}

size_t fm_feed_tokens(const fm_feed *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_parts; i++) n += s->parts[i].n;
    return n;
}

size_t fm_feed_bytes(const fm_feed *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_parts; i++) n += s->parts[i].n_bytes;
    return n;
}
