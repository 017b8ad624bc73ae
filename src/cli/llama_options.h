/* llama_options.h - options that llama.cpp's users type and that no option here stands for: each has an answer of its own. */
#ifndef FM_CLI_LLAMA_OPTIONS_H
#define FM_CLI_LLAMA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum fm_llama_answer {
    FM_LLAMA_SAME,  /* what it asks for is so anyway */
    FM_LLAMA_NOTED, /* it changes nothing here, and a note says why */
    FM_LLAMA_REFUSED
} fm_llama_answer;

typedef struct fm_llama_option {
    const char *names;                                              /* separated by blanks, without dashes */
    enum { FM_LLAMA_ALONE, FM_LLAMA_VALUE, FM_LLAMA_SWITCH } takes; /* SWITCH: may be followed by on, off or auto */
    fm_llama_answer answer;
    const char *why; /* the rest of a sentence: "-fa has no effect: ..."; NULL for FM_LLAMA_SAME */
} fm_llama_option;

/* NULL: llama.cpp has no such option, or one here stands for it. */
const fm_llama_option *fm_llama_option_find(const char *name, size_t n);
/* Does `next` (may be NULL) belong to it as its value? */
bool fm_llama_option_takes(const fm_llama_option *o, const char *next);

#endif
