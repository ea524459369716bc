"""Authorities that are trusted beside the public ones, by listing and by movers."""

import pytest

from support.agent_process import run_cli
from support.fault_origin import FaultOrigin, Tls

pytestmark = pytest.mark.timeout(120)

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture
def ca_file(tmp_path):
    return tmp_path / "corp.pem"


@pytest.fixture
def origin(ca_file):
    tls = Tls()
    ca_file.write_text(tls.ca_pem)
    with FaultOrigin(tls) as found:
        found.put("models/m/weights", b"12345")
        yield found


def pull(origin, folder, *flags, environment=None):
    return run_cli(
        *("pull", "s3://models/m", "--endpoint", origin.url, "--to", folder),
        *flags,
        environment=environment,
    )


@pytest.mark.parametrize(("flags", "keys"), [(["--anonymous"], {}), ([], KEYS)])
def test_a_store_of_a_private_authority_is_listed_and_read(origin, ca_file, tmp_path, flags, keys):
    done = pull(origin, tmp_path / "to", *flags, "--also-trust", ca_file, environment=keys)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to" / "weights").read_bytes() == b"12345"


@pytest.mark.parametrize(("flags", "keys"), [(["--anonymous"], {}), ([], KEYS)])
def test_without_it_the_store_is_not_trusted(origin, tmp_path, flags, keys):
    done = pull(origin, tmp_path / "to", *flags, "--give-up", "1", environment=keys)
    assert done.returncode == 75
    assert "certificate" in done.stderr.lower()


@pytest.mark.parametrize("text", ["", "no certificate", None])
def test_a_file_without_a_certificate_is_refused(origin, tmp_path, text):
    named = tmp_path / "named.pem"
    if text is not None:
        named.write_text(text)
    done = pull(origin, tmp_path / "to", "--anonymous", "--also-trust", named)
    assert done.returncode == 2
    assert "--also-trust" in done.stderr
