"""One lab: brought up, looked at, taken down; what it is made of is recorded in its directory."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import cgroups, control_plane, disks, network, nodes, pki, s3_server
from e2e.lab.commands import LabError, run, say, wait_until
from e2e.lab.image import Build
from e2e.lab.processes import Processes
from e2e.lab.s3_client import Credentials
from e2e.lab.settings import MAX_NODES, Settings, netns_path
from e2e.lab.tools import HELM, KUBERNETES, program

NODES_TIMEOUT_S = 180.0  # three nodes need about 20 s on two idle cores
GIB = 1 << 30
DEFAULT_NODES = 3
DEFAULT_DISK_BYTES = 16 * GIB  # sparse: what is not written takes no space


@dataclass(frozen=True)
class Shape:
    """What was asked for when the lab was brought up, and what it must remember of that."""

    nodes: int
    image_store: Path
    disk_bytes: int
    credentials: Credentials


class Lab:
    """The lab of one name, running or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.processes = Processes(settings.records, settings.logs)

    def up(self, node_count: int, images: Build, disk_bytes: int) -> None:
        """Bring everything up; on failure take it down again, keeping the logs.

        Raises:
            LabError: Something cannot be made or does not become ready.
        """
        if os.geteuid() != 0:
            raise LabError("the lab needs root: namespaces, mounts, control groups")
        if not 1 <= node_count <= MAX_NODES:
            raise LabError(f"one to {MAX_NODES} nodes, not {node_count}")
        if self.is_up() or network.existing(self.settings.name):
            raise LabError(f"lab {self.settings.name} is there already: `down` removes it")
        started = time.monotonic()
        try:
            self._create(node_count, images, disk_bytes)
        except BaseException:
            say(f"failed; the logs stay in {self.settings.logs}")
            self.down()
            raise
        say(f"{node_count} nodes are ready after {time.monotonic() - started:.0f} s")

    def is_up(self) -> bool:
        return (self.settings.directory / "lab.json").exists()

    def shape(self) -> Shape:
        """What the lab was brought up as.

        Raises:
            LabError: It is not up.
        """
        try:
            text = (self.settings.directory / "lab.json").read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise LabError(f"lab {self.settings.name} is not up") from error
        fields = json.loads(text)
        return Shape(
            fields["nodes"],
            Path(fields["image_store"]),
            fields["disk_bytes"],
            Credentials(fields["access_key"], fields["secret_key"]),
        )

    def start_node(self, index: int) -> None:
        shape = self.shape()
        nodes.start(self.settings, self.processes, index, shape.image_store, shape.disk_bytes)

    def stop_node(self, index: int) -> None:
        nodes.stop(self.settings, self.processes, index)

    def use_images(self, images: Build) -> None:
        """Give a running lab's nodes newer images, and every node that starts later.

        Raises:
            LabError: The lab is not up, or a node refuses an archive.
        """
        shape = self.shape()
        self._remember(Shape(shape.nodes, images.store, shape.disk_bytes, shape.credentials))
        for index in range(1, shape.nodes + 1):
            for archive in images.archives:
                ctr = ["ctr", "--namespace", "k8s.io", "images", "import", str(archive)]
                run([*self.enter_node(index), *ctr])

    def enter_node(self, index: int) -> list[str]:
        """The words that run a command as if on that node."""
        first = nodes.first_process(self.processes, nodes.process_name(self.settings, index))
        return ["nsenter", f"--target={first}", "--mount", "--net", "--pid"]

    def nodes_are_ready(self, names: Sequence[str]) -> bool:
        """Whether the API server calls all of these nodes ready."""
        template = (
            "{range .items[*]}{.metadata.name}="
            '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        )
        get = [str(self.settings.bin / "kubectl"), "get", "nodes", "-o", f"jsonpath={template}"]
        lines = run(get, check=False, timeout_s=30).stdout.split()
        return all(f"{name}=True" in lines for name in names)

    def down(self) -> None:
        """Remove every trace but the logs; also after a crash half way up, and twice in a row."""
        settings = self.settings
        for name in self.processes.names():
            self.processes.stop(name, kill=True)
        network.delete(settings.name)
        cgroups.delete(f"{settings.name}-")
        disks.release(settings.directory)
        self._remove_mount_points()
        if settings.directory.is_dir():
            for entry in settings.directory.iterdir():
                if entry == settings.logs:
                    continue
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _create(self, node_count: int, images: Build, disk_bytes: int) -> None:
        settings = self.settings
        shutil.rmtree(settings.logs, ignore_errors=True)
        for directory in (settings.directory, settings.logs, settings.bin):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        credentials = s3_server.new_credentials()
        self._remember(Shape(node_count, images.store, disk_bytes, credentials))
        self._make_mount_points()
        pki.create(settings, node_count)
        self._write_commands()
        network.create(settings, node_count)
        control_plane.start(settings, self.processes)
        s3_server.start(settings, self.processes, credentials)
        indices = range(1, node_count + 1)
        for index in indices:
            self.start_node(index)
        names = [settings.node_name(index) for index in indices]
        wait_until(
            lambda: self._nodes_run(indices) and self.nodes_are_ready(names),
            "all nodes to be ready",
            timeout_s=NODES_TIMEOUT_S,
        )

    def _nodes_run(self, indices: Sequence[int]) -> bool:
        for index in indices:
            name = nodes.process_name(self.settings, index)
            if not self.processes.is_running(name):
                raise LabError(f"{name} ended: see {self.processes.record(name).log}")
        return True

    def _remember(self, shape: Shape) -> None:
        fields = {
            "nodes": shape.nodes,
            "image_store": str(shape.image_store),
            "disk_bytes": shape.disk_bytes,
            "access_key": shape.credentials.access_key,
            "secret_key": shape.credentials.secret_key,
        }
        path = self.settings.directory / "lab.json"
        path.write_text(json.dumps(fields), encoding="utf-8")
        path.chmod(0o600)

    def _write_commands(self) -> None:
        """Write `kubectl` and `helm` that enter the lab, so that anybody can call them."""
        enter = shlex.join(["nsenter", f"--net={netns_path(self.settings.control_plane_netns)}"])
        kubeconfig = shlex.quote(str(self.settings.admin_kubeconfig))
        for tool, name in ((KUBERNETES, "kubectl"), (HELM, "helm")):
            script = self.settings.bin / name
            binary = shlex.quote(str(program(tool, name)))
            cache = shlex.quote(str(self.settings.directory / "kubectl-cache"))
            variables = f"export KUBECONFIG={kubeconfig} KUBECACHEDIR={cache}"
            text = f'#!/bin/sh\n{variables}\nexec {enter} {binary} "$@"\n'
            script.write_text(text, encoding="utf-8")
            script.chmod(0o755)

    def _make_mount_points(self) -> None:
        """Make the directories over which nodes mount, and note which were not there."""
        made = []
        for point in nodes.mount_points():
            path = Path(point)
            for directory in [*reversed(path.parents), path]:
                if not directory.exists():
                    directory.mkdir()
                    made.append(str(directory))
        text = json.dumps(made)
        (self.settings.directory / "made.json").write_text(text, encoding="utf-8")

    def _remove_mount_points(self) -> None:
        path = self.settings.directory / "made.json"
        if not path.exists():
            return
        for directory in reversed(json.loads(path.read_text(encoding="utf-8"))):
            try:
                Path(directory).rmdir()
            except OSError:
                say(f"left {directory}, which is not empty")
