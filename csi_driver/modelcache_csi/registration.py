"""Makes the plugin known to the kubelet, without a sidecar.

The kubelet watches its ``plugins_registry`` folder. It asks whoever serves a socket there what it
is and where (GetInfo), opens that endpoint, and says how it went. When our socket appears anew -
a restarted worker, a restarted kubelet - it asks anew.
"""

import logging
from typing import Any

from modelcache_api.names import CSI_DRIVER
from modelcache_csi._proto import registration_pb2, registration_pb2_grpc
from modelcache_csi.rpc import rpc

#: Name of the socket within the registry folder.
SOCKET_NAME = f"{CSI_DRIVER}-reg.sock"
#: Versions of CSI, as the kubelet counts them: it serves everything 1.x under this one.
_SUPPORTED_VERSIONS = ("1.0.0",)

log = logging.getLogger(__name__)


class RegistrationService(registration_pb2_grpc.RegistrationServicer):
    """Tells the kubelet where the CSI socket is, by the path that the kubelet sees."""

    def __init__(self, csi_socket: str) -> None:
        self._csi_socket = csi_socket

    @rpc
    async def GetInfo(
        self, request: registration_pb2.InfoRequest, context: Any
    ) -> registration_pb2.PluginInfo:
        return registration_pb2.PluginInfo(
            type="CSIPlugin",
            name=CSI_DRIVER,
            endpoint=self._csi_socket,
            supported_versions=_SUPPORTED_VERSIONS,
        )

    @rpc
    async def NotifyRegistrationStatus(
        self, request: registration_pb2.RegistrationStatus, context: Any
    ) -> registration_pb2.RegistrationStatusResponse:
        if request.plugin_registered:
            log.info("the kubelet has registered the driver")
        else:
            log.error("the kubelet refuses the driver: %s", request.error[:1000])
        return registration_pb2.RegistrationStatusResponse()
