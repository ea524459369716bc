"""Writes OCI images from layers: tar files in, one archive out; no daemon, no registry.

The same layers give the same bytes, so an image is known by what is in it.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BLOCK_BYTES = 1 << 20
GZIP_LEVEL = 6
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Layer:
    """One compressed layer on disk, and its two digests."""

    file: Path
    digest: str
    size_bytes: int
    diff_id: str


@dataclass(frozen=True)
class ImageConfig:
    """What a container of an image starts with."""

    entrypoint: tuple[str, ...]
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Blob:
    digest: str
    size_bytes: int

    def descriptor(self, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size_bytes}


def pack(directory: Path, tar: Path) -> None:
    """Write a directory as a layer's tar: sorted, without times or owners of this machine."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            info = archive.gettarinfo(str(path), str(path.relative_to(directory)))
            info.mtime = 0
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)


def compress(tar: Path, target: Path) -> Layer:
    """Compress a layer's tar into ``target`` and note both digests beside it."""
    plain = hashlib.sha256()
    scratch = target.with_suffix(".new")
    with (
        tar.open("rb") as source,
        scratch.open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
    ):
        while block := source.read(BLOCK_BYTES):
            plain.update(block)
            packed.write(block)
    with scratch.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"digest": f"sha256:{digest}", "diff_id": f"sha256:{plain.hexdigest()}"}
    scratch.replace(target)
    target.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    return load_layer(target)


def load_layer(file: Path) -> Layer:
    """A layer that was compressed before."""
    facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return Layer(file, facts["digest"], file.stat().st_size, facts["diff_id"])


def write_archive(
    target: Path, reference: str, layers: Sequence[Layer], config: ImageConfig, architecture: str
) -> str:
    """Write an image as one tar in the OCI layout; return the manifest's digest."""
    scratch = target.with_suffix(".new")
    with tarfile.open(scratch, "w", format=tarfile.USTAR_FORMAT) as archive:
        for layer in layers:
            info = _info(_blob_path(layer.digest), layer.size_bytes)
            with layer.file.open("rb") as content:
                archive.addfile(info, content)
        document = _config_document(layers, config, architecture)
        config_blob = _add_blob(archive, document)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config_blob.descriptor(CONFIG_TYPE),
            "layers": [_Blob(x.digest, x.size_bytes).descriptor(LAYER_TYPE) for x in layers],
        }
        blob = _add_blob(archive, manifest)
        index = _index_document(blob, reference, architecture)
        _add(archive, "index.json", _encode(index))
        _add(archive, "oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
    scratch.replace(target)
    return blob.digest


def _config_document(
    layers: Sequence[Layer], config: ImageConfig, architecture: str
) -> dict[str, object]:
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": list(config.entrypoint),
            "Env": [f"{name}={value}" for name, value in config.environment.items()],
            "User": config.user,
            "WorkingDir": "/",
            "Labels": dict(config.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }


def _index_document(manifest: _Blob, reference: str, architecture: str) -> dict[str, object]:
    entry = {
        **manifest.descriptor(MANIFEST_TYPE),
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
        "platform": {"architecture": architecture, "os": "linux"},
    }
    return {"schemaVersion": 2, "manifests": [entry]}


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add_blob(archive: tarfile.TarFile, document: Mapping[str, object]) -> _Blob:
    content = _encode(document)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _add(archive, _blob_path(digest), content)
    return _Blob(digest, len(content))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _info(name: str, size_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = 0o644
    return info
