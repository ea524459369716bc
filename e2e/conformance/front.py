"""A front for the CSI plugin that adds a controller, so that csi-sanity has volumes to publish.

The conformance suite creates volumes through a controller before it tests a node. ModelCache has
none: kubelet and users name the volumes. This front, for tests alone, hands out one static fixture
under any name, and passes every call for the node, and all but one for the identity, on to the real
plugin, byte for byte.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

_PROTO = Path(__file__).with_name("controller.proto")
_CONTROLLER_SERVICE = 1  # PluginCapability.Service.Type
_CREATE_DELETE_VOLUME = 1  # ControllerServiceCapability.RPC.Type
#: CSI 1.12, "Size Limits".
_MAX_NAME_BYTES = 128
_SERVICE = "/csi.v1."
_TIMEOUT_S = 60.0


class Front:
    """Serves at `socket` inside its ``with`` block."""

    def __init__(
        self,
        socket: Path,
        plugin_socket: Path,
        volume_context: dict[str, str] | None,
        scratch: Path,
    ) -> None:
        """`volume_context` None: a controller that claims nothing, for a suite that asks first."""
        self._types = _message_types(scratch)
        self._context = volume_context
        self._volumes: dict[str, int] = {}
        self._plugin = grpc.insecure_channel(f"unix:{plugin_socket}")
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((_Handlers(self._method),))
        self._server.add_insecure_port(f"unix:{socket}")

    def __enter__(self) -> "Front":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._plugin.close()

    def _method(self, name: str) -> Callable[[bytes, Any], bytes]:
        if self._context is None:
            own = {"Controller/ControllerGetCapabilities": self._no_capabilities}
            return own.get(name.removeprefix(_SERVICE)) or self._passed_on(name)
        own = {
            "Identity/GetPluginCapabilities": self._plugin_capabilities,
            "Controller/ControllerGetCapabilities": self._capabilities,
            "Controller/CreateVolume": self._create,
            "Controller/DeleteVolume": self._delete,
            "Controller/ValidateVolumeCapabilities": self._validate,
        }
        return own.get(name.removeprefix(_SERVICE)) or self._passed_on(name)

    def _passed_on(self, name: str) -> Callable[[bytes, Any], bytes]:
        call = self._plugin.unary_unary(name)

        def pass_on(request: bytes, context: Any) -> bytes:
            try:
                return bytes(call(request, timeout=_TIMEOUT_S))
            except grpc.RpcError as e:
                context.abort(e.code(), e.details())
                raise AssertionError("abort() always raises") from e

        return pass_on

    def _make(self, kind: str, **fields: Any) -> bytes:
        return bytes(self._types[kind](**fields).SerializeToString())

    def _parse(self, kind: str, raw: bytes) -> Any:
        return self._types[kind].FromString(raw)

    def _plugin_capabilities(self, request: bytes, context: Any) -> bytes:
        service = {"service": {"type": _CONTROLLER_SERVICE}}
        return self._make("GetPluginCapabilitiesResponse", capabilities=[service])

    def _capabilities(self, request: bytes, context: Any) -> bytes:
        rpc = {"rpc": {"type": _CREATE_DELETE_VOLUME}}
        return self._make("ControllerGetCapabilitiesResponse", capabilities=[rpc])

    def _no_capabilities(self, request: bytes, context: Any) -> bytes:
        # Unknown, which is none: the suite takes an empty list for no answer.
        return self._make("ControllerGetCapabilitiesResponse", capabilities=[{"rpc": {"type": 0}}])

    def _create(self, request: bytes, context: Any) -> bytes:
        wish = self._parse("CreateVolumeRequest", request)
        if not wish.name or not wish.volume_capabilities:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name or capabilities are missing")
        size = wish.capacity_range.required_bytes
        volume_id = wish.name[:_MAX_NAME_BYTES]
        if self._volumes.setdefault(volume_id, size) != size:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists with another size")
        volume = {"capacity_bytes": size, "volume_id": volume_id, "volume_context": self._context}
        return self._make("CreateVolumeResponse", volume=volume)

    def _delete(self, request: bytes, context: Any) -> bytes:
        volume_id = self._parse("DeleteVolumeRequest", request).volume_id
        if not volume_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "volume_id is missing")
        self._volumes.pop(volume_id, None)
        return self._make("DeleteVolumeResponse")

    def _validate(self, request: bytes, context: Any) -> bytes:
        asked = self._parse("ValidateVolumeCapabilitiesRequest", request)
        if not asked.volume_id or not asked.volume_capabilities:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "id or capabilities are missing")
        if asked.volume_id not in self._volumes:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such volume")
        confirmed = {"volume_capabilities": asked.volume_capabilities}
        return self._make("ValidateVolumeCapabilitiesResponse", confirmed=confirmed)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, method: Callable[[str], Callable[[bytes, Any], bytes]]) -> None:
        self._method = method

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not details.method.startswith(_SERVICE):
            return None
        return grpc.unary_unary_rpc_method_handler(self._method(details.method))


def _message_types(scratch: Path) -> dict[str, Any]:
    """In a pool of their own: the plugin's stubs bear the same names."""
    compiled = scratch / "controller.pb"
    command = ["protoc", f"-I{_PROTO.parent}", f"--descriptor_set_out={compiled}", str(_PROTO)]
    if protoc.main(command) != 0:
        raise ValueError(f"{_PROTO} cannot be compiled")
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    types = message_factory.GetMessageClassesForFiles([file.name for file in files.file], pool)
    return {name.rpartition(".")[2]: kind for name, kind in types.items()}
