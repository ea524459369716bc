"""The lab's command line: `python3 -m e2e.lab up`, `down`, `status`, `kubectl …`."""

import argparse
import os
import sys
from pathlib import Path

from e2e.lab import image, tools
from e2e.lab.commands import LabError, say
from e2e.lab.lab import DEFAULT_DISK_BYTES, DEFAULT_NODES, GIB, Lab
from e2e.lab.settings import DEFAULT_NAME, LabNameError, Settings, default_directory


def main(argv: list[str]) -> int:
    """Do what the words say; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(_run(arguments) or 0)
    except (LabError, LabNameError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m e2e.lab", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="two labs of different names can run")
    parser.add_argument("--state-dir", type=Path, help="where the lab keeps its state")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tools", help="install packages and build the programs, once")
    build = verbs.add_parser("image", help="build the image, as OCI archives")
    build.add_argument("--refresh-base", action="store_true", help="with Debian's newest packages")
    up = verbs.add_parser("up", help="bring the lab up, with all it needs")
    up.add_argument("--nodes", type=int, default=DEFAULT_NODES)
    up.add_argument("--disk-gib", type=int, default=DEFAULT_DISK_BYTES // GIB)
    verbs.add_parser("load", help="build the image anew and give it to a running lab")
    verbs.add_parser("down", help="remove every trace but the logs")
    verbs.add_parser("status", help="what runs, and how to reach it")
    for name in ("kubectl", "helm"):
        tool = verbs.add_parser(name, help=f"run {name} against the lab", add_help=False)
        tool.add_argument("words", nargs=argparse.REMAINDER)
    node = verbs.add_parser("exec", help="run a command as if on a node")
    node.add_argument("node", help="n1, n2, …")
    node.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _run(arguments: argparse.Namespace) -> int | None:
    directory = arguments.state_dir or default_directory(arguments.name)
    lab = Lab(Settings(arguments.name, directory.absolute()))
    match arguments.verb:
        case "tools":
            _prepare()
        case "image":
            tools.ensure_packages()
            image.build(refresh_base=arguments.refresh_base)
        case "up":
            _prepare()
            lab.up(arguments.nodes, _images(), arguments.disk_gib * GIB)
        case "load":
            lab.use_images(_images())
        case "down":
            lab.down()
        case "status":
            return _status(lab)
        case "exec":
            index = int(arguments.node.removeprefix("n"))
            _become([*lab.enter_node(index), *arguments.words])
        case verb:
            _become([str(lab.settings.bin / verb), *arguments.words])
    return None


def _prepare() -> None:
    tools.ensure_packages()
    tools.ensure_all()


def _images() -> image.Build:
    images = image.build()
    image.unpack(images)
    return images


def _become(words: list[str]) -> None:
    """Let the command have this process, with its terminal and its exit code."""
    try:
        os.execvp(words[0], words)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not there: is the lab up?") from error


def _status(lab: Lab) -> int:
    if not lab.is_up():
        print(f"lab {lab.settings.name} is not up")
        return 1
    for name in lab.processes.names():
        record = lab.processes.record(name)
        state = f"process {record.pid}" if lab.processes.is_running(name) else "not running"
        print(f"{name:<12} {state:<18} {record.log}")
    print(f"PATH={lab.settings.bin}:$PATH    gives kubectl and helm for this lab")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
