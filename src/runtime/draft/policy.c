#include "runtime/draft/policy.h"

#include <string.h>

#define MEMORY     24.0f /* how many guesses back the odds look */
#define RECENT     12.0f
#define WORTH      1.08  /* a gain below this may as well be noise of the clock */
#define SLOW       4.0   /* a step this much slower than thought was interrupted: it counts as that */
#define FORGETTING 0.004 /* per plain step: a cost that was once measured high is tried again some time */

/* What each further token adds to a step of up to 2, 4, 8, 16 ... tokens, as thought at first: 7B Q4_K took 1.2,
 * 1.4, 1.7 and 3.4 times as long as for one on two cores. */
static const double first_slope[FM_SIZES] = {0.2, 0.13, 0.1, 0.16, 0.16, 0.12, 0.12, 0.12};

void fm_odds_init(fm_odds *o, const float chance[FM_ODDS])
{
    memcpy(o->chance, chance, sizeof o->chance);
    for (size_t i = 0; i < FM_ODDS; i++) o->seen[i] = 3;
    o->expected = o->found = 0.5f;
}

/* Not better than its class: luck is believed more slowly than bad luck. */
double fm_odds_of(const fm_odds *o, size_t class)
{
    const double trust = o->found < o->expected ? (double)(o->found / o->expected) : 1;
    return (double)o->chance[class] * trust;
}

void fm_odds_learn(fm_odds *o, size_t class, bool came_true)
{
    const float truth = came_true ? 1 : 0;
    o->expected += (o->chance[class] - o->expected) / RECENT;
    o->found += (truth - o->found) / RECENT;
    if (o->seen[class] < MEMORY) o->seen[class]++;
    o->chance[class] += (truth - o->chance[class]) / o->seen[class];
}

static size_t size_class(size_t n_tokens)
{
    size_t class = 0;
    while (class + 1 < FM_SIZES && n_tokens > (size_t)2 << class) class ++;
    return class;
}

void fm_costs_init(fm_costs *c)
{
    c->one = 0;
    memcpy(c->slope, first_slope, sizeof c->slope);
}

static void learn_one(fm_costs *c, double seconds)
{
    if (c->one == 0)
        c->one = seconds;
    else
        c->one += 0.1 * ((seconds < SLOW * c->one ? seconds : SLOW * c->one) - c->one);
    for (size_t i = 0; i < FM_SIZES; i++) c->slope[i] += FORGETTING * (first_slope[i] - c->slope[i]);
}

void fm_costs_learn(fm_costs *c, size_t n_tokens, double seconds)
{
    if (n_tokens == 1) {
        learn_one(c, seconds);
        return;
    }
    if (c->one == 0) return;
    double *slope = &c->slope[size_class(n_tokens)];
    double found = (seconds / c->one - 1) / (double)(n_tokens - 1);
    if (found < 0) found = 0;
    if (found > SLOW) found = SLOW;
    *slope += 0.3 * (found - *slope);
}

double fm_costs_of(const fm_costs *c, size_t n_tokens)
{
    return 1 + (double)(n_tokens - 1) * c->slope[size_class(n_tokens)];
}

size_t fm_policy_length(const fm_costs *c, double each, size_t most, double (*chance)(const void *ctx, size_t i),
                        const void *ctx)
{
    double all = 1, tokens = 1, best = WORTH; /* tokens per step of one; plain decoding gives 1 */
    size_t length = 0;
    if (c->one == 0) return 0;
    for (size_t i = 0; i < most; i++) {
        all *= chance(ctx, i);
        tokens += all;
        const double rate = tokens / (fm_costs_of(c, i + 2) + (double)(i + 1) * each);
        if (rate <= best) continue;
        best = rate;
        length = i + 1;
    }
    return length;
}
