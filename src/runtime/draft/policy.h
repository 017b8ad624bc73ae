/* policy.h - how many guesses are worth checking at once.
 *
 * A step of 1 + k tokens costs more than a step of one, and gives 1 + (guesses that come true) tokens.  The odds are learned from
 * every guess, also from those that were never checked, since the next token shows for free whether they were right; the costs
 * are learned from the times of the steps.  Neither touches what is generated, only how fast. */
#ifndef FM_RUNTIME_DRAFT_POLICY_H
#define FM_RUNTIME_DRAFT_POLICY_H

#include <stdbool.h>
#include <stddef.h>

enum { FM_ODDS = 12, FM_SIZES = 8 };

/* The chance that a guess of some class comes true.  Where a text changes its kind all classes are off at once, which shows in
 * fewer guesses than each class needs to find out: expected and found, over the last guesses of any class. */
typedef struct fm_odds {
    float chance[FM_ODDS], seen[FM_ODDS];
    float expected, found;
} fm_odds;

void fm_odds_init(fm_odds *o, const float chance[FM_ODDS]);
double fm_odds_of(const fm_odds *o, size_t class);
void fm_odds_learn(fm_odds *o, size_t class, bool came_true);

typedef struct fm_costs {
    double one;             /* seconds of a step of one token; 0: not known yet */
    double slope[FM_SIZES]; /* what each further token adds, in steps of one, by the logarithm of the step's size */
} fm_costs;

void fm_costs_init(fm_costs *c);
void fm_costs_learn(fm_costs *c, size_t n_tokens, double seconds);
double fm_costs_of(const fm_costs *c, size_t n_tokens); /* in steps of one token */

/* The number k <= most of guesses that gives the most tokens per time; 0 unless the gain is worth the trouble.  Guess i costs
 * `each` on top (in steps of one), and comes true with chance(ctx, i) when those before it did. */
size_t fm_policy_length(const fm_costs *c, double each, size_t most, double (*chance)(const void *ctx, size_t i),
                        const void *ctx);

#endif
