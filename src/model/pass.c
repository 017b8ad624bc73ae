/* pass.c - the lists of a step, and room for the packed inputs of its products. */
#include "model/pass.h"

#include <string.h>

fm_lists fm_lists_place(fm_arena *a, size_t T, size_t n_pieces)
{
    fm_lists l;
    l.ids = FM_PUSH(a, int32_t, T);
    l.begin = FM_PUSH(a, size_t, n_pieces + 1);
    l.state = FM_PUSH(a, float *, n_pieces);
    l.seen = FM_PUSH(a, uint32_t, n_pieces);
    return l;
}

size_t fm_pieces_tokens(const fm_piece *pieces, size_t n_pieces)
{
    size_t T = 0;
    for (size_t i = 0; i < n_pieces; i++) T += pieces[i].n;
    return T;
}

fm_ragged fm_lists_fill(const fm_lists *host, const fm_lists *seen, const fm_piece *pieces, size_t n_pieces)
{
    fm_ragged r = {.n_seq = n_pieces, .begin = seen->begin, .seen = seen->seen, .on_host = host->begin};
    for (size_t i = 0; i < n_pieces; i++) {
        const fm_piece *p = &pieces[i];
        host->begin[i] = r.n_tokens;
        host->state[i] = p->state;
        host->seen[i] = p->seen;
        if (p->tokens) memcpy(host->ids + r.n_tokens, p->tokens, p->n * sizeof *p->tokens);
        if (p->n > r.longest) r.longest = p->n;
        r.n_tokens += p->n;
    }
    host->begin[n_pieces] = r.n_tokens;
    return r;
}

static size_t larger(size_t most, size_t bytes)
{
    if (!bytes) return SIZE_MAX;
    return bytes > most ? bytes : most;
}

size_t fm_packed_most(const fm_model *m, const fm_extent *e, size_t head_rows, fm_product_bytes *bytes)
{
    size_t most = larger(0, bytes(e->k, &m->globals[FM_GLOBAL_HEAD], head_rows, e->n_parts));
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_layer *layer = &m->layers[l];
        for (size_t i = 0; i < layer->block->n_weights; i++)
            if (layer->block->weights[i].kind == FM_WEIGHT_MATRIX)
                most = larger(most, bytes(e->k, &layer->w[i], e->T, e->n_parts));
    }
    return most;
}
