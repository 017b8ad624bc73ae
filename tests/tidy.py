#!/usr/bin/env python3
"""tidy.py - the style as a test: standard library only, under a second.

usage: tests/tidy.py [--stats] [--root DIR]

Prints "file:line: sentence" for everything that breaks a rule and exits 1; with --stats prints function lengths instead.
tests/tidy_self_test.py proves that every rule fires.  The rules, each by the name of its function:

  includes   a folder of src/ includes only what the table ALLOWED lets it
  functions  at most 70 lines and 6 parameters (a closing fm_error * not counted; kernels may have more)
  banned     calls that have a safer or a decided replacement
  text       line and file lengths, tabs, trailing blanks, to-do notes, paths of somebody's machine, header guards
  dead       every .c is named in its CMakeLists.txt, every header is included, every tool is mentioned somewhere
  markdown   links, line numbers, headings, symbols and `paths` exist
"""
import os
import re
import statistics
import subprocess
import sys
from collections import namedtuple

FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 6
FILE_LINES_MAX = 800
LINE_COLUMNS_MAX = 130
PUBLIC_HEADER_LINES_MAX = 500

# docs: design, "Layers".  A folder may always include itself and the public header.
BELOW_MODEL = {"ops", "kernels", "format", "tensor", "base"}
ALLOWED = {
    "base": set(),
    "tensor": {"base"},
    "kernels": {"tensor", "base"},
    "ops": {"kernels", "tensor", "base"},
    "format": {"tensor", "base"},
    "text": {"base"},
    "model": BELOW_MODEL,
    "runtime": {"model", "text", "format", "base"},  # format: where a file's vocabulary meets the tokenizer
    "convert": {"model", "format", "text", "tensor", "base"},
    "train": {"model", "ops", "kernels", "format", "text", "tensor", "base"},
    "plot": {"base"},
    "cli": BELOW_MODEL | {"text", "model", "runtime", "convert", "train", "plot"},
}
INTRINSICS = re.compile(r"\w*(mmintrin|arm_neon|arm_sve|x86intrin)\w*\.h$")

# What may not be called, where it still may, and what to do instead.
UNSAFE = "sprintf vsprintf strcpy strcat gets atoi atol atof strtok rand srand"
BANNED = [
    (UNSAFE, (), "has no bounds, no error or hidden state; use snprintf, base/str.h, strtol or base/rng.h"),
    ("exit abort getenv setenv", ("src/cli/", "src/base/error.c", "!src"), "belongs to the program; return an fm_status"),
    ("malloc calloc realloc free aligned_alloc posix_memalign", ("src/base/alloc.c", "!src"),
     "bypasses the allocator; use base/alloc.h"),
    ("printf fprintf vprintf vfprintf puts perror", ("src/cli/", "src/base/error.c", "!src"), "prints; only the program does"),
]

C_SUFFIXES = (".c", ".h", ".inc", ".def")
TEXT_SUFFIXES = C_SUFFIXES + (".py", ".sh", ".cmake", ".md", ".in")
DATA_FOLDERS = ("tests/data/", "tests/golden/data/", "tests/fuzz/corpus/", "models/", "tests/tidy_self_test.py")
ROOTS = "src include tests docs tools examples scripts models cmake bench".split()

Complaint = namedtuple("Complaint", "rule path line text")
Function = namedtuple("Function", "name line lines parameters")


# ---- The tree --------------------------------------------------------------------------------------------------------


class Tree:
    """The files of the project with their text; stripped() has comments and literals blanked, lines kept."""

    def __init__(self, root):
        self.root = root
        self.paths = sorted(p for p in list_files(root) if os.path.isfile(os.path.join(root, p)))
        self.text, self.bare = {}, {}
        for path in self.paths:
            if is_ours(root, path):
                with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
                    self.text[path] = f.read()

    def c_files(self):
        return [p for p in self.text if p.endswith(C_SUFFIXES)]

    def stripped(self, path):
        if path not in self.bare:
            self.bare[path] = strip(self.text[path])
        return self.bare[path]


def list_files(root):
    """What git would commit, or everything where there is no git."""
    command = ["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"]
    if os.path.exists(os.path.join(root, ".git")):
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]
        except (OSError, subprocess.CalledProcessError):
            pass
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [d for d in folders if d != ".git" and not d.startswith("build")]
        found += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return found


