"""Sources that cannot be used as named: exit code 42, the reason, and whose word it is."""

from pathlib import Path

import pytest

from support import faults
from support.command_line import CommandLine, Ended
from support.fault_origin import FaultOrigin
from support.s3_source import content_of


class Puller:
    """Pulls from an origin into one directory."""

    def __init__(self, modelcache: CommandLine, origin: FaultOrigin, to: Path) -> None:
        self.to = to
        self._modelcache = modelcache
        self._origin = origin

    def __call__(
        self, *flags: str, uri: str = "s3://models/model", anonymous: bool = True
    ) -> Ended:
        access = ["--anonymous"] if anonymous else []
        return self._modelcache(
            *("pull", uri, "--endpoint", self._origin.url, *access),
            *("--to", self.to, "--movers", "1", *flags),
        )


@pytest.fixture
def pull(modelcache: CommandLine, origin: FaultOrigin, tmp_path: Path) -> Puller:
    origin.put("models/model/config.json", b"{}")
    return Puller(modelcache, origin, tmp_path / "pulled")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the environment, and none from anywhere else."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDMINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def test_an_unknown_scheme_is_named_with_those_that_are_known(
    pull: Puller, origin: FaultOrigin
) -> None:
    refused = pull(uri="ftp://models/model")
    assert refused.code == 42
    assert "InvalidSource: unknown scheme ftp://" in refused.err
    assert "supported: s3://" in refused.err
    assert origin.asked == []


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_bucket_that_does_not_exist_is_said_and_not_asked_for_again(
    pull: Puller, origin: FaultOrigin, keys: None, anonymous: bool
) -> None:
    refused = pull(uri="s3://nowhere/model", anonymous=anonymous)
    assert refused.code == 42
    assert "SourceNotFound: s3://nowhere/model does not exist" in refused.err
    assert "NoSuchBucket" in refused.err
    assert len(origin.asked) == 1


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_prefix_that_holds_nothing_is_said_and_not_asked_for_again(
    pull: Puller, origin: FaultOrigin, keys: None, anonymous: bool
) -> None:
    refused = pull(uri="s3://models/mode", anonymous=anonymous)
    assert refused.code == 42
    assert "EmptySource: s3://models/mode holds no object" in refused.err
    assert len(origin.asked) == 1


def test_filters_that_leave_nothing_are_told_apart_from_an_empty_prefix(pull: Puller) -> None:
    refused = pull("--include", "*.safetensors")
    assert refused.code == 42
    assert "EmptySource" in refused.err
    assert "include/exclude leave in (1 were listed)" in refused.err


def test_wrong_credentials_are_denied_in_the_stores_words(
    pull: Puller, origin: FaultOrigin, keys: None
) -> None:
    origin.known_keys = frozenset({"AKIDOTHER"})
    refused = pull(anonymous=False)
    assert refused.code == 42
    assert "AccessDenied: s3://models/model may not be read with these credentials" in refused.err
    assert "InvalidAccessKeyId" in refused.err
    assert "sesame" not in refused.err
    assert len(origin.asked) == 1
    origin.known_keys = frozenset({"AKIDMINE"})
    assert pull(anonymous=False).code == 0


def test_missing_credentials_say_how_to_go_without(
    pull: Puller, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused = pull(anonymous=False)
    assert refused.code == 42
    assert "AccessDenied: no usable credentials for s3://models/model" in refused.err
    assert "give credentials or --anonymous" in refused.err


def test_a_secret_without_the_keys_names_them(pull: Puller, tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("AKIDMINE\n")
    refused = pull("--credentials-dir", str(tmp_path), anonymous=False)
    assert refused.code == 42
    assert "AccessDenied: the Secret lacks the key(s) AWS_SECRET_ACCESS_KEY" in refused.err


def test_credentials_that_may_list_but_not_read_are_denied(
    pull: Puller, origin: FaultOrigin
) -> None:
    origin.always(faults.denied())
    refused = pull()
    assert refused.code == 42
    assert "AccessDenied: /models/model/config.json: HTTP 403 (AccessDenied" in refused.err


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a/../../up", "holds the element '..'"),
        ("/etc/passwd", "is absolute"),
        ("n" * 300, "holds a name longer than 255 bytes"),
        ("a\0b", "holds a NUL"),
        ("CONFIG.json", "differ at most by case"),
    ],
    ids=["dots", "absolute", "300-bytes", "nul", "twin"],
)
def test_an_object_whose_name_cannot_be_a_file_is_named_and_nothing_is_written(
    pull: Puller, origin: FaultOrigin, name: str, rule: str
) -> None:
    origin.put(f"models/model/{name}", b"evil")
    refused = pull()
    assert refused.code == 42
    assert "UnsafePath: object name" in refused.err
    assert rule in refused.err
    assert "rename or exclude" in refused.err
    assert all(".modelcache" in path.parts for path in pull.to.rglob("*") if path.is_file())
    assert origin.count() == 0, "no object was read"
    assert pull("--include", "config.json").code == 0
    found = content_of(pull.to)
    assert found["config.json"] == b"{}"
    assert b"evil" not in found.values()
