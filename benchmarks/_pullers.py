"""Programs that pull a bucket's object into a directory: ours, and rivals with their settings."""

import sys
from dataclasses import dataclass
from pathlib import Path

from _installing import go_program, python_with
from _metering import Usage, run_metered
from _scratch import remove_tree
from _servers import BUCKET, Store

S5CMD_VERSION = "v2.3.0"  # as rivals/s5cmd/go.mod says
OBSTORE_VERSION = "0.12.1"


@dataclass(frozen=True)
class Pull:
    """What is to be pulled, from where, and where to; each run begins with an empty `target`."""

    store: Store
    scheme: str
    object_name: str
    n_bytes: int
    target: Path

    def run(self, command: list[str], environment: dict[str, str] | None = None) -> Usage:
        remove_tree(self.target)
        self.target.mkdir()
        return run_metered(command, self.n_bytes, environment=environment)


def modelcache(pull: Pull) -> Usage:
    """`modelcache pull` as it comes: checksums on, no setting changed."""
    return pull.run(modelcache_command(pull))


def modelcache_command(pull: Pull) -> list[str]:
    store = pull.store
    return [
        *(str(Path(sys.executable).with_name("modelcache")), "pull", f"s3://{BUCKET}/"),
        *("--to", str(pull.target), "--endpoint", store.endpoint(pull.scheme)),
        *("--anonymous", "--ca-file", str(store.ca_file), "--json"),
    ]


@dataclass(frozen=True)
class S5cmd:
    """s5cmd with so many parts of a file at once, of so many MiB."""

    concurrency: int
    part_mib: int

    def __str__(self) -> str:
        return f"-c {self.concurrency} -p {self.part_mib}"

    def __call__(self, pull: Pull) -> Usage:
        program = str(go_program("s5cmd", S5CMD_VERSION, "github.com/peak/s5cmd/v2"))
        command = [
            *(program, "--no-sign-request", "--endpoint-url", pull.store.endpoint(pull.scheme)),
            *("cp", "-c", str(self.concurrency), "-p", str(self.part_mib)),
            *(f"s3://{BUCKET}/{pull.object_name}", str(pull.target / pull.object_name)),
        ]
        return pull.run(command, {"AWS_CA_BUNDLE": str(pull.store.ca_file)})


@dataclass(frozen=True)
class Obstore:
    """obstore with so many threads, or tasks of one event loop, and ranges of so many MiB."""

    how: str
    n_workers: int
    part_mib: int

    def __str__(self) -> str:
        return f"{self.n_workers} {self.how}, {self.part_mib} MiB"

    def __call__(self, pull: Pull) -> Usage:
        command = [
            str(python_with("obstore", OBSTORE_VERSION)),
            str(Path(__file__).with_name("_obstore_client.py")),
            *(pull.store.endpoint(pull.scheme), BUCKET, pull.object_name, str(pull.n_bytes)),
            *(str(pull.store.ca_file), str(pull.target / pull.object_name)),
            *(self.how, str(self.n_workers), str(self.part_mib)),
        ]
        return pull.run(command)


S5CMD_GRID = tuple(S5cmd(c, p) for c in (4, 8, 16, 32) for p in (8, 16, 50))
OBSTORE_GRID = tuple(
    Obstore(how, n, p) for how in ("threads", "tasks") for n in (4, 8, 16) for p in (8, 16)
)
#: The settings that won most often in full runs.
S5CMD_QUICK_GRID = (S5cmd(8, 16), S5cmd(16, 8))
OBSTORE_QUICK_GRID = (Obstore("threads", 8, 8), Obstore("tasks", 16, 8))
