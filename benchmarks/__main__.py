"""Lists the benchmarks, or runs one: ``python -m benchmarks NAME [ARGUMENTS]``."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {"__init__", "__main__", "painter"}
"""Files that are no program."""


def main() -> None:
    """List or run."""
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in PARTS)
    if len(sys.argv) > 1 and sys.argv[1] in names:
        sys.argv = [f"benchmarks {sys.argv[1]}", *sys.argv[2:]]
        # as the main module, so that the processes that it starts find its functions
        runpy.run_module(f"benchmarks.{sys.argv[0].split()[1]}", run_name="__main__", alter_sys=True)
        return
    print("python -m benchmarks NAME [ARGUMENTS]    (make bench ARGS='NAME ...')\n")
    for name in names:
        text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
        print(f"  {name:18}{text.splitlines()[0] if text else ''}")
    print("\nThe results of the last runs are in benchmarks/RESULTS.md.")
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        sys.exit(f"\nThere is no benchmark {sys.argv[1]!r}.")


if __name__ == "__main__":
    main()
