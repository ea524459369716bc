"""What test pods run: each module is a whole program, handed to `python3 -c` with its arguments.

They import nothing but the image's own packages, print one JSON document, and judge nothing.
"""

from pathlib import Path


def program(name: str) -> str:
    """The text of one program."""
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
