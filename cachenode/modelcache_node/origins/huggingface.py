"""Hugging Face, or a mirror that speaks its API: listing by huggingface_hub, files by commit.

``hf://org/name[@revision][/folder]``, ``hf://datasets/org/name…``. A branch or tag is resolved to
its commit first, so that a push in between mixes nothing. Files are named by their content: SHA-256
for those in large file storage, git's SHA-1 for the small ones.

Secret key: ``HF_TOKEN``. Without `SourceOptions.endpoint` the variable ``HF_ENDPOINT`` is obeyed.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote, urlsplit

import httpx
from huggingface_hub import HfApi, close_session, get_token, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from modelcache_api.errors import (
    AccessDeniedError,
    InvalidSourceError,
    ModelCacheError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from modelcache_api.layouts import HubLayout
from modelcache_api.listing import ObjectGrant
from modelcache_api.manifest import Checksum
from modelcache_api.schemes import SECRET_KEYS
from modelcache_node.origins.answers import meaning
from modelcache_node.origins.base import SourceObject, SourceOptions
from modelcache_node.origins.credential_files import read_keys, require_keys
from modelcache_node.origins.keys import tree_path

HUB = "https://huggingface.co"
_TIMEOUT_S = 60.0
#: Files taken from the library at a time, in a thread. Arbitrary; its pages have up to a thousand.
_BATCH = 1000
_KINDS = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True, slots=True)
class Repository:
    """What a URI names. `revision` None is the default branch; `folder` is "" for all of it."""

    kind: str
    name: str
    revision: str | None
    folder: str

    @classmethod
    def parse(cls, uri: str) -> "Repository":
        """Raises InvalidSourceError: it does not name a repository."""
        parts = urlsplit(uri)
        elements = [parts.netloc, *parts.path.strip("/").split("/")]
        kind = _KINDS.get(elements[0], "model")
        if elements[0] in _KINDS:
            elements = elements[1:]
        if len(elements) < 2 or not all(elements) or parts.query or parts.fragment:
            raise InvalidSourceError(f"{uri!r} is not hf://org/name[@revision][/folder]")
        name, at, revision = elements[1].partition("@")
        if not name or (at and not revision):
            raise InvalidSourceError(f"{uri!r} names no repository, or no revision after the @")
        return cls(kind, f"{elements[0]}/{name}", unquote(revision) or None, "/".join(elements[2:]))


class HuggingFaceOrigin:
    """One repository. Make it with `open_huggingface`."""

    def __init__(
        self, options: SourceOptions, endpoint: str, token: str | None, repository: Repository
    ) -> None:
        self._options = options
        self._endpoint = endpoint
        self._token = token
        self._repository = repository
        self._at = ""
        self._api = HfApi(endpoint=endpoint, token=token or False)

    async def objects(self) -> AsyncIterator[SourceObject]:
        self._at = commit = await asyncio.to_thread(self._commit)
        files = self._files(commit)
        while batch := await asyncio.to_thread(self._take, files):
            for listed in batch:
                path = tree_path(listed.path, self._repository.folder)
                if path is not None:
                    yield self._object(listed, path, commit)

    async def grant(self, listed: SourceObject) -> ObjectGrant:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return ObjectGrant(url=listed.key, headers=headers)

    def layout(self) -> HubLayout:
        """See `base.HubLike`: also ``main`` is found offline, whatever the URI names."""
        if self._repository.folder:
            raise InvalidSourceError("the layout hf is of whole repositories, not of a folder")
        revision = self._repository.revision
        named = (revision,) if revision and revision not in ("main", self._at) else ()
        kind = f"{self._repository.kind}s"
        return HubLayout(kind, self._repository.name, self._at, ("main", *named))

    def _commit(self) -> str:
        with self._translated():
            found = self._api.repo_info(
                self._repository.name,
                repo_type=self._repository.kind,
                revision=self._repository.revision,
                timeout=_TIMEOUT_S,
            )
            if not found.sha:
                raise InvalidSourceError(f"{self._options.uri}: the hub names no commit")
            return found.sha

    def _files(self, commit: str) -> Iterator[RepoFile]:
        entries = self._api.list_repo_tree(
            self._repository.name,
            recursive=True,
            revision=commit,
            repo_type=self._repository.kind,
        )
        return (entry for entry in entries if isinstance(entry, RepoFile))

    def _take(self, files: Iterator[RepoFile]) -> list[RepoFile]:
        with self._translated():
            return list(islice(files, _BATCH))

    def _object(self, listed: RepoFile, path: str, commit: str) -> SourceObject:
        digest = f"sha256:{listed.lfs.sha256}" if listed.lfs else f"gitsha1:{listed.blob_id}"
        url = hf_hub_url(
            self._repository.name,
            listed.path,
            repo_type=self._repository.kind,
            revision=commit,
            endpoint=self._endpoint,
        )
        size_bytes = listed.lfs.size if listed.lfs else listed.size
        return SourceObject(path, url, size_bytes, digest, Checksum.parse(digest))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the library's errors become ours."""
        uri = self._options.uri
        try:
            yield
        except RevisionNotFoundError as e:
            raise SourceNotFoundError(f"{uri}: no such revision") from e
        except GatedRepoError as e:
            raise AccessDeniedError(
                f"{uri} is gated: have the token's account accept its terms on the hub"
            ) from e
        except HfHubHTTPError as e:
            raise _refusal(e, uri) from e
        except HFValidationError as e:
            raise InvalidSourceError(f"{uri}: {e}") from e
        except httpx.HTTPError as e:
            raise SourceUnavailableError(f"{self._endpoint} does not answer: {e}") from e


def _refusal(error: HfHubHTTPError, uri: str) -> ModelCacheError:
    answer = error.response
    if answer.status_code == 401:  # also for what does not exist, so as not to tell
        return AccessDeniedError(f"{uri} does not exist, or this token may not read it")
    return meaning(
        answer.status_code,
        uri,
        code=answer.headers.get("X-Error-Code"),
        retry_after=answer.headers.get("Retry-After"),
    )


@asynccontextmanager
async def open_huggingface(options: SourceOptions) -> AsyncIterator[HuggingFaceOrigin]:
    """The origin behind an ``hf://`` source.

    Raises:
        InvalidSourceError: the URI names no repository.
        AccessDeniedError: the Secret lacks keys.
    """
    repository = Repository.parse(options.uri)
    endpoint = (options.endpoint or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = _token(options)
    if token and not endpoint.startswith("https://"):
        raise InvalidSourceError("a token is sent over https:// only")
    context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
    set_client_factory(
        lambda: httpx.Client(verify=context, follow_redirects=True, timeout=_TIMEOUT_S)
    )
    try:
        yield HuggingFaceOrigin(options, endpoint, token, repository)
    finally:
        close_session()


def _token(options: SourceOptions) -> str | None:
    if options.anonymous:
        return None
    if options.credentials_dir is None:
        return get_token()
    keys = read_keys(options, SECRET_KEYS["hf"])
    require_keys(keys, SECRET_KEYS["hf"])
    return keys["HF_TOKEN"]
