"""What a request says about a volume, parsed once into frozen values.

A pod's author writes the attributes, so nothing but a ModelCache of the pod's own namespace can
be named here. Who the pod is comes from the kubelet, under ``csi.storage.k8s.io/``; the other
keys beneath that prefix (service account tokens among them) are never looked at.
"""

import hashlib
import os.path
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Self

from modelcache_api.errors import InvalidRequestError
from modelcache_api.names import (
    VOLUME_ATTRIBUTE_MODE,
    VOLUME_ATTRIBUTE_MODEL_CACHE,
    VOLUME_ATTRIBUTE_REVISION,
    revision_hex,
)
from modelcache_csi._proto.csi_pb2 import NodePublishVolumeRequest, VolumeCapability
from modelcache_csi.errors import PreconditionError

#: Bytes of an identifier. CSI 1.12, "Size Limits": 128 for a string field.
MAX_VOLUME_ID_BYTES = 128
#: Bytes of a path; Linux, PATH_MAX.
MAX_PATH_BYTES = 4096

_KUBERNETES_PREFIX = "csi.storage.k8s.io/"
_POD_NAME = f"{_KUBERNETES_PREFIX}pod.name"
_POD_NAMESPACE = f"{_KUBERNETES_PREFIX}pod.namespace"
_POD_UID = f"{_KUBERNETES_PREFIX}pod.uid"
_SERVICE_ACCOUNT = f"{_KUBERNETES_PREFIX}serviceAccount.name"
_EPHEMERAL = f"{_KUBERNETES_PREFIX}ephemeral"

_ATTRIBUTES = (
    VOLUME_ATTRIBUTE_MODEL_CACHE,
    VOLUME_ATTRIBUTE_MODE,
    VOLUME_ATTRIBUTE_REVISION,
)
#: A namespace is a DNS label, a ModelCache's name a DNS subdomain (RFC 1123).
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

# The kubelet names SINGLE_NODE_WRITER for inline volumes, whatever they are used for.
_ACCESS_MODES = (
    VolumeCapability.AccessMode.SINGLE_NODE_WRITER,
    VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY,
    VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
)
#: Mount options that a volume has in any case.
_MOUNT_FLAGS = ("ro", "nosuid", "nodev")


class Mode(StrEnum):
    """What a pod gets while its model is incomplete."""

    WAIT = "wait"
    LAZY = "lazy"


@dataclass(frozen=True, slots=True)
class TargetPath:
    """Where a volume appears: a normalised path beneath the kubelet's root directory."""

    root: PurePosixPath
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, root: PurePosixPath) -> Self:
        """Raises InvalidRequestError: not a path of its own beneath `root`."""
        if not text:
            raise InvalidRequestError("target_path is missing")
        if len(os.fsencode(text)) > MAX_PATH_BYTES or "\0" in text:
            raise InvalidRequestError("target_path is not a path")
        path = PurePosixPath(text)
        if not path.is_absolute() or os.path.normpath(text) != text:
            raise InvalidRequestError(f"target_path must be absolute and normalised: {text!r}")
        if root not in path.parents:
            raise InvalidRequestError(f"target_path is not beneath the kubelet's {root}: {text!r}")
        return cls(root, path.relative_to(root).parts)

    @classmethod
    def of(cls, root: str, parts: Iterable[str]) -> Self:
        """One that was parsed before, of what was kept of it."""
        return cls(PurePosixPath(root), tuple(parts))

    def __str__(self) -> str:
        return str(self.root.joinpath(*self.parts))

    @property
    def lease_id(self) -> str:
        """The name of the lease of whatever is mounted here.

        It is made of the path and not of the volume id, because several pods of a node may use
        one persistent volume, and because the mount table, which outlives this process, tells
        paths only.
        """
        return f"mount-{hashlib.sha256(os.fsencode(str(self))).hexdigest()[:32]}"

    @property
    def pod_directory(self) -> PurePosixPath | None:
        """``<root>/pods/<uid>``; None when the path is not laid out as the kubelet does."""
        if len(self.parts) < 3 or self.parts[0] != "pods":
            return None
        return self.root.joinpath(*self.parts[:2])


