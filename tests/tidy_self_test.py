#!/usr/bin/env python3
"""Proves that every rule of tidy.py fires on a tree made to break it, and that none fires on a tree that does not."""
import os
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import tidy  # noqa: E402

GUARDED = "#ifndef FM_X_H\n#define FM_X_H\nint fm_x(void);\n#endif\n"
CLEAN = {
    "include/fmamba.h": "#ifndef FMAMBA_H\n#define FMAMBA_H\n#endif\n",
    "src/base/x.h": GUARDED,
    "src/base/x.c": '#include "base/x.h"\n\nint fm_x(void)\n{\n    return 0; /* malloc() and "exit(" in words are fine */\n}\n',
    "src/base/CMakeLists.txt": "fm_module(base SOURCES x.c)\n",
    "src/model/m.c": '#include "base/x.h"\n#include "fmamba.h"\n\nint fm_m(void);\nint fm_m(void) { return fm_x(); }\n',
    "src/model/CMakeLists.txt": "fm_module(model SOURCES m.c LINKS base)\n",
    "tests/unit/test_x.c": '#include "base/x.h"\n\nint main(void)\n{\n    return fm_x();\n}\n',
    "tests/unit/base.cmake": "fm_unit_test(test_x LINKS base)\n",
    "README.md": "# Some words, here\n\n[x](src/base/x.c) [`fm_m`](src/model/m.c#L4) [up](#some-words-here) `src/base/x.h`\n",
}


def body(n_lines):
    return "{\n" + "    ;\n" * (n_lines - 3) + "}\n"


# rule: {file: text} laid over the clean tree.
BROKEN = {
    "include-layer": {"src/base/x.c": '#include "model/m.h"\n#include "base/x.h"\n', "src/model/m.h": GUARDED},
    "include-missing": {"src/base/x.c": '#include "base/gone.h"\n#include "base/x.h"\n'},
    "include-intrinsics": {"src/model/n.c": "#include <immintrin.h>\n"},
    "include-example": {"examples/a.c": '#include "base/x.h"\n', "examples/CMakeLists.txt": "a.c\n"},
    "function-length": {"src/base/x.c": '#include "base/x.h"\n#define A(x) {\nint fm_x(void)\n' + body(71)},
    "parameters": {"src/base/x.c": '#include "base/x.h"\nint fm_x(int a, int b, int c, int (*d)(int, int), int e, int f, int g)\n{\n}\n'},
    "file-length": {"src/base/x.c": '#include "base/x.h"\n' + "\n" * 800},
    "line-length": {"src/base/x.c": '#include "base/x.h"\n/* ' + "x" * 130 + " */\n"},
    "tab": {"src/base/x.c": '#include "base/x.h"\n\tint x;\n'},
    "trailing": {"src/base/x.c": '#include "base/x.h" \n'},
    "last-newline": {"src/base/x.c": '#include "base/x.h"'},
    "note": {"src/base/x.c": '#include "base/x.h"\n/* TO' + 'DO: later */\n'},
    "machine-path": {"README.md": "see /wo" + "rk/there and /ro" + "ot/x\n"},
    "guard": {"src/base/x.h": "int fm_x(void);\n"},
    "dead-source": {"src/base/y.c": "int y;\n"},
    "dead-header": {"src/base/y.h": GUARDED},
    "dead-tool": {"tools/forgotten.py": "\n"},
    "md-link": {"README.md": "[x](src/base/gone.c)\n"},
    "md-line": {"README.md": "[x](src/base/x.c#L900)\n"},
    "md-heading": {"README.md": "# One\n[x](#two)\n"},
    "md-symbol": {"README.md": "[`fm_gone`](src/base/x.c)\n"},
    "md-path": {"README.md": "`src/base/gone.c`\n"},
}
EVERY_BANNED = [name for names, _, _ in tidy.BANNED for name in names.split()]


def complain(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**CLEAN, **files}.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text)
        return tidy.complaints(root)


class SelfTest(unittest.TestCase):
    def test_clean_tree(self):
        self.assertEqual(complain({}), [])

    def test_every_rule_fires_alone(self):
        for rule, files in BROKEN.items():
            with self.subTest(rule=rule):
                found = complain(files)
                self.assertIn(rule, {c.rule for c in found})
                self.assertLessEqual({c.rule for c in found}, {rule, "dead-header", "dead-source"})

    def test_every_rule_is_proved(self):
        with open(tidy.__file__, encoding="utf-8") as f:
            rules = set(re.findall(r'Complaint\("([\w-]+)"', f.read()))
        self.assertEqual(rules, set(BROKEN) | {"banned"})

    def test_every_banned_call_fires(self):
        for name in EVERY_BANNED:
            with self.subTest(name=name):
                text = f'#include "base/x.h"\nint fm_x(void)\n{{\n    return ({name} (0));\n}}\n'
                self.assertEqual([(c.rule, c.line) for c in complain({"src/base/x.c": text})], [("banned", 4)])

    def test_calls_through_a_member_are_fine(self):
        text = '#include "base/x.h"\nint fm_x(void) { a->free(0); b.malloc(1); return fm_free(0); }\n'
        self.assertEqual(complain({"src/base/x.c": text}), [])

    def test_limits_are_the_last_allowed_number(self):
        head = '#include "base/x.h"\nint fm_x(int a, int b, int c, int d, int e, int f, fm_error *err)\n'
        found = complain({"src/base/x.c": head + body(69)})  # 70 lines with its head
        self.assertEqual(found, [])

    def test_what_counts_as_a_function(self):
        code = ('static const int a[] = {1, f(2)};\nstruct s { int x; };\nextern "" {\n'
                "__attribute__((noreturn)) void g(int x)\n{\n  if (x) { y(); }\n}\n}\nFM_API int h(void) { return 1; }\n")
        self.assertEqual([(f.name, f.line, f.lines, f.parameters) for f in tidy.scan_functions(code)],
                         [("g", 4, 4, 1), ("h", 9, 1, 0)])

    def test_branches_of_the_preprocessor(self):
        code = tidy.strip("int f(void)\n{\n#if A\n    if (x) {\n#else\n    if (y) {\n#endif\n    }\n}\nint g(void) { return 0; }\n")
        self.assertEqual([f.name for f in tidy.scan_functions(code)], ["f", "g"])

    def test_the_real_tree_has_functions(self):
        root = os.path.dirname(os.path.dirname(os.path.abspath(tidy.__file__)))
        tree = tidy.Tree(root)
        self.assertGreater(sum(len(tidy.scan_functions(tree.stripped(p))) for p in tree.c_files()), 20)


if __name__ == "__main__":
    unittest.main()
