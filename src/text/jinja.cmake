# The files of the template engine and of chat prompts.
set(FM_TEXT_JINJA_SOURCES
    jinja.c jinja_lex.c jinja_expr.c jinja_parse.c jinja_value.c jinja_print.c jinja_math.c jinja_unicode.c jinja_string.c
    jinja_method.c jinja_global.c jinja_filter.c jinja_seq.c jinja_test.c jinja_eval.c jinja_exec.c chat.c)