def is_ours(root, path):
    """Text we wrote: known endings, CMakeLists.txt, Makefile, and scripts that begin with #!."""
    if path.startswith(DATA_FOLDERS):
        return False
    name = os.path.basename(path)
    if path.endswith(TEXT_SUFFIXES) or name in ("CMakeLists.txt", "Makefile"):
        return True
    if "." in name:
        return False
    with open(os.path.join(root, path), "rb") as f:
        return f.read(2) == b"#!"


LITERAL = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.M)


def strip(text):
    """The code alone: comments become blanks, literals empty, directives vanish; every line stays where it was."""

    def blank(match):
        s = match.group(0)
        return ('""' if s[0] == '"' else "0" if s[0] == "'" else " ") + "\n" * s.count("\n")

    return DIRECTIVE.sub(lambda m: "\n" * m.group(0).count("\n"), LITERAL.sub(blank, text))


def line_of(text, position):
    return text.count("\n", 0, position) + 1


# ---- C -----------------------------------------------------------------------------------------------------------------


def scan_functions(code):
    """Functions of stripped C: at the outermost level, a brace after "name(...)" opens one."""
    found, depth, begin, current = [], 0, 0, None
    for m in re.finditer(r"[{};]", code):
        at, ch = m.start(), m.group(0)
        if ch == "{":
            head = code[begin:at]
            if depth == 0 and re.search(r'extern\s+""\s*$', head):
                begin = at + 1
                continue
            if depth == 0:
                current = parse_head(head, begin, code)
            depth += 1
        elif ch == "}":
            # A brace in column 0 ends whatever #if branches left open.
            depth = 0 if code[at - 1 : at] in ("\n", "") else max(depth - 1, 0)
            if depth == 0:
                if current:
                    found.append(current._replace(lines=line_of(code, at) - current.line + 1))
                current, begin = None, at + 1
        elif depth == 0:
            begin = at + 1
    return found


def parse_head(head, offset, code):
    """A Function when the text before a brace ends a parameter list, else None."""
    for m in re.finditer(r"\b([A-Za-z_]\w*)\s*\(", head):
        inside, end = bracketed(head, m.end() - 1)
        if re.fullmatch(r"(__\w+__|_\w+|[A-Z][A-Z0-9_]*)", m.group(1)) and head[end:].strip():
            continue  # an attribute or a macro around the declaration
        if "=" in head[: m.start()]:
            return None
        first = offset + len(head) - len(head.lstrip())
        return Function(m.group(1), line_of(code, first), 0, count_parameters(inside))
    return None


