"""Codes by which stores and token services say why they refuse. Pure.

They are all that is shown of such an answer, in logs, conditions and Events: its text may repeat a
secret, of the request or of whatever a grant led to.
"""

import re

#: As stores spell their codes (`AccessDenied`, `invalid_grant`, `AADSTS7000215`).
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,47}")


def shown(code: str | None) -> str:
    """The code, if it looks like one; else nothing."""
    return code if code and _CODE.fullmatch(code) else ""
