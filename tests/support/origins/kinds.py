"""One running server of each kind of source, started with the first test that asks for it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from support.origins.azure_store import azure_store, entra_store
from support.origins.gcs_store import gcs_store
from support.origins.harness import Harness
from support.origins.hub import hub_store
from support.origins.s3_store import s3_store
from support.origins.web import web_store

STORES = {
    "s3": s3_store,
    "gcs": gcs_store,
    "azure": azure_store,
    "hf": hub_store,
    "https": web_store,
}


#: Beside those that the contract's suite runs over.
_OTHERS = {"entra": entra_store}


class Stores:
    """One running server of each kind that was asked for."""

    def __init__(self, stack: ExitStack, folders: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._folders = folders
        self._running: dict[str, Harness] = {}

    def get(self, kind: str) -> Harness:
        """With an empty source, and a proxy that forwards."""
        if kind not in self._running:
            made = (STORES | _OTHERS)[kind](Path(self._folders.mktemp(kind)))
            self._running[kind] = self._stack.enter_context(made)
        store = self._running[kind]
        for old in store.secrets.iterdir():
            old.unlink()
        store.new_source()
        store.proxy.reset()
        return store
