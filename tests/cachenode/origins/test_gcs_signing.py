"""Signed URLs are those that Google's own library makes."""

import datetime as dt
import hashlib
from urllib.parse import quote

from modelcache_node.caching.resolving import place_of
from modelcache_node.origins.gcs_signing import Signer, sign_url

#: By google-cloud-storage 3.17.1 (`generate_signed_url_v4`), with this signer, path and time.
GOOGLES = (
    "https://storage.googleapis.com/bucket/model/%C3%A4%20b%2Bc~%25.bin"
    "?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=reader%40project.iam.gserviceaccount.com"
    "%2F20261021%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20261021T072800Z"
    "&X-Goog-Expires=3600&X-Goog-SignedHeaders=host&generation=17&userProject=p&X-Goog-Signature="
    "bcea6f03219f0e7b1132289c29109171a756dbc6086e30bc5f696f6b5f750dda"
)


def signed(now):
    def digest(raw: bytes) -> bytes:
        return hashlib.sha256(raw).digest()

    return sign_url(
        "https://storage.googleapis.com",
        "/bucket/" + quote("model/ä b+c~%.bin", safe="/~"),
        {"generation": "17", "userProject": "p"},
        Signer("reader@project.iam.gserviceaccount.com", digest),
        now=now,
        valid_s=3600,
    )


def test_a_signed_url_is_the_one_that_googles_library_makes():
    assert signed(dt.datetime(2026, 10, 21, 7, 28, tzinfo=dt.UTC)) == GOOGLES


def test_urls_signed_at_different_times_lead_to_one_place():
    urls = [signed(dt.datetime(2026, 10, 21, hour, tzinfo=dt.UTC)) for hour in (1, 2)]
    first, second = (place_of(url, namespace="n", ca_pem=None) for url in urls)
    assert first == second
    assert "generation=17" in first.target


def test_an_azure_signature_does_not_count_as_part_of_a_place_and_other_parameters_do():
    def place(query):
        return place_of(f"https://host/c/b?{query}", namespace="n", ca_pem=None)

    assert place("sv=1&se=2&sr=b&sp=r&sig=3") == place("sv=1&se=4&sr=b&sp=r&sig=5")
    assert place("sv=1&se=2&sig=3&versionid=1") != place("sv=1&se=2&sig=3&versionid=2")
    assert place("se=1") != place("se=2")
