"""Our protocol files against those of their owners, field by field."""

import json
import shutil
import subprocess
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "csi_driver/proto"

pytestmark = [
    pytest.mark.registry,
    pytest.mark.skipif(not shutil.which("go"), reason="no go client: it fetches the originals"),
    pytest.mark.timeout(300),
]

CASES = [
    ("csi.proto", "github.com/container-storage-interface/spec@v1.12.0", "csi.proto"),
    (
        "registration.proto",
        "k8s.io/kubelet@v0.34.1",
        "pkg/apis/pluginregistration/v1/api.proto",
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case[0])
def texts(request, tmp_path):
    """(ours, theirs) as descriptors."""
    ours, module, path = request.param
    original = _download(module) / path
    return _compiled(PROTO / ours, tmp_path), _compiled(original, tmp_path)


def test_every_message_and_field_we_declare_is_the_originals(texts):
    ours, theirs = (_messages(text) for text in texts)
    for name, message in ours.items():
        fields = {field.number: _shape(field) for field in message.field}
        originals = {field.number: _shape(field) for field in theirs[name].field}
        assert fields.items() <= originals.items(), name
        assert [one.name for one in message.oneof_decl] == [
            one.name for one in theirs[name].oneof_decl
        ]


def test_every_enum_we_declare_is_the_originals_and_whole(texts):
    ours, theirs = (_enums(text) for text in texts)
    for name, values in ours.items():
        assert values == theirs[name], name


def test_every_method_we_declare_is_the_originals(texts):
    ours, theirs = (
        {
            (text.package, service.name, method.name): (method.input_type, method.output_type)
            for service in text.service
            for method in service.method
        }
        for text in texts
    )
    assert ours
    assert ours.items() <= theirs.items()


def test_no_secret_is_ever_parsed(texts):
    ours, theirs = (_messages(text) for text in texts)
    declared = {(name, field.name) for name, message in ours.items() for field in message.field}
    secrets = {
        (name, field.name)
        for name, message in theirs.items()
        for field in message.field
        if field.name == "secrets"
    }
    assert not declared & secrets


def test_the_stubs_are_those_of_our_files(tmp_path):
    script = ROOT / "csi_driver/generate_stubs.py"
    namespace: dict = {"__file__": str(script), "__name__": "generate_stubs"}
    exec(compile(script.read_text(), script, "exec"), namespace)
    assert namespace["main"](tmp_path) == 0
    made = sorted((tmp_path / "modelcache_csi/_proto").iterdir())
    assert len(made) == 6
    for path in made:
        checked_in = ROOT / "csi_driver" / path.relative_to(tmp_path)
        assert path.read_text() == checked_in.read_text(), path.name


def _download(module: str) -> Path:
    command = ["go", "mod", "download", "-json", module]
    done = subprocess.run(command, check=True, capture_output=True, cwd="/")
    return Path(json.loads(done.stdout)["Dir"])


def _compiled(path: Path, tmp_path: Path) -> descriptor_pb2.FileDescriptorProto:
    out = tmp_path / f"{path.parent.name}-{path.name}.bin"
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{path.parent}", f"-I{well_known}", f"--descriptor_set_out={out}", path.name]
    assert protoc.main(["protoc", *arguments]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _messages(text) -> dict[str, descriptor_pb2.DescriptorProto]:
    found = {}

    def visit(prefix, message):
        found[f"{prefix}.{message.name}"] = message
        for nested in message.nested_type:
            visit(f"{prefix}.{message.name}", nested)

    for message in text.message_type:
        visit(text.package, message)
    return found


def _enums(text) -> dict[str, dict[int, str]]:
    return {
        f"{name}.{enum.name}": {value.number: value.name for value in enum.value}
        for name, message in _messages(text).items()
        for enum in message.enum_type
    }


def _shape(field) -> tuple:
    oneof = field.oneof_index if field.HasField("oneof_index") else None
    return field.name, field.type, field.label, field.type_name, oneof
