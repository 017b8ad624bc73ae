#!/usr/bin/env python3
"""Writes src/text/unicode_data.c and unicode_nfc.c: the character classes and the NFC data that the tokenizers need.

    python3 tools/unicode_tables.py classes > src/text/unicode_data.c
    python3 tools/unicode_tables.py nfc > src/text/unicode_nfc.c

The committed files hold Unicode 16.0.0, the version whose letters and numbers the regular expressions of Hugging Face's
tokenizers 0.23 know.  It takes the package unicodedata2 (16.0.0) where it is installed, else Python's own unicodedata, and says
in the files which version it was.
"""

import sys

try:
    import unicodedata2 as ucd
except ImportError:
    import unicodedata as ucd

LETTER, NUMBER, SPACE, MARK, PUNCT, NFC = 1, 2, 4, 8, 16, 32
BLOCK = 128
SPACES = [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]

# The Punctuation pre-tokenizer knows P* of Unicode 8.  These became P* later, and two have left it since.
PUNCT_LATER = """61d 9fd a76 c77 c84 1b4e-1b4f 1b7d-1b7f 2e43-2e4f 2e52-2e5d 10d6e 10ead 10f55-10f59 10f86-10f89 113d4-113d5
113d7-113d8 1144b-1144f 1145a-1145b 1145d 11660-1166c 116b9 1183b 11944-11946 119e2 11a3f-11a46 11a9a-11a9c 11a9e-11aa2
11b00-11b09 11be1 11c41-11c45 11c70-11c71 11ef7-11ef8 11f43-11f4f 11fff 12ff1-12ff2 16d6d-16d6f 16e97-16e9a 16fe2 1e5ff
1e95e-1e95f"""
PUNCT_BEFORE = [0x166D, 0x111C9]


def ranges(text):
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


def code_points():
    return (cp for cp in range(0x110000) if not 0xD800 <= cp < 0xE000)


def decompositions():
    """Full canonical decompositions, Hangul left out (it is arithmetic)."""
    out = {}
    for cp in code_points():
        nfd = ucd.normalize("NFD", chr(cp))
        if nfd != chr(cp) and not 0xAC00 <= cp <= 0xD7A3:
            out[cp] = [ord(c) for c in nfd]
    return out


def compositions():
    out = {}
    for cp in code_points():
        text = ucd.decomposition(chr(cp))
        if not text or text.startswith("<") or ucd.normalize("NFC", chr(cp)) != chr(cp):
            continue
        parts = [int(x, 16) for x in text.split()]
        if len(parts) == 2:
            out[tuple(parts)] = cp
    return out


def flags_of(compose):
    later = set(ranges(PUNCT_LATER))
    second = {b for _, b in compose} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    flags = [0] * 0x110000
    for cp in code_points():
        c = chr(cp)
        category = ucd.category(c)
        f = {"L": LETTER, "N": NUMBER, "M": MARK}.get(category[0], 0)
        if (category[0] == "P" and cp not in later) or cp in PUNCT_BEFORE or (cp < 128 and c in "$+<=>^`|~"):
            f |= PUNCT
        if cp in SPACES:
            f |= SPACE
        if ucd.combining(c) or cp in second or ucd.normalize("NFC", c) != c:
            f |= NFC
        flags[cp] = f
    return flags


def print_numbers(declaration, numbers):
    print(f"\n{declaration} = {{")
    line = "   "
    for n in numbers:
        if len(line) + len(n) + 2 > 118:
            print(line)
            line = "   "
        line += " " + n + ","
    print(line + "\n};")


def print_classes(flags):
    values = sorted(set(flags))
    assert len(values) <= 16, values
    number = {v: i for i, v in enumerate(values)}
    blocks, stage1 = {}, []
    for start in range(0, 0x110000, BLOCK):
        block = tuple(number[f] for f in flags[start : start + BLOCK])
        stage1.append(blocks.setdefault(block, len(blocks)))
    assert len(blocks) < 65536
    words = []
    for block in blocks:
        for i in range(0, BLOCK, 16):
            words.append("0x%x" % sum(c << (4 * k) for k, c in enumerate(block[i : i + 16])))
    print_numbers("const uint8_t fm_unicode_class[16]", ["%d" % v for v in values])
    print_numbers("const uint16_t fm_unicode_stage1[8704]", [str(i) for i in stage1])
    print_numbers(f"const uint64_t fm_unicode_stage2[{len(words)}]", words)


def print_nfc(decompose, compose):
    marks = []
    for cp in code_points():
        ccc = ucd.combining(chr(cp))
        if not ccc:
            continue
        if marks and marks[-1][1] == cp - 1 and marks[-1][2] == ccc:
            marks[-1][1] = cp
        else:
            marks.append([cp, cp, ccc])
    print(f"\nconst size_t fm_unicode_n_ccc = {len(marks)};")
    print_numbers("const fm_unicode_range fm_unicode_ccc[]", ["{%d,%d,%d}" % tuple(m) for m in marks])
    pool, rows = [], []
    for cp, parts in sorted(decompose.items()):
        rows.append("{%d,%d,%d}" % (cp, len(pool), len(parts)))
        pool += [str(p) for p in parts]
    print(f"\nconst size_t fm_unicode_n_decompose = {len(rows)};")
    print_numbers("const fm_unicode_slice fm_unicode_decompose[]", rows)
    print_numbers("const uint32_t fm_unicode_pool[]", pool)
    rows = ["{%d,%d,%d}" % (*k, v) for k, v in sorted(compose.items())]
    print(f"\nconst size_t fm_unicode_n_compose = {len(rows)};")
    print_numbers("const fm_unicode_pair fm_unicode_compose[]", rows)


def main():
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    if what not in ("classes", "nfc"):
        sys.exit(__doc__)
    compose = compositions()
    name = "unicode_data.c" if what == "classes" else "unicode_nfc.c"
    print(f"/* {name} - written by tools/unicode_tables.py from Unicode {ucd.unidata_version}; do not edit.")
    if what == "classes":
        print(" * Classes in two stages: blocks of 128 code points, 4 bits each.  Read by unicode.c. */")
        print('#include "text/unicode_data.h"')
        print(f'\nconst char fm_unicode_version[] = "{ucd.unidata_version}";')
        print_classes(flags_of(compose))
    else:
        print(" * Combining classes, full canonical decompositions, primary composites.  Read by unicode.c. */")
        print('#include "text/unicode_data.h"')
        print_nfc(decompositions(), compose)
    return 0


if __name__ == "__main__":
    sys.exit(main())
