/* block.c - the list of mixers. */
#include "model/block/block.h"

#include <string.h>

static const fm_block *const blocks[] = {
    &fm_block_mamba,
};

const fm_block *fm_block_by_name(const char *name)
{
    for (size_t i = 0; i < FM_COUNT(blocks); i++)
        if (strcmp(blocks[i]->name, name) == 0) return blocks[i];
    return NULL;
}
