"""The administrator's authorities, trusted beside the public ones by all that speaks TLS here."""

import os
from pathlib import Path

import certifi

from modelcache_api.errors import InvalidRequestError

#: By which OpenSSL (and so Python, aiohttp and our movers), requests and Amazon's library find
#: the authorities to trust.
_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
_MARK = "-----BEGIN CERTIFICATE-----"


def trust_also(pem_file: Path) -> None:
    """Trust what a PEM file holds, in this process and in those that it starts.

    To be called before anything that speaks TLS is imported: some read their authorities then.

    Raises:
        InvalidRequestError: the file cannot be read, or holds no certificate.
    """
    try:
        ours = pem_file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidRequestError(f"--also-trust {pem_file}: {e}") from e
    if _MARK not in ours:
        raise InvalidRequestError(f"--also-trust {pem_file} holds no certificate (PEM)")
    public = Path(certifi.where()).read_text()
    # in memory, and open for as long as this process lives: nothing is left behind
    bundle = os.memfd_create("authorities")
    with open(bundle, "w", closefd=False) as written:
        written.write(f"{public}\n{ours}")
    os.environ.update(dict.fromkeys(_VARIABLES, f"/proc/{os.getpid()}/fd/{bundle}"))
