/* special.h - added tokens: texts that are cut out before anything else is done, longest match first at each position. */
#ifndef FM_TEXT_SPECIAL_H
#define FM_TEXT_SPECIAL_H

#include "base/str.h"

typedef struct fm_trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t id;              /* -1: no token ends here */
    unsigned char byte;
} fm_trie_node;

/* A set of texts.  root[] is the first level, so that most positions of a text cost one load; matching at a position takes at
 * most as many steps as the longest text of the set has bytes.  Zero-initialise. */
typedef struct fm_trie {
    fm_trie_node *nodes; /* node 0 is not used */
    size_t n, cap;
    uint32_t root[256];
} fm_trie;

/* Of a text given twice the first id counts; an empty text is ignored. */
fm_status fm_trie_add(fm_trie *t, fm_view text, int32_t id, const fm_allocator *a, fm_error *err);
void fm_trie_free(fm_trie *t, const fm_allocator *a);

/* Bytes of the longest text of the set that `text` begins with, 0 if there is none; its id in *id. */
size_t fm_trie_match(const fm_trie *t, fm_view text, int32_t *id);

#endif
