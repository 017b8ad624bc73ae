#!/usr/bin/env python3
"""Records what Python's jinja2 makes of templates, for tests/unit/test_jinja.c and test_chat.c.

The environment is set up as transformers does for chat templates: ImmutableSandboxedEnvironment with trim_blocks,
lstrip_blocks and loop controls, a tojson that does not escape HTML, raise_exception and a {% generation %} that only prints.
Run with the folder (tests/data/chat): it holds the small templates in constructs.txt and the large ones in <name>.jinja;
constructs.json and templates.json are written.  They are JSON lists of
{"name", "template", "variables": JSON text, "output"} or {..., "error": the exception's name}.
"""
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


V = {
    "s": "Hello, World", "n": 7, "f": 2.5, "yes": True, "nothing": None, "empty": "", "u": "größe ÉTÉ 你好",
    "xs": [3, 1, 2], "words": ["beta", "Alpha", "gamma", "alpha"], "d": {"b": 1, "a": 2, "items": "own"},
    "ms": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo"}, {"role": "user", "content": "<b>"}],
    "nested": {"x": {"y": [10, {"z": "deep"}]}}, "lines": "a\nb\n\nc\n", "quote": "it's \"q\" \\ \t\u0007\u00a0é",
    "floats": [0.1, 1e16, 1e-5, 123456789.125, 1e22, -0.0, 3.0],
}

M = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."},
     {"role": "user", "content": " What is 2+2? "}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "It's the weather <b>",
          "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Zürich"]}},
                         "required": ["city"]}}}]
CALLS = M + [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function":
             {"name": "weather", "arguments": {"city": "Zürich"}}}]}, {"role": "tool", "content": "12 C"},
             {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "<think>hm</think>\n\nCold."},
             {"role": "user", "content": "Thanks"}]

TEMPLATES = ("chatml", "falcon3", "llama", "alternating", "qwen", "gemma", "deepseek", "zephyr", "macros")


def record(env, name, template, variables):
    case = {"name": name, "template": template, "variables": json.dumps(variables, ensure_ascii=False)}
    try:
        case["output"] = env.from_string(template).render(**variables)
    except Exception as error:  # every exception is a recorded outcome
        case["error"] = type(error).__name__
    return case


def constructs(text):
    """Cases begin with name|; their text ends before the next such line, and a | at the very end only marks it."""
    cases = []
    known = None
    for line in text.strip("\n").split("\n"):
        name, bar, rest = line.partition("|")
        if bar and name and all(c.isalnum() or c in " _" for c in name) and not name.startswith(" "):
            known = [name, [rest]]
            cases.append(known)
        else:
            known[1].append(line)
    return [(n, "\n".join(t)[:-1] if t[-1].endswith("|") else "\n".join(t)) for n, t in cases]


def main(folder):
    env = environment()
    out = pathlib.Path(folder)
    small = [record(env, n, t, V) for n, t in constructs(out.joinpath("constructs.txt").read_text(encoding="utf-8"))]
    large = []
    base = {"bos_token": "<s>", "eos_token": "</s>"}
    for name in TEMPLATES:
        template = out.joinpath(name + ".jinja").read_text(encoding="utf-8")
        for what, variables in (("plain", {"messages": M, "add_generation_prompt": True}),
                                ("no system", {"messages": M[1:], "add_generation_prompt": False}),
                                ("tools", {"messages": CALLS, "tools": TOOLS, "add_generation_prompt": True}),
                                ("bad order", {"messages": [M[1], M[1]], "enable_thinking": False,
                                               "add_generation_prompt": True})):
            large.append(record(env, f"{name}: {what}", template, {**base, **variables}))
    for name, cases in (("constructs", small), ("templates", large)):
        wrong = [c["name"] for c in cases if ("error" in c) != c["name"].startswith("error ")]
        if wrong and name == "constructs":
            sys.exit(f"unexpected outcome: {wrong}")
        out.joinpath(name + ".json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(name, len(cases), sum("error" in c for c in cases))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "data" / "chat")
