"""Who wrote these bytes: keys, and HMAC-SHA256 signatures made with them."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from ..evaluator_schema.errors import InvalidKeyError, UnknownKeyError, WrongKeyError

MIN_SECRET_BYTES: Final = 32

# Signatures of this format cannot be replayed as those of something else made with the same secret.
_PURPOSE: Final = "rebind {} signature 1\0"
_MAKE_ONE: Final = "Make one with SigningKey.generate('name')."
_KEY_LINE: Final = re.compile(r"rebind-key (?P<id>\S+) (?P<secret>(?:[0-9a-fA-F]{2})+)\s*")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret with a name. The name is written in the files that it signs; the secret is not.

    The secret appears in no `repr`, and a key refuses to be pickled, so that it does not travel
    inside of an evaluator that happens to refer to it.

    Args:
        id: The key's name: up to 128 visible characters without spaces. A key with an empty name is
            tried on every file.
        secret: At least 32 bytes, random.

    Raises:
        InvalidKeyError: The name or the secret is not of this form.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not re.fullmatch(r"[!-~]{0,128}", self.id):
            raise InvalidKeyError(
                f"A key id has up to 128 visible ASCII characters and no spaces, not {self.id!r}. "
                "Choose another one; the default is none."
            )
        if not isinstance(self.secret, (bytes, bytearray, memoryview)):
            raise InvalidKeyError(
                f"The secret of a key is bytes, not {type(self.secret).__name__}. {_MAKE_ONE}"
            )
        object.__setattr__(self, "secret", bytes(self.secret))
        if len(self.secret) < MIN_SECRET_BYTES:
            raise InvalidKeyError(
                f"The secret of a key has at least {MIN_SECRET_BYTES} bytes, this one has "
                f"{len(self.secret)}. {_MAKE_ONE}"
            )

    @classmethod
    def generate(cls, id: str = "") -> SigningKey:  # noqa: A002 - the field's own name
        """A new key with a random secret.

        Args:
            id: Its name, which the files that it signs tell.
        """
        return cls(id, secrets.token_bytes(MIN_SECRET_BYTES))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], id: str | None = None) -> SigningKey:  # noqa: A002 - the field's own name
        """The key in a file: what `to_file` wrote, or the bare bytes of a secret.

        Args:
            path: The file. Of bare bytes, line ends at the end are not part of the secret.
            id: The key's name, where the file has none or another one is wanted.
        """
        return cls._from_bytes(Path(path).read_bytes(), id, str(path))

    @classmethod
    def from_env(cls, variable: str, id: str | None = None) -> SigningKey:  # noqa: A002 - the field's own name
        """The key in an environment variable, in one of the forms that `from_file` reads.

        Args:
            variable: The variable's name.
            id: The key's name, where the variable has none or another one is wanted.

        Raises:
            InvalidKeyError: The variable is not set, or what it holds is no key.
        """
        text = os.environ.get(variable)
        if text is None:
            raise InvalidKeyError(
                f"There is no key: the variable {variable} is not set. Set it to what `to_file` of a key "
                "wrote, or to a secret."
            )
        return cls._from_bytes(os.fsencode(text), id, f"${variable}")

    @classmethod
    def _from_bytes(cls, data: bytes, id: str | None, where: str) -> SigningKey:  # noqa: A002 - the field's own name
        line = _KEY_LINE.fullmatch(data.decode("ascii", errors="replace"))
        try:
            if line is None:
                return cls(id or "", data.rstrip(b"\r\n"))
            return cls(id or line["id"], bytes.fromhex(line["secret"]))
        except InvalidKeyError as error:
            raise InvalidKeyError(f"{where}: {error}") from None

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file that only its owner can read.

        Args:
            path: The new file.

        Raises:
            FileExistsError: The file is there already; a key is never overwritten.
            InvalidKeyError: The key has no name.
        """
        if not self.id:
            raise InvalidKeyError("Only a key with an id is written to a file: SigningKey.generate('name').")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"rebind-key {self.id} {self.secret.hex()}\n".encode())

    def sign(self, data: bytes, *, purpose: str = "file") -> str:
        """The signature of some bytes, as 64 hexadecimal digits: HMAC-SHA256 (RFC 2104).

        Args:
            data: The bytes.
            purpose: What they are. It goes before them in a fixed form, so that nothing else that the
                same secret signed passes for a file.
        """
        return hmac.digest(self.secret, _PURPOSE.format(purpose).encode() + data, "sha256").hex()

    def has_signed(self, data: bytes, signature: str, *, purpose: str = "file") -> bool:
        """Whether this key made a signature. The time that it takes does not tell how much of it fits.

        Args:
            data: The bytes that were signed.
            signature: What `sign` gave.
            purpose: As in `sign`.
        """
        return hmac.compare_digest(self.sign(data, purpose=purpose).encode(), signature.encode())

    def __copy__(self) -> SigningKey:
        return self

    def __deepcopy__(self, memo: object) -> SigningKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the signing key {self.id!r} is not pickled: its secret would travel in the file. "
            "Pass it to the other process by itself"
        )


Key: TypeAlias = bytes | SigningKey
Keys: TypeAlias = Key | Iterable[Key]


def accepted_keys(key: Keys | None) -> tuple[SigningKey, ...]:
    """All keys of a `key=` argument: none, one, or several. Bare bytes are a key without a name."""
    if key is None:
        return ()
    if isinstance(key, (SigningKey, bytes, bytearray, memoryview)):
        return (_named(key),)
    keys = tuple(_named(each) for each in _several(key))
    if not keys:
        raise InvalidKeyError("The list of keys is empty; pass key=None to go without a key.")
    return keys


def signing_key(key: Keys | None) -> SigningKey | None:
    """The key that signs: the first one of a `key=` argument."""
    return next(iter(accepted_keys(key)), None)


def verify_signature(data: bytes, signature: str, key_id: str | None, keys: tuple[SigningKey, ...]) -> None:
    """Check that one of `keys` made `signature` from `data`.

    A key is tried if its name is the one in the file, or if either has no name.

    Raises:
        UnknownKeyError: No key has the name in the file.
        WrongKeyError: A key has the name, and the signature is not its own.
    """
    candidates = [key for key in keys if not key_id or not key.id or key.id == key_id]
    if not candidates:
        given = ", ".join(repr(key.id) for key in keys)
        raise UnknownKeyError(
            f"The bytes are signed with the key {key_id!r}, and the keys given are {given}. "
            "Pass the key of that name as well: key=[...] takes several."
        )
    # All candidates are tried, so that the time does not tell which one it was.
    matches = [key.has_signed(data, signature) for key in candidates]
    if not any(matches):
        raise WrongKeyError(
            f"The signature was not made with the key given{f' as {key_id!r}' if key_id else ''}. "
            "The bytes were signed with another key, or changed by someone who has none. Pass the key of "
            "whoever wrote them, or get them again from there."
        )


def _several(keys: object) -> Iterable[object]:
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise InvalidKeyError(
            f"A key is bytes, a SigningKey or a list of those, not {type(keys).__name__}. {_MAKE_ONE}"
        )
    return keys


def _named(key: object) -> SigningKey:
    if isinstance(key, SigningKey):
        return key
    if isinstance(key, (bytes, bytearray, memoryview)):
        return SigningKey("", bytes(key))
    raise InvalidKeyError(f"A key is bytes or a SigningKey, not {type(key).__name__}. {_MAKE_ONE}")
