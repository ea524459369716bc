"""The flags that every benchmark has, and where its lines go."""

import argparse
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Flags:
    """How one run is wanted."""

    json: bool
    quick: bool
    check: bool
    origin: str | None = None


def parse_flags(description: str, *, origins: tuple[str, ...] = ()) -> Flags:
    """The flags of this run; with `origins` there is ``--origin``, which names one of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--json", action="store_true", help="print one object of medians and ratios, nothing else"
    )
    parser.add_argument(
        "--quick", action="store_true", help="smaller and shorter: at most 50 s once all is there"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a figure is below its bar"
    )
    if origins:
        parser.add_argument(
            "--origin", choices=origins, help="that kind of store against S3, and nothing else"
        )
    args = parser.parse_args()
    return Flags(args.json, args.quick, args.check, getattr(args, "origin", None))


def say(line: str) -> None:
    """Tell whoever waits how far it is; never on standard output, which holds the results."""
    print(line, file=sys.stderr, flush=True)
