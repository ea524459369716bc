"""Names that several parts must spell alike: API group, driver, labels, digests."""

import re

from modelcache_api.errors import InvalidRequestError

GROUP = "modelcache.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CSI_DRIVER = "csi.modelcache.io"

#: Audience of the projected token by which a prefetch Job proves who it is to an agent.
AGENT_AUDIENCE = "agent.modelcache.io"

#: The one name in every agent's certificate, however it is addressed (ADR 4).
AGENT_SERVER_NAME = "agent.modelcache.io"

#: Set or changed by a user: resolve the source again now.
REFRESH_ANNOTATION = f"{GROUP}/refresh"
#: On Jobs: which ModelCache (by uid) and which node they are for.
LABEL_MODEL_CACHE_UID = f"{GROUP}/model-cache-uid"
LABEL_NODE_HASH = f"{GROUP}/node"
LABEL_ROLE = f"{GROUP}/role"
#: On Jobs, as annotations because the values may be longer than a label's 63 characters.
ANNOTATION_MODEL_CACHE = f"{GROUP}/model-cache"
ANNOTATION_NODE = f"{GROUP}/node-name"
ANNOTATION_REQUEST = f"{GROUP}/request"

#: Attributes that a CSI volume may carry; any other key is refused.
VOLUME_ATTRIBUTE_MODEL_CACHE = "modelCache"
VOLUME_ATTRIBUTE_MODE = "mode"
VOLUME_ATTRIBUTE_REVISION = "revision"

_REVISION = re.compile(r"sha256:[0-9a-f]{64}")
_HEX256 = re.compile(r"[0-9a-f]{64}")


def revision_hex(revision: str) -> str:
    """The 64 hexadecimal digits of a revision, safe to use as one path element.

    Raises:
        InvalidRequestError: not ``sha256:`` and 64 lower-case hexadecimal digits.
    """
    if not _REVISION.fullmatch(revision):
        raise InvalidRequestError(f"not a revision (sha256:<64 hex digits>): {revision[:100]!r}")
    return revision.removeprefix("sha256:")


def blob_hex(key: str) -> str:
    """A blob key, checked: it comes from manifests, so this also stops path traversal."""
    if not _HEX256.fullmatch(key):
        raise InvalidRequestError(f"not a blob key (64 hex digits): {key[:100]!r}")
    return key


def tree_path(revision: str) -> str:
    """Where a complete revision's tree lies, relative to a node's data directory."""
    return f"revisions/{revision_hex(revision)}/tree"
