"""The CSI Node service: parse, hand over, answer."""

import asyncio
import time
from pathlib import PurePosixPath
from typing import Any

from modelcache_api.errors import InvalidRequestError
from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.errors import AlreadyPublishedError, PreconditionError, VolumeNotFoundError
from modelcache_csi.metrics import PublishDurations, PublishOutcome
from modelcache_csi.mounts import Mounts
from modelcache_csi.publishing import Publisher
from modelcache_csi.rpc import rpc
from modelcache_csi.sizes import RevisionSizes
from modelcache_csi.volume_context import TargetPath, parse_publish, parse_volume_id

_CAPABILITIES = (csi_pb2.NodeServiceCapability.RPC.GET_VOLUME_STATS,)


class NodeService(csi_pb2_grpc.NodeServicer):
    """Every call is idempotent; what it finds on the node decides, not what was asked before.

    `refusal` is why no volume can be published on this node at all, None when it can.
    """

    def __init__(
        self,
        *,
        node_name: str,
        kubelet_root: PurePosixPath,
        mounts: Mounts,
        publisher: Publisher,
        sizes: RevisionSizes,
        durations: PublishDurations,
        refusal: str | None,
    ) -> None:
        self._node_name = node_name
        self._kubelet_root = kubelet_root
        self._mounts = mounts
        self._publisher = publisher
        self._sizes = sizes
        self._durations = durations
        self._refusal = refusal

    @rpc
    async def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: Any
    ) -> csi_pb2.NodePublishVolumeResponse:
        begun_s = time.monotonic()
        outcome = PublishOutcome.FAILED
        try:
            publish = parse_publish(request, self._kubelet_root)
            if self._refusal:
                raise PreconditionError(self._refusal)
            is_local = await self._publisher.publish(publish, deadline_s=context.time_remaining())
            outcome = PublishOutcome.LOCAL if is_local else PublishOutcome.WAITED
        finally:
            self._durations.observe(outcome, time.monotonic() - begun_s)
        return csi_pb2.NodePublishVolumeResponse()

    @rpc
    async def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: Any
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        parse_volume_id(request.volume_id)
        target = TargetPath.parse(request.target_path, self._kubelet_root)
        await self._publisher.unpublish(target)
        return csi_pb2.NodeUnpublishVolumeResponse()

    @rpc
    async def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: Any
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        parse_volume_id(request.volume_id)
        if not request.volume_path:
            raise InvalidRequestError("volume_path is missing")
        revision = await asyncio.to_thread(self._published_revision, request.volume_path)
        size = await asyncio.to_thread(self._sizes.of, revision)
        # A model is as big as it is: all of it is used, and nothing more can be.
        return csi_pb2.NodeGetVolumeStatsResponse(
            usage=[
                csi_pb2.VolumeUsage(
                    unit=csi_pb2.VolumeUsage.BYTES,
                    total=size.n_bytes,
                    used=size.n_bytes,
                ),
                csi_pb2.VolumeUsage(
                    unit=csi_pb2.VolumeUsage.INODES,
                    total=size.n_files,
                    used=size.n_files,
                ),
            ]
        )

    @rpc
    async def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: Any
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[
                csi_pb2.NodeServiceCapability(rpc=csi_pb2.NodeServiceCapability.RPC(type=kind))
                for kind in _CAPABILITIES
            ]
        )

    @rpc
    async def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: Any
    ) -> csi_pb2.NodeGetInfoResponse:
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_name)

    def _published_revision(self, volume_path: str) -> str:
        try:
            target = TargetPath.parse(volume_path, self._kubelet_root)
            revision = self._mounts.revision_at(target)
        except (InvalidRequestError, AlreadyPublishedError):
            revision = None
        if revision is None:
            raise VolumeNotFoundError(f"no volume of ours is published at {volume_path[:512]!r}")
        return revision
