/* block.c - what mixers share. */
#include "model/block/block.h"

#include <math.h>

float fm_init_dt_bias(double u)
{
    const double dt = exp(u * (log(0.1) - log(0.001)) + log(0.001));
    return (float)(dt + log(-expm1(-dt)));
}

fm_need fm_weight_needed(const fm_weight_def *def, const fm_config *c)
{
    switch (def->presence) {
    case FM_WITH_BIAS: return c->use_bias ? FM_NEEDED : FM_UNWANTED;
    case FM_WITH_CONV_BIAS: return c->use_conv_bias ? FM_NEEDED : FM_UNWANTED;
    case FM_MAYBE: return FM_EITHER;
    default: return FM_NEEDED;
    }
}

unsigned fm_weight_dims(uint64_t dims[3], const fm_weight_def *def, const fm_config *c)
{
    unsigned n = 0;
    if (def->rows != FM_DIM_1) dims[n++] = fm_dim_of(c, def->rows);
    if (def->cols == FM_DIM_CONV) dims[n++] = 1; /* PyTorch's axis of input channels per group */
    dims[n++] = fm_dim_of(c, def->cols);
    return n;
}

size_t fm_block_half_floats(const fm_block *block, const fm_config *c)
{
    const size_t whole = block->state_whole(c);
    return whole + (block->state_floats(c) - whole + 1) / 2;
}
