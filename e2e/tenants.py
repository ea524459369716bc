"""One tenant of a cluster: a namespace with access to the store, its ModelCaches and its pods."""

import json
from collections.abc import Mapping
from typing import Any

from e2e.cluster import Cluster, Document
from e2e.lab.commands import LabError, wait_until

SECRET = "store"
READY_TIMEOUT_S = 240.0
RESOLVED_TIMEOUT_S = 60.0
PODS_TIMEOUT_S = 240.0
EVENT_TIMEOUT_S = 60.0
LOOK_INTERVAL_S = 0.5  # each look is a process; arbitrary
DELETE_TIMEOUT_S = 180.0


class Tenant:
    """What a user of one namespace does."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def create(self, **labels: str) -> None:
        """Make the namespace, with these labels, and in it the Secret of the store's owner."""
        store = self.cluster.store.credentials
        keys = {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
        }
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.namespace, "labels": labels},
            },
            self._own("v1", "Secret", SECRET, stringData=keys),
        )

    def delete(self, *, wait: bool = True) -> None:
        """Remove the namespace with all that is in it."""
        words = ("delete", "namespace", self.namespace, "--ignore-not-found")
        self.kubectl_anywhere(*words, f"--wait={str(wait).lower()}", timeout_s=DELETE_TIMEOUT_S)

    def kubectl(self, *words: str, timeout_s: float = 120) -> str:
        """Run kubectl in this namespace."""
        return self.kubectl_anywhere(*words, "--namespace", self.namespace, timeout_s=timeout_s)

    def kubectl_anywhere(self, *words: str, timeout_s: float) -> str:
        return self.cluster.kubectl(*words, timeout_s=timeout_s)

    # -- ModelCaches

    def declare(self, name: str, uri: str, **wishes: Any) -> None:
        """Ask for a model; ``wishes`` are those of `model_cache`."""
        self.cluster.apply(self.model_cache(name, uri, **wishes))

    def model_cache(
        self,
        name: str,
        uri: str,
        *,
        node: str | None = None,
        prefetch: str = "Eager",
        credentials: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """A ModelCache for a model of the run's store, on every node or on one."""
        store = self.cluster.store
        placement: dict[str, object] = {"prefetch": prefetch}
        if node is not None:
            placement["nodeSelector"] = {"kubernetes.io/hostname": node}
        source = {
            "uri": uri,
            "endpoint": store.url,
            "region": store.region,
            "credentials": dict(credentials or {"secretRef": {"name": SECRET}}),
        }
        spec = {"source": source, "placement": placement}
        return self._own("modelcache.io/v1alpha1", "ModelCache", name, spec=spec)

    def status(self, name: str) -> dict[str, Any]:
        """A ModelCache's status; empty while there is none."""
        found: dict[str, Any] = self.cluster.get("modelcache", name, self.namespace)
        return dict(found.get("status") or {})

    def wait_ready(self, name: str, *, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Wait until a ModelCache says that it is ready; return its status.

        Raises:
            LabError: It does not; the text holds its conditions.
        """
        try:
            self.kubectl(
                *("wait", f"modelcache/{name}", "--for=condition=Ready"),
                f"--timeout={timeout_s:.0f}s",
                timeout_s=timeout_s + 10,
            )
        except LabError as error:
            raise LabError(f"{error}\n{json.dumps(self.status(name), indent=1)}") from error
        return self.status(name)

    def wait_resolved(self, name: str) -> str:
        """Wait until it is known which revision a ModelCache stands for; return it."""
        return wait_until(
            lambda: str(self.status(name).get("revision") or ""),
            f"{name} to be resolved",
            timeout_s=RESOLVED_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )

    # -- pods

    def start(self, *pods: Document) -> None:
        """Create pods, or whatever else lives in a namespace."""
        self.cluster.apply(*(self._placed(pod) for pod in pods))

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("pod", name, self.namespace)
        return found

    def wait_finished(self, *names: str, timeout_s: float = PODS_TIMEOUT_S) -> None:
        """Wait until pods have ended well.

        Raises:
            LabError: One ended badly, or does not end; the text says what it says of itself.
        """

        def finished() -> bool:
            phases = {
                pod["metadata"]["name"]: pod["status"]["phase"]  # type: ignore[index]
                for pod in self.cluster.objects("pods", "--namespace", self.namespace)
            }
            for name in names:
                if phases.get(name) == "Failed":
                    raise LabError(f"pod {name} failed\n{self.explain(name)}")
            return all(phases.get(name) == "Succeeded" for name in names)

        try:
            wait_until(finished, f"pods {names}", timeout_s=timeout_s, interval_s=LOOK_INTERVAL_S)
        except LabError as error:
            raise LabError(f"{error}\n{''.join(map(self.explain, names))}") from error

    def wait_running(self, name: str) -> None:
        """Wait until a pod's containers run.

        Raises:
            LabError: They do not; the text says why.
        """
        self._wait_pod(name, "condition=Ready")

    def wait_phase(self, name: str, phase: str) -> None:
        """Wait, without polling, until a pod is in a phase.

        Raises:
            LabError: It is not; the text says why.
        """
        self._wait_pod(name, f"jsonpath={{.status.phase}}={phase}")

    def _wait_pod(self, name: str, what: str) -> None:
        try:
            self.kubectl(
                *("wait", f"pod/{name}", f"--for={what}", f"--timeout={PODS_TIMEOUT_S:.0f}s"),
                timeout_s=PODS_TIMEOUT_S + 10,
            )
        except LabError as error:
            raise LabError(f"{error}\n{self.explain(name)}") from error

    def logs(self, name: str, container: str = "") -> str:
        which = ("--container", container) if container else ()
        return self.kubectl("logs", name, *which)

    def report(self, name: str, container: str = "") -> Any:
        """The JSON document that a pod's program printed last."""
        return json.loads(self.logs(name, container).splitlines()[-1])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events on a pod, the oldest first."""
        narrow = ("--namespace", self.namespace, f"--field-selector=involvedObject.name={name}")
        found: list[dict[str, Any]] = self.cluster.objects("events", *narrow)
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def wait_event(self, name: str, reason: str, words: str = "") -> dict[str, Any]:
        """Wait for an Event on a pod whose message holds these words; return it.

        Raises:
            LabError: There is none; the text says what there is.
        """

        def found() -> list[dict[str, Any]]:
            return [
                event
                for event in self.events(name)
                if event.get("reason") == reason and words in event["message"]
            ]

        try:
            return wait_until(
                found,
                f"an Event {reason} on {name}",
                timeout_s=EVENT_TIMEOUT_S,
                interval_s=LOOK_INTERVAL_S,
            )[0]
        except LabError as error:
            raise LabError(f"{error}\n{self.explain(name)}") from error

    def explain(self, name: str) -> str:
        """What is known of a pod, for the message of a failed test."""
        log = ("logs", name, "--all-containers", "--tail=20", "--ignore-errors")
        parts = []
        for words in (("describe", "pod", name), log):
            try:
                parts.append(self.kubectl(*words))
            except LabError as error:
                parts.append(str(error))
        return "\n".join(parts)

    def remove(self, *names: str, wait: bool = True) -> None:
        """Delete pods."""
        self.kubectl(
            *("delete", "pod", *names, "--ignore-not-found", f"--wait={str(wait).lower()}"),
            timeout_s=DELETE_TIMEOUT_S,
        )

    def _own(self, api_version: str, kind: str, name: str, **fields: object) -> dict[str, object]:
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    def _placed(self, document: Document) -> dict[str, object]:
        metadata = document["metadata"]
        assert isinstance(metadata, Mapping)
        return {**document, "metadata": {**metadata, "namespace": self.namespace}}
