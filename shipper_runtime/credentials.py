# SPDX-License-Identifier: GPL-3.0-or-later
"""NATS_CREDS: a user's JWT and the seed that signs the server's nonce.

nats-py signs with the package nkeys, whose PyNaCl is compiled; on a host the distribution's python3-nacl does it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from .errors import SettingError

if TYPE_CHECKING:
    from .settings import BrokerSettings

_SECTION = r"-{3,}BEGIN %s-{3,}\s*([A-Za-z0-9_\-.=]+)\s*-{3,}END %s-{3,}"
_JWT = re.compile(_SECTION % ("NATS USER JWT", "NATS USER JWT"))
_SEED = re.compile(_SECTION % ("USER NKEY SEED", "USER NKEY SEED"))
# github.com/nats-io/nkeys: two bytes of prefix, 32 of seed, two of CRC-16, in base32 without padding.
_SEED_LENGTH = 36


class Credentials:
    """Reads the file at every connect, so that it can be replaced without a restart."""

    def __init__(self, path: str, signing: Any) -> None:
        self._path = path
        self._signing = signing
        self._read()

    def jwt(self) -> bytes:
        """The user's JWT. Raises SettingError."""
        return self._read()[0]

    def sign(self, nonce: str) -> bytes:
        """The nonce's signature in base64. Raises SettingError."""
        signature = self._signing.SigningKey(self._read()[1]).sign(nonce.encode()).signature
        return base64.urlsafe_b64encode(signature).rstrip(b"=")

    def _read(self) -> tuple[bytes, bytes]:
        try:
            with open(self._path, encoding="ascii") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise SettingError("NATS_CREDS", self._path, "it cannot be read: %s" % reason) from None
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            raise SettingError("NATS_CREDS", self._path, "it holds no user JWT with its seed; make it with nsc")
        try:
            encoded = seed.group(1)
            raw = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
        except binascii.Error:
            raw = b""
        if len(raw) != _SEED_LENGTH:
            raise SettingError("NATS_CREDS", self._path, "its seed is damaged; make it again with nsc")
        return jwt.group(1).encode(), raw[2:34]


def load_credentials(settings: BrokerSettings) -> Credentials | None:
    """The credentials of NATS_CREDS, or None. Raises SettingError."""
    if settings.creds is None:
        return None
    try:
        import nacl.signing
    except ImportError:
        remedy = "it needs the Python module nacl, which is not here; install python3-nacl"
        raise SettingError("NATS_CREDS", settings.creds, remedy) from None
    return Credentials(settings.creds, nacl.signing)
