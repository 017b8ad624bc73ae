/* safetensors_internal.h - what safetensors_read.c and safetensors_index.c share: the list under construction. */
#ifndef FM_FORMAT_SAFETENSORS_INTERNAL_H
#define FM_FORMAT_SAFETENSORS_INTERNAL_H

#include "format/internal.h"
#include "format/safetensors.h"

#define ST_HEADER_MAX 100000000u /* bytes, the limit of the official library */
#define ST_NO_TEXT    SIZE_MAX

/* Where a tensor's texts lie in `text` while that still moves. */
typedef struct st_texts {
    size_t name, type_name; /* type_name ST_NO_TEXT: a known type's, which is static */
} st_texts;

typedef struct st_builder {
    fm_st *s;
    fm_str text; /* names, each with its 0 */
    st_texts *texts;
    size_t tensors_cap, texts_cap;
} st_builder;

/* Appends a raw JSON string unescaped and terminated; false if it is empty or contains a zero byte. */
bool fm_st_add_text(fm_str *text, fm_view raw, size_t *at);
/* Maps s->paths[part], which is set, and appends its tensors. */
fm_status fm_st_read_part(st_builder *b, uint32_t part, fm_map_mode mode, fm_error *err);
/* Gives the texts their final addresses, sorts by name and refuses a name given twice. */
fm_status fm_st_finish(st_builder *b, fm_error *err);
void fm_st_builder_free(st_builder *b);
/* All the shards of an index file. */
fm_status fm_st_read_index(st_builder *b, const char *path, fm_map_mode mode, fm_error *err);
/* maps and paths for n files; the paths are still NULL. */
fm_status fm_st_make_parts(fm_st *s, size_t n, fm_error *err);
/* A type by its name in files; FM_ST_OTHER and *bits 0 if it is not known. */
fm_st_type fm_st_type_of(fm_view name, const char **static_name, unsigned *bits);
const char *fm_st_type_text(fm_st_type type, unsigned *bits);

#endif
