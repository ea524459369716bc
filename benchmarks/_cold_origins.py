"""Cold pulls from another kind of store, against S3 by the same server with the same hash."""

import sys
from functools import partial
from pathlib import Path

from _flags import say
from _metering import Usage
from _origins import ALGORITHMS, Digests, locations, pull_flags, s3_listing
from _pullers import Pull
from _reports import Bar, Report, table
from _rounds import alternate, median_of, ratio_of
from _scratch import disk_directory, make_file, memory_directory, remove_tree
from _servers import BUCKET, nginx_store

OBJECT = "model.safetensors"
KINDS = tuple(ALGORITHMS)
AT_LEAST = 0.9


def measure_origin(kind: str, n_bytes: int, rounds: int) -> Report:
    """Both read as their client library lists them: S3 signed, the other anonymously."""
    report = Report("cold", bars=[Bar(f"{kind}_speed_vs_s3", at_least=AT_LEAST)])
    with memory_directory(n_bytes) as memory, disk_directory() as disk:
        bucket, state, target = memory / BUCKET, memory / "server", disk / "to"
        source = make_file(bucket / OBJECT, n_bytes)
        state.mkdir()
        say(f"{kind}: the object's digests")
        extra = locations(kind, state, bucket, OBJECT, Digests.of(source))
        with nginx_store(bucket, state, locations=extra) as store:
            (state / "list.xml").write_text(s3_listing(kind, bucket))
            pull = Pull(store, "http", OBJECT, n_bytes, target)
            s3 = [f"s3://{BUCKET}/", "--endpoint", store.http_url]
            commands = {
                kind: _command(pull, pull_flags(kind, store)),
                "s3": _command(pull, [*s3, f"--credentials-dir={_credentials(state)}"]),
            }
            found = alternate({name: partial(pull.run, c) for name, c in commands.items()}, rounds)
        remove_tree(target)
    _report(report, kind, found)
    return report


def _command(pull: Pull, flags: list[str]) -> list[str]:
    program = str(Path(sys.executable).with_name("modelcache"))
    return [program, "pull", *flags, "--to", str(pull.target), "--json"]


def _credentials(state: Path) -> Path:
    """nginx looks at no signature; the client makes them all the same."""
    folder = state / "credentials"
    folder.mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (folder / name).write_text("benchmark")
    return folder


def _report(report: Report, kind: str, found: dict[str, list[Usage]]) -> None:
    ratio = report.add(f"{kind}_speed_vs_s3", ratio_of(found[kind], found["s3"], _speed))
    rows = []
    for name, usages in found.items():
        speed = report.add(f"{kind}_run_{name}_gb_per_s", median_of(usages, _speed))
        cpu = report.add(
            f"{kind}_run_{name}_cpu_s_per_gb", median_of(usages, lambda one: one.cpu_seconds_per_gb)
        )
        rows.append((name, f"{speed:.2f}", f"{cpu:.2f}"))
    hashed = ALGORITHMS[kind] or "no checksum"
    report.tables.append(table((f"{hashed}", "GB/s", "client CPU s/GB"), rows))
    report.tables[-1] += f"\n\n{kind} is {ratio:.2f} × as fast as S3."


def _speed(usage: Usage) -> float:
    return usage.gb_per_s
