"""Pods for scenarios: documents only. Containers are `restricted` unless they run as root."""

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.programs import program

Fields = dict[str, Any]
MODEL = "/model"


def inline(name: str, model_cache: str, **attributes: str) -> Fields:
    """A volume that names a ModelCache of the pod's namespace."""
    named = {"modelCache": model_cache, **attributes}
    csi = {"driver": "csi.modelcache.io", "readOnly": True, "volumeAttributes": named}
    return {"name": name, "csi": csi}


def claimed(name: str, claim: str) -> Fields:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def persistent(name: str, namespace: str, model_cache: str) -> list[Fields]:
    """A static PersistentVolume of a model and the claim that takes it, of one name."""
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": namespace, "name": name},
        "csi": {
            "driver": "csi.modelcache.io",
            "volumeHandle": f"{namespace}-{name}",
            "readOnly": True,
            "volumeAttributes": {"modelCache": model_cache},
        },
    }
    claim = {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": volume,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": claim,
        },
    ]


def mount(volume: str, path: str = MODEL, sub_path: str = "") -> Fields:
    found: Fields = {"name": volume, "mountPath": path, "readOnly": True}
    return found | ({"subPath": sub_path} if sub_path else {})


def container(
    name: str, image: str, words: Sequence[str], mounts: Sequence[Fields], *, uid: int = 1000
) -> Fields:
    """A container that runs a program of `e2e.programs`: its name, then its arguments."""
    which, *arguments = words
    security: Fields = {"runAsUser": uid}
    if uid:
        security |= {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program(which), *arguments],
        "volumeMounts": list(mounts),
        "securityContext": security,
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
    }


def pod(
    name: str,
    containers: Sequence[Fields],
    volumes: Sequence[Fields],
    *,
    node: str | None = None,
    restart: str = "Never",
) -> Fields:
    """A pod of a tenant, to be given its namespace when it is started."""
    placed: Mapping[str, object] = (
        {"nodeSelector": {"kubernetes.io/hostname": node}} if node is not None else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            **placed,
            "restartPolicy": restart,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": list(containers),
            "volumes": list(volumes),
        },
    }
