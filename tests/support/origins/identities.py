"""The services at which clouds give tokens to workloads: Google's, Amazon's and Entra's, in one.

It asks nothing of who comes, and gives what is easy to find again. At ``/refuse``, or always while
`refuses` is set, it refuses, and repeats in its answer what it was asked, as careless ones do.
"""

import base64
import json
import time
from typing import Any
from urllib.parse import urlsplit

from support.fault_origin import Tls
from support.threaded_server import QuietHandler, ThreadedServer

GOOGLE_TOKEN = "ya29.canary-google-4f0c"
#: Temporary keys of Amazon: id, secret, session token.
AMAZON_KEYS = ("ASIACANARY0000000002", "canary-amazon-secret-5d1e", "canary-amazon-session-b820")
_LONG_S = 3600


def entra_token() -> str:
    """A token for Blob Storage that nobody signed; claims as azurite looks at them."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/tenant/",
        "nbf": now - 60,
        "iat": now - 60,
        "exp": now + _LONG_S,
        "oid": "canary-entra-object-id",
        "tid": "tenant",
    }
    parts = (json.dumps({"alg": "none"}), json.dumps(claims), "canary-entra-signature")
    return ".".join(base64.urlsafe_b64encode(one.encode()).rstrip(b"=").decode() for one in parts)


class IdentityService:
    """Serves inside its ``with`` block.

    Attributes:
        refuses: Refuse everybody.
        asked: Paths that were asked for.
        entra_token: What it gives to who comes for Entra's.
    """

    def __init__(self, tls: Tls | None = None) -> None:
        self.refuses = False
        self.asked: list[str] = []
        self.entra_token = entra_token()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadedServer(handler, tls.server_context() if tls else None)
        self._scheme = "https" if tls else "http"

    @property
    def host(self) -> str:
        return f"{'localhost' if self._scheme == 'https' else '127.0.0.1'}:{self._server.port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def __enter__(self) -> "IdentityService":
        self._server.__enter__()
        return self

    def __exit__(self, *why: Any) -> None:
        self._server.__exit__(*why)


class _Handler(QuietHandler):
    service: IdentityService

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.service.asked.append(path)
        if self.service.refuses or path == "/refuse":
            self._refuse(f"{asked} {self.headers}")
        elif path.startswith("/computeMetadata/") or path == "/":
            self._metadata(path)
        elif path == "/google":
            kind = "urn:ietf:params:oauth:token-type:access_token"
            self._json({**_bearer(GOOGLE_TOKEN), "issued_token_type": kind})
        elif path == "/amazon":
            self._json(_amazon_keys())
        elif path == "/sts":
            self.send_answer(200, _assumed().encode(), {"Content-Type": "text/xml"})
        else:
            self._json(_bearer(self.service.entra_token))

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the library's names

    def _metadata(self, path: str) -> None:
        """GKE's, as Google's library asks it."""
        flavor = {"Metadata-Flavor": "Google", "Content-Type": "application/text"}
        if path.endswith("/token"):
            self._json(_bearer(GOOGLE_TOKEN), flavor)
        elif path.endswith("/project-id"):
            self.send_answer(200, b"project", flavor)
        elif path.endswith("/default/"):
            account = {"email": "reader@project.iam.gserviceaccount.com", "scopes": []}
            self._json({**account, "aliases": ["default"]}, flavor)
        else:
            self.send_answer(200, b"", flavor)

    def _json(self, document: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        headers = {**(headers or {}), "Content-Type": "application/json"}
        self.send_answer(200, json.dumps(document).encode(), headers)

    def _refuse(self, words: str) -> None:
        if self.path.startswith("/sts"):
            text = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{words}</Message>"
            self.send_answer(403, f"{text}</Error></ErrorResponse>".encode(), {})
            return
        said = {"error": "invalid_grant", "error_description": f"AADSTS7000215: {words}"}
        body = json.dumps({**said, "message": words, "code": "Denied"}).encode()
        self.send_answer(400, body, {"Content-Type": "application/json"})


def _bearer(token: str) -> dict[str, Any]:
    return {"access_token": token, "expires_in": _LONG_S, "token_type": "Bearer"}


def _expiration() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LONG_S))


def _amazon_keys() -> dict[str, str]:
    """As EKS Pod Identity gives them."""
    key, secret, session = AMAZON_KEYS
    return {
        "AccessKeyId": key,
        "SecretAccessKey": secret,
        "Token": session,
        "Expiration": _expiration(),
    }


def _assumed() -> str:
    """As STS answers AssumeRoleWithWebIdentity."""
    key, secret, session = AMAZON_KEYS
    return (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>"
        f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{session}</SessionToken>"
        f"<Expiration>{_expiration()}</Expiration></Credentials>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
