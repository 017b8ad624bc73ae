/* graphs.c - recorded steps of a session, a few kinds at a time. */
#include "model/model.h"

fm_graph **fm_graphs_find(fm_graphs *g, size_t n_tokens, size_t n_out, fm_outcome outcome)
{
    for (size_t i = 0; i < FM_COUNT(g->slots); i++)
        if (g->slots[i].steps && g->slots[i].n_tokens == n_tokens && g->slots[i].n_out == n_out &&
            g->slots[i].outcome == outcome) {
            g->slots[i].steps++;
            return &g->slots[i].graph;
        }
    const size_t at = g->next++ % FM_COUNT(g->slots);
    fm_device_graph_free(g->slots[at].graph);
    g->slots[at].n_tokens = n_tokens;
    g->slots[at].n_out = n_out;
    g->slots[at].outcome = outcome;
    g->slots[at].steps = 1;
    g->slots[at].graph = NULL;
    return NULL;
}

void fm_graphs_free(fm_graphs *g)
{
    for (size_t i = 0; i < FM_COUNT(g->slots); i++) fm_device_graph_free(g->slots[i].graph);
    *g = (fm_graphs){0};
}
