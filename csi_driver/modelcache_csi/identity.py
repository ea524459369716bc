"""The CSI Identity service: who this plugin is, and that it is there."""

from typing import Any

from google.protobuf.wrappers_pb2 import BoolValue

from modelcache_api.names import CSI_DRIVER
from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.rpc import rpc


class IdentityService(csi_pb2_grpc.IdentityServicer):
    """Stateless. Asks nobody: a plugin whose agent or API server is away is healthy itself."""

    def __init__(self, version: str) -> None:
        self._version = version

    @rpc
    async def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: Any
    ) -> csi_pb2.GetPluginInfoResponse:
        return csi_pb2.GetPluginInfoResponse(name=CSI_DRIVER, vendor_version=self._version)

    @rpc
    async def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: Any
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        return csi_pb2.GetPluginCapabilitiesResponse()

    @rpc
    async def Probe(self, request: csi_pb2.ProbeRequest, context: Any) -> csi_pb2.ProbeResponse:
        return csi_pb2.ProbeResponse(ready=BoolValue(value=True))
