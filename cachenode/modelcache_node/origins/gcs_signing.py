"""Signed URLs of Google Cloud Storage, version 4 (GOOG4-RSA-SHA256). Pure but for the signer.

Form: https://cloud.google.com/storage/docs/authentication/signatures
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_ALGORITHM = "GOOG4-RSA-SHA256"


class Signer(NamedTuple):
    """A service account. `sign` makes an RSA signature over a SHA-256."""

    email: str
    sign: Callable[[bytes], bytes]


def sign_url(
    endpoint: str,
    path: str,
    query: Mapping[str, str],
    signer: Signer,
    *,
    now: dt.datetime,
    valid_s: int,
) -> str:
    """A URL by which anybody may GET one object for a while.

    Args:
        endpoint: Scheme and host, without a slash at the end.
        path: ``/bucket/key``, percent-encoded.
        query: What else the URL carries, such as the generation.
        signer: Who grants.
        now: Aware.
        valid_s: Seconds; Google allows seven days at most.
    """
    date = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{date[:8]}/auto/storage/goog4_request"
    signed = {
        **query,
        "X-Goog-Algorithm": _ALGORITHM,
        "X-Goog-Credential": f"{signer.email}/{scope}",
        "X-Goog-Date": date,
        "X-Goog-Expires": str(valid_s),
        "X-Goog-SignedHeaders": "host",
    }
    canonical_query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(signed.items())
    )
    host = urlsplit(endpoint).netloc
    request = f"GET\n{path}\n{canonical_query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    signature = signer.sign(f"{_ALGORITHM}\n{date}\n{scope}\n{digest}".encode()).hex()
    return f"{endpoint}{path}?{canonical_query}&X-Goog-Signature={signature}"
