/* config.c - sizes by name. */
#include "model/config.h"

size_t fm_dim_of(const fm_config *c, fm_dim d)
{
    switch (d) {
    case FM_DIM_1: return 1;
    case FM_DIM_MODEL: return c->d_model;
    case FM_DIM_INNER: return c->d_inner;
    case FM_DIM_2INNER: return 2 * c->d_inner;
    case FM_DIM_STATE: return c->d_state;
    case FM_DIM_CONV: return c->d_conv;
    case FM_DIM_RANK: return c->dt_rank;
    case FM_DIM_RANK_2STATE: return c->dt_rank + 2 * c->d_state;
    case FM_DIM_VOCAB: return c->vocab;
    }
    FM_ASSERT(!"a dimension that config.h does not list");
    return 0;
}

const char *fm_dim_name(fm_dim d)
{
    static const char *const names[] = {[FM_DIM_1] = "1",           [FM_DIM_MODEL] = "d_model",
                                        [FM_DIM_INNER] = "d_inner", [FM_DIM_2INNER] = "2*d_inner",
                                        [FM_DIM_STATE] = "d_state", [FM_DIM_CONV] = "d_conv",
                                        [FM_DIM_RANK] = "dt_rank",  [FM_DIM_RANK_2STATE] = "dt_rank+2*d_state",
                                        [FM_DIM_VOCAB] = "vocab"};
    return names[d];
}