@dataclass(frozen=True, slots=True)
class Pod:
    """Who asks, in the kubelet's words."""

    namespace: str
    name: str
    uid: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Publish:
    """A NodePublishVolumeRequest that makes sense."""

    volume_id: str
    target: TargetPath
    pod: Pod
    model_cache: str
    mode: Mode
    revision: str | None
    is_ephemeral: bool


def parse_publish(request: NodePublishVolumeRequest, kubelet_root: PurePosixPath) -> Publish:
    """Raises InvalidRequestError or PreconditionError, in words for who reads the pod's Events."""
    volume_id = parse_volume_id(request.volume_id)
    target = TargetPath.parse(request.target_path, kubelet_root)
    if not request.HasField("volume_capability"):
        raise InvalidRequestError("volume_capability is missing")
    _check_capability(request.volume_capability)
    context = dict(request.volume_context)
    _check_attributes(context)
    return Publish(
        volume_id=volume_id,
        target=target,
        pod=_parse_pod(context),
        model_cache=_parse_model_cache(context),
        mode=_parse_mode(context),
        revision=_parse_revision(context),
        is_ephemeral=context.get(_EPHEMERAL) == "true",
    )


def parse_volume_id(volume_id: str) -> str:
    if not volume_id:
        raise InvalidRequestError("volume_id is missing")
    if len(volume_id.encode()) > MAX_VOLUME_ID_BYTES:
        raise InvalidRequestError(f"volume_id is longer than {MAX_VOLUME_ID_BYTES} bytes")
    return volume_id


def _check_capability(capability: VolumeCapability) -> None:
    if capability.WhichOneof("access_type") != "mount":
        raise InvalidRequestError("a model is a directory: volumeMode must be Filesystem")
    mode = capability.access_mode.mode
    if mode not in _ACCESS_MODES:
        name = VolumeCapability.AccessMode.Mode.Name(mode) if 0 <= mode <= 7 else mode
        raise InvalidRequestError(
            f"a model can only be read: accessModes must be [ReadOnlyMany], not {name}"
        )
    unknown = [flag for flag in capability.mount.mount_flags if flag not in _MOUNT_FLAGS]
    if unknown:
        raise InvalidRequestError(
            f"unknown mount option {unknown[0][:100]!r}; allowed: {', '.join(_MOUNT_FLAGS)}"
        )


def _check_attributes(context: Mapping[str, str]) -> None:
    for key in context:
        if key not in _ATTRIBUTES and not key.startswith(_KUBERNETES_PREFIX):
            raise InvalidRequestError(
                f"unknown volume attribute {key[:100]!r}; known: {', '.join(_ATTRIBUTES)}"
            )


def _parse_pod(context: Mapping[str, str]) -> Pod:
    missing = [key for key in (_POD_NAMESPACE, _POD_NAME, _POD_UID) if not context.get(key)]
    if missing:
        raise PreconditionError(
            f"the kubelet did not say {missing[0]}: the CSIDriver object needs podInfoOnMount: true"
        )
    namespace = context[_POD_NAMESPACE]
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidRequestError(f"not a namespace: {namespace[:100]!r}")
    return Pod(
        namespace=namespace,
        name=context[_POD_NAME],
        uid=context[_POD_UID],
        service_account=context.get(_SERVICE_ACCOUNT, ""),
    )


def _parse_model_cache(context: Mapping[str, str]) -> str:
    name = context.get(VOLUME_ATTRIBUTE_MODEL_CACHE, "")
    if not name:
        raise InvalidRequestError(
            f"volume attribute {VOLUME_ATTRIBUTE_MODEL_CACHE!r} is missing:"
            " it names a ModelCache of the pod's namespace"
        )
    if not _OBJECT_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{VOLUME_ATTRIBUTE_MODEL_CACHE}: {name[:100]!r} cannot name a ModelCache"
            " (only one of the pod's own namespace can be used, by its plain name)"
        )
    return name


def _parse_mode(context: Mapping[str, str]) -> Mode:
    text = context.get(VOLUME_ATTRIBUTE_MODE, Mode.WAIT)
    if text not in set(Mode):
        raise InvalidRequestError(
            f"{VOLUME_ATTRIBUTE_MODE}: {text[:100]!r} is none of {', '.join(Mode)}"
        )
    return Mode(text)


def _parse_revision(context: Mapping[str, str]) -> str | None:
    revision = context.get(VOLUME_ATTRIBUTE_REVISION)
    if revision is not None:
        revision_hex(revision)
    return revision
