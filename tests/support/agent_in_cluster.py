"""An agent as Kubernetes runs it: before an API server of ours, with the Job API over TLS."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelcache_api.names import AGENT_AUDIENCE, AGENT_SERVER_NAME
from support.agent_process import Agent, agent_home
from support.fault_origin import Tls
from support.origins.harness import free_port
from support.threaded_server import QuietHandler, ThreadedServer

NODE = "n1"
#: Has the agent find its ServiceAccount in the folder that is its first argument.
_RUN = (
    "import sys; from pathlib import Path; from modelcache_node.cli.entry import main;"
    "from modelcache_node.membership.api_server import ApiServer;"
    "ApiServer.in_cluster.__func__.__defaults__ = (Path(sys.argv.pop(1)),); main()"
)


class ApiServer:
    """Vouches for the token that it is told, as of a pod of `namespace` on this node.

    Attributes:
        written: Every status that the agent wrote, as text.
    """

    def __init__(self, tls: Tls, token: str, namespace: str) -> None:
        self.token = token
        self.namespace = namespace
        self.written: list[str] = []
        self.server = ThreadedServer(
            type("Handler", (_Handler,), {"api": self}), tls.server_context()
        )


class _Handler(QuietHandler):
    api: ApiServer

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        review = json.loads(self._body())
        is_known = review["spec"]["token"] == self.api.token
        pod = {"pod-name": "job", "pod-uid": "u", "node-name": NODE}
        user = {
            "username": f"system:serviceaccount:{self.api.namespace}:default",
            "extra": {f"authentication.kubernetes.io/{key}": [pod[key]] for key in pod},
        }
        status = {"authenticated": is_known, "audiences": [AGENT_AUDIENCE], "user": user}
        self._json(review | {"status": status}, 201)

    def do_GET(self) -> None:  # noqa: N802
        if "watch=" in self.path:
            self.send_answer(200, b"", {})
            return
        meta = {"name": NODE, "uid": "u", "resourceVersion": "1"}
        kind = {"apiVersion": "modelcache.io/v1alpha1", "kind": "CacheNode"}
        self._json({**kind, "metadata": meta, "spec": {}})

    def do_PATCH(self) -> None:  # noqa: N802
        self.api.written.append(self._body())
        self._json({})

    def _body(self) -> str:
        return self.rfile.read(int(self.headers["Content-Length"])).decode()

    def _json(self, document: dict[str, Any], status: int = 200) -> None:
        self.send_answer(
            status, json.dumps(document).encode(), {"Content-Type": "application/json"}
        )


class AgentInCluster(Agent):
    """See the module.

    Attributes:
        job_flags: How a Job reaches it, but for its token.
    """

    def __init__(self, home: Path, api: ApiServer, tls: Tls, *flags: str | Path) -> None:
        account, port = home / "account", free_port()
        account.mkdir()
        (account / "ca.crt").write_text(tls.ca_pem)
        (account / "token").write_text("agent-token")
        issued = tls.authority.issue_cert(AGENT_SERVER_NAME)
        issued.private_key_pem.write_to_path(home / "tls.key")
        issued.cert_chain_pems[0].write_to_path(home / "tls.crt")
        super().__init__(
            home,
            *("--kubernetes", "--node-name", NODE, "--job-listen", f"127.0.0.1:{port}"),
            *("--tls-cert", str(home / "tls.crt"), "--tls-key", str(home / "tls.key")),
            *("--allow-range", "127.0.0.0/8", "--log-level", "debug", *map(str, flags)),
        )
        self.program = (sys.executable, "-c", _RUN, str(account))
        self.environment = {
            "KUBERNETES_SERVICE_HOST": "localhost",
            "KUBERNETES_SERVICE_PORT": str(api.server.port),
        }
        self.job_url = f"https://127.0.0.1:{port}"
        self.ca_file = account / "ca.crt"
        self.job_flags: tuple[str | Path, ...] = (
            *("--agent", self.job_url, "--agent-server-name", AGENT_SERVER_NAME),
            *("--agent-ca-file", self.ca_file),
        )


@contextmanager
def agent_in_cluster(
    token: str, *flags: str | Path, namespace: str
) -> Iterator[tuple[AgentInCluster, ApiServer]]:
    tls = Tls()
    api = ApiServer(tls, token, namespace)
    with api.server, agent_home() as home:
        agent = AgentInCluster(home, api, tls, *flags)
        agent.start()
        try:
            yield agent, api
        finally:
            agent.stop()
