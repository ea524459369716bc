"""Arguments: sizes, addresses, exit codes, configuration files."""

import argparse

import pytest

from modelcache_api.errors import (
    AccessDeniedError,
    InsufficientCapacityError,
    InvalidRequestError,
    SourceUnavailableError,
)
from modelcache_node.cli.arguments import build_parser, byte_count, host_port
from modelcache_node.cli.configuration import with_configuration
from modelcache_node.cli.entry import exit_code, main
from modelcache_node.cli.progress import human_bytes, progress_line

AGENT = ["agent", "--data-dir", "/d", "--listen", ":7070", "--socket", "/s"]


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("1000", 1000), ("1k", 1000), ("2Mi", 2 << 20), ("1.5Gi", 3 << 29), ("1T", 10**12)],
)
def test_sizes_are_written_as_kubernetes_quantities(text, n_bytes):
    assert byte_count(text) == n_bytes


@pytest.mark.parametrize("text", ["", "x", "-1", "1Q", "1 G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        byte_count(text)


def test_an_address_may_leave_out_the_host_or_be_ipv6():
    assert host_port(":7070") == ("", 7070)
    assert host_port("[::1]:7070") == ("::1", 7070)
    with pytest.raises(argparse.ArgumentTypeError):
        host_port("7070")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequestError("x"), 2),
        (AccessDeniedError("x"), 42),
        (SourceUnavailableError("x"), 75),
        (InsufficientCapacityError("x"), 75),
    ],
)
def test_exit_codes_say_who_must_act(error, code):
    assert exit_code(error) == code


def test_an_unknown_scheme_ends_with_42_and_says_what_is_known(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pull", "gopher://x/y", "--to", str(tmp_path / "out")])
    assert ended.value.code == 42
    assert "InvalidSource: unknown scheme gopher://" in capsys.readouterr().err


def test_wrong_usage_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pull"])
    assert ended.value.code == 2


def test_flags_win_over_the_configuration_file(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("capacity: 1Gi\npeer: [a:1, b:2]\nallow-any-disk: true\nlisten: ':1'\n")
    argv = with_configuration([*AGENT, "--config", str(file)])
    args = build_parser().parse_args(argv)
    assert (args.capacity, args.peer, args.allow_any_disk) == (1 << 30, [("a", 1), ("b", 2)], True)
    assert args.listen == ("", 7070)


def test_a_configuration_that_is_no_mapping_is_refused(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("- a\n")
    with pytest.raises(InvalidRequestError, match="not a mapping"):
        with_configuration([*AGENT, f"--config={file}"])


def test_progress_is_one_line_with_rate_and_rest():
    line = progress_line(1 << 30, 4 << 30, float(1 << 30), None)
    assert "25 %" in line
    assert "1.0 GiB of 4.0 GiB  1.0 GiB/s  3 s left" in line
    assert human_bytes(512) == "512 B"
