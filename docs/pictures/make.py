"""Draw what a command prints: python docs/pictures/make.py NAME COMMAND…

python docs/pictures/make.py tree loreline tree ses_f385c4c9f8451a89
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 116
# A reader's own fixed-width font: nothing is fetched from elsewhere.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = FORMAT.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")


def main(name: str, *command: str) -> None:
    """Write `NAME.svg` beside this file."""
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(Text.assemble(("$ ", "dim"), (" ".join(command), "bold")))
    console.print(Text(done.stdout.rstrip("\n")))
    svg = console.export_svg(title=" ".join(command[:2]), code_format=FORMAT)
    Path(__file__).with_name(f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main(*sys.argv[1:])