def bracketed(text, at):
    """What stands between the parenthesis at `at` and its partner, and the position after that."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return text[at + 1 : i], i + 1
    return text[at + 1 :], len(text)


def count_parameters(inside):
    depth, parts, part = 0, [], ""
    for ch in inside:
        depth += (ch in "([{") - (ch in ")]}")
        if ch == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += ch
    parts.append(part)
    parts = [p.strip() for p in parts]
    if parts in ([""], ["void"]):
        return 0
    return len(parts) - bool(re.match(r"fm_error\s*\*", parts[-1]))


def check_functions(tree):
    for path in tree.c_files():
        many = path.startswith(("src/kernels/", "tests/kernelcheck/"))
        for f in scan_functions(tree.stripped(path)):
            if f.lines > FUNCTION_LINES_MAX:
                yield Complaint("function-length", path, f.line, f"{f.name} has {f.lines} lines, at most "
                                f"{FUNCTION_LINES_MAX}: split it")
            if f.parameters > PARAMETERS_MAX and not many:
                yield Complaint("parameters", path, f.line, f"{f.name} takes {f.parameters} parameters, at most "
                                f"{PARAMETERS_MAX}: give it a struct")


def check_banned(tree):
    for path in tree.c_files():
        code = tree.stripped(path)
        for names, places, why in BANNED:
            if any(path.startswith(p) for p in places) or ("!src" in places and not path.startswith("src/")):
                continue
            for m in re.finditer(r"(?<![\w.>])(" + names.replace(" ", "|") + r")\s*\(", code):
                yield Complaint("banned", path, line_of(code, m.start(1)), f"{m.group(1)}() {why}")


# ---- Includes --------------------------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"]+)"|<([^>]+)>)', re.M)


def included(tree, path):
    """(line, name, is quoted, file it means or None) of every include of a file."""
    known, folder = tree.text, os.path.dirname(path)
    for m in INCLUDE.finditer(tree.text[path]):
        name, quoted = m.group(1) or m.group(2), m.group(1) is not None
        tries = [os.path.normpath(os.path.join(d, name)) for d in (folder, "src", "include", "tests", "")]
        yield line_of(tree.text[path], m.start()), name, quoted, next((t for t in tries if t in known), None)


def check_includes(tree):
    for path in tree.c_files():
        parts = path.split("/")
        layer = parts[1] if parts[0] == "src" and len(parts) > 2 else None
        for line, name, quoted, target in included(tree, path):
            if quoted and not target:
                yield Complaint("include-missing", path, line, f"\"{name}\" is no file of this project")
            if layer not in (None, "kernels", "base") and INTRINSICS.match(name):
                yield Complaint("include-intrinsics", path, line, f"<{name}> belongs to src/kernels or src/base")
            if layer and target and target.startswith("src/"):
                other = target.split("/")[1]
                if other != layer and other not in ALLOWED.get(layer, set()):
                    may = ", ".join(sorted(ALLOWED.get(layer, set()))) or "nothing"
                    yield Complaint("include-layer", path, line, f"{layer} may not include {name}; it may include {may}")
            if parts[0] == "examples" and quoted and name != "fmamba.h":
                yield Complaint("include-example", path, line, "an example uses the public header only")


# ---- Text ----------------------------------------------------------------------------------------------------------

NOTE = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
MACHINE = re.compile(r"(?<![\w.$}])/(work|root|home|opt/briefs)/\w")


def check_text(tree):
    for path, text in tree.text.items():
        lines = text.split("\n")
        yield from check_lines(path, lines)
        n = len(lines) - 1
        most = PUBLIC_HEADER_LINES_MAX if path == "include/fmamba.h" else FILE_LINES_MAX
        generated = any("generated by tools/" in s.lower() for s in lines[:6])
        if n > most and path.endswith(C_SUFFIXES + (".py", ".sh", ".cmake")) and not generated:
            yield Complaint("file-length", path, n, f"the file has {n} lines, at most {most}: split it")
        if text and not text.endswith("\n"):
            yield Complaint("last-newline", path, n + 1, "the last line does not end")
        if path.endswith(".h") and not re.search(r"^#ifndef FM\w*_H\b", text, re.M):
            yield Complaint("guard", path, 1, "no header guard FM_..._H (a file to be included twice ends in .inc)")


def check_lines(path, lines):
    tabs = os.path.basename(path) == "Makefile"
    prose = path.endswith(".md")
    for i, line in enumerate(lines, 1):
        if len(line) > LINE_COLUMNS_MAX and not prose:
            yield Complaint("line-length", path, i, f"{len(line)} columns, at most {LINE_COLUMNS_MAX}")
        if "\t" in line and not tabs:
            yield Complaint("tab", path, i, "a tab; use blanks")
        if line[-1:] in (" ", "\t", "\r"):
            yield Complaint("trailing", path, i, "blanks at the end of the line")
        if NOTE.search(line):
            yield Complaint("note", path, i, "a note to ourselves; do it, or open an issue")
        if MACHINE.search(line):
            yield Complaint("machine-path", path, i, "a path of somebody's machine")


# ---- Dead files ------------------------------------------------------------------------------------------------------


def check_dead(tree):
    used = {t for path in tree.c_files() for _, _, _, t in included(tree, path) if t and t != path}
    for path in tree.c_files():
        if path in used or path == "include/fmamba.h":
            continue
        if not path.endswith(".c"):
            yield Complaint("dead-header", path, 1, "nobody includes this file: delete it")
        elif not built(tree, path):
            yield Complaint("dead-source", path, 1, "no CMakeLists.txt names this file: add it or delete it")
    for path in tree.text:
        if path.startswith(("tools/", "scripts/")) and not path.endswith(C_SUFFIXES) and not mentioned(tree, path):
            yield Complaint("dead-tool", path, 1, "nothing mentions this file: document it or delete it")


def built(tree, path):
    """Whether a build file of the folder or one above it names the source (tests are named without their ending)."""
    folder = os.path.dirname(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    build_files = {n: t for n, t in tree.text.items() if n.endswith(("CMakeLists.txt", ".cmake", "Makefile"))}
    if any(f"/{path}" in text for text in build_files.values()):
        return True
    while True:
        names = [os.path.relpath(path, folder)] + ([] if path.startswith("src/") else [stem])
        named = re.compile(r"(?<![\w./])(" + "|".join(map(re.escape, names)) + r")(?!\w)")
        if any(os.path.dirname(n) == folder and named.search(t) for n, t in build_files.items()):
            return True
        if folder.count("/") == 0:
            return False
        folder = os.path.dirname(folder)


def mentioned(tree, path):
    name = os.path.basename(path)
    return any(name in text for other, text in tree.text.items() if other != path)


# ---- Markdown ----------------------------------------------------------------------------------------------------------

LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
CODE_PATH = re.compile(r"`((?:" + "|".join(ROOTS) + r")/[\w./-]*)`")


def check_markdown(tree):
    for path, text in tree.text.items():
        if not path.endswith(".md"):
            continue
        prose = re.sub(r"^```.*?^```", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.M | re.S)
        for m in LINK.finditer(prose):
            yield from check_link(tree, path, line_of(prose, m.start()), m.group(2), m.group(3))
        for m in CODE_PATH.finditer(prose):
            if not os.path.exists(os.path.join(tree.root, m.group(1))):
                yield Complaint("md-path", path, line_of(prose, m.start()), f"`{m.group(1)}` does not exist")


def check_link(tree, path, line, label, target):
    if re.match(r"[a-z]+:", target):
        return
    name, _, anchor = target.partition("#")
    file = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
    if not os.path.exists(os.path.join(tree.root, file)):
        yield Complaint("md-link", path, line, f"the link to {target} leads nowhere")
        return
    text = tree.text.get(file)
    if text is None:
        return
    number = re.fullmatch(r"L(\d+)(?:-L\d+)?", anchor)
    if number and int(number.group(1)) > text.count("\n"):
        yield Complaint("md-line", path, line, f"{file} has no line {number.group(1)}")
    elif anchor and not number and file.endswith(".md") and anchor not in headings(text):
        yield Complaint("md-heading", path, line, f"{file} has no heading #{anchor}")
    symbol = re.fullmatch(r"`(\w+)(?:\(\))?`", label)
    if symbol and not re.search(rf"\b{symbol.group(1)}\b", text):
        yield Complaint("md-symbol", path, line, f"{file} does not speak of {symbol.group(1)}")


def headings(text):
    """Anchors as web pages of repositories make them from headings."""
    found = []
    for m in re.finditer(r"^#+ +(.*)$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", m.group(1))
        found.append(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return found


# ---- Main ----------------------------------------------------------------------------------------------------------------

CHECKS = [check_includes, check_functions, check_banned, check_text, check_dead, check_markdown]


def complaints(root):
    tree = Tree(root)
    return sorted((c for check in CHECKS for c in check(tree)), key=lambda c: (c.path, c.line, c.rule))


def print_stats(root):
    tree = Tree(root)
    print(f"{'folder':<16} {'files':>6} {'lines':>7} {'functions':>10} {'median':>7} {'90 %':>5} {'longest':>8}")
    folders = sorted({"/".join(p.split("/")[:2]) for p in tree.c_files() if p.startswith(("src/", "tests/"))})
    for folder in ["src", *folders]:
        paths = [p for p in tree.c_files() if p.startswith(folder + "/")]
        functions = sorted((f.lines, f.name) for p in paths for f in scan_functions(tree.stripped(p)))
        sizes = [n for n, _ in functions] or [0]
        lines = sum(tree.text[p].count("\n") for p in paths)
        ninth = sizes[min(len(sizes) - 1, len(sizes) * 9 // 10)]
        longest = functions[-1] if functions else (0, "")
        print(f"{folder:<16} {len(paths):>6} {lines:>7} {len(functions):>10} {statistics.median(sizes):>7g} {ninth:>5} "
              f"{longest[0]:>8} {longest[1]}")


def main(argv):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if "--root" in argv:
        root = argv[argv.index("--root") + 1]
    if "--stats" in argv:
        print_stats(root)
        return 0
    found = complaints(root)
    for c in found:
        print(f"{c.path}:{c.line}: {c.text}")
    if found:
        print(f"tidy: {len(found)} complaints", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
