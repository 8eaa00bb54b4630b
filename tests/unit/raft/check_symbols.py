#!/usr/bin/env python3
"""The core is pure: what its library needs from outside is memory and the report of a broken invariant, nothing else.

usage: check_symbols.py LIBRARY NM
"""
import re
import subprocess
import sys

ALLOWED = re.compile(
    r"(mem(cpy|move|set|cmp)|free|xmalloc|xcalloc|xrealloc|buf_\w+|invariant_failed"
    # What the compiler puts in by itself: hardening, sanitizers, coverage.
    r"|__mem\w+_chk|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|tsan|gcov|llvm)_\w+)$"
)


def symbols(nm, library, *flags):
    listing = subprocess.run([nm, *flags, library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listing.splitlines() if line and not line.endswith(":")}


def main():
    library, nm = sys.argv[1:3]
    needed = symbols(nm, library, "-u") - symbols(nm, library, "--defined-only")
    impure = sorted(name for name in needed if not ALLOWED.match(name))
    if not any(name.startswith("mem") for name in needed):
        sys.exit(f"{library}: nm shows nothing that is needed: the check itself is broken")
    if impure:
        sys.exit(f"{library} needs {', '.join(impure)}")


main()
