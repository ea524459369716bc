"""Writes the protocol stubs: ``python csi_driver/generate_stubs.py`` (`make generate`).

The protocol files lie in ``proto/``; protoc is told that they are in the package of the stubs, so
that the stubs import each other by their absolute names and need no rewriting.
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_HERE = Path(__file__).resolve().parent
_PACKAGE = "modelcache_csi/_proto"
_NAMES = ("csi.proto", "registration.proto")


def main(out: Path = _HERE) -> int:
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{_PACKAGE}={_HERE / 'proto'}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            *(f"{_PACKAGE}/{name}" for name in _NAMES),
        ]
    )
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
