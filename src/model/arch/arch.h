/* arch.h - an architecture: how its configuration reads, how its tensors are named, which block stands in which layer.
 *
 * To add one, write arch/<name>.c exporting `const fm_arch fm_arch_<name>` and add a line to the list in arch.c
 * (docs/adding-an-architecture.md). */
#ifndef FM_MODEL_ARCH_H
#define FM_MODEL_ARCH_H

#include "model/block/block.h"

/* The weights outside the layers, in every architecture. */
enum { FM_GLOBAL_EMBED, FM_GLOBAL_NORM, FM_GLOBAL_HEAD, FM_GLOBAL_COUNT };

typedef struct fm_arch {
    const char *name;             /* "falcon_mamba" */
    const char *hf_type;          /* model_type in config.json */
    const char *hf_class;         /* architectures[0] */
    const char *gguf;             /* general.architecture */
    const fm_weight_def *globals; /* (FM_GLOBAL_COUNT) */
    /* Whether this source is of this architecture (two may share a GGUF name), by what it says of itself; that everything else in
     * its configuration is as it should be is read_config()'s to find out. */
    bool (*claims)(const fm_source *s);
    fm_status (*read_config)(fm_config *c, const fm_source *s, fm_error *err);
    /* The mixer of layer l. */
    const fm_block *(*block)(const fm_config *c, size_t l);
    /* For saving: the keys of a GGUF file, and the members of config.json, that read_config() reads. */
    void (*put_gguf)(fm_gguf_writer *w, const fm_config *c);
    void (*put_json)(fm_jsonw *w, const fm_config *c);
} fm_arch;

/* The architecture of a source; FM_ERR_UNSUPPORTED names what was found and the list of what is known. */
fm_status fm_arch_find(const fm_arch **out, const fm_source *s, fm_error *err);
/* model_type of a config.json, or where it has none the first class name among its "architectures"; empty when neither is there.
 * Broken JSON is for others to refuse. */
fm_view fm_config_model_type(const fm_source *s);
const fm_arch *fm_arch_by_name(const char *name); /* NULL if unknown */

#endif
