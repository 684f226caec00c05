"""Whose native code may run: code signed with this user's key.

Enters: bytes.  Leaves: a signature, or whether one is right.  Never here: files of artifacts.

The key is 32 random bytes in the user's cache folder (mode 0600), or GRAPHC_SIGNING_KEY (hex) for machines that share one.
HMAC-SHA256 over the code together with everything it was made from.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from graphc.runtime.cache import default_cache


def sign(content: bytes) -> str | None:
    """The signature of `content`, or None where there is no key and none can be made."""
    key = _key(create=True)
    return None if key is None else hmac.new(key, content, hashlib.sha256).hexdigest()


def is_signed(content: bytes, signature: object) -> bool:
    """Whether this user's key made `signature` for `content`."""
    key = _key(create=False)
    if key is None or not isinstance(signature, str):
        return False
    return hmac.compare_digest(hmac.new(key, content, hashlib.sha256).hexdigest().encode(), signature.encode(errors="replace"))


def _key(create: bool) -> bytes | None:
    given = os.environ.get("GRAPHC_SIGNING_KEY")
    if given:
        try:
            key = bytes.fromhex(given)
        except ValueError:
            key = b""
        if len(key) < 16:
            raise RuntimeError("GRAPHC_SIGNING_KEY must be at least 16 bytes in hex")
        return key
    folder = default_cache().folder
    if folder is None:
        return None
    path = os.path.join(folder, "signing.key")
    try:
        status = os.stat(path)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            return None  # somebody else could have written it
        with open(path, "rb") as file:
            return file.read() or None
    except FileNotFoundError:
        return _new_key(path) if create else None
    except OSError:
        return None


def _new_key(path: str) -> bytes | None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _key(create=False)
    except OSError:
        return None  # an unwritable cache folder: artifacts are then rebuilt from their IR on load
    key = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
    return key
