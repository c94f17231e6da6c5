"""How large the storages of a checkpoint claim to be.

A pickle of torch refers to the storage of a tensor by ("storage", type, key, device, number of elements); its bytes are
the member data/KEY of the zip file. torch 2.4 believes the number, and would read memory beyond those bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from zipfile import ZipInfo

from d2_detr.utils.errors import InputError

_ELEMENT_BYTES = {
    "torch ComplexDoubleStorage": 16, "torch ComplexFloatStorage": 8, "torch DoubleStorage": 8, "torch FloatStorage": 4,
    "torch HalfStorage": 2, "torch BFloat16Storage": 2, "torch LongStorage": 8, "torch IntStorage": 4,
    "torch ShortStorage": 2, "torch CharStorage": 1, "torch ByteStorage": 1, "torch BoolStorage": 1,
    "torch.storage UntypedStorage": 1,
}  # fmt: skip
_PUSHING = {"GLOBAL", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_UNKNOWN = object()


class StorageCheck:
    """Follows the operations of a pickle as far as torch uses them to refer to a storage; others end a reference."""

    def __init__(self, members: Iterable[ZipInfo]):
        """Take the members of the zip file that has the pickle."""
        self._bytes: dict[str, int] = {}
        for member in members:
            name = member.filename.partition("/")[2]
            self._bytes[name] = min(member.file_size, self._bytes.get(name, member.file_size))
        self._top: list[object] = []  # of the stack, since the last mark
        self._memo: dict[object, object] = {}

    def follow(self, operation: str, argument: object) -> None:
        """Follow an operation, by its name in pickletools.

        Raises:
            InputError: a storage claims more bytes than the file has for it.
        """
        if operation == "MARK":
            self._top = []
        elif operation in _PUSHING:
            self._top.append(argument)
        elif operation in ("BINGET", "LONG_BINGET"):
            self._top.append(self._memo.get(argument, _UNKNOWN))
        elif operation in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top[-1] if self._top else _UNKNOWN
        elif operation == "TUPLE":
            self._top = [tuple(self._top)]
        else:
            if operation == "BINPERSID":
                self._check(self._top[-1] if self._top else _UNKNOWN)
            self._top = [_UNKNOWN]

    def _check(self, reference: object) -> None:
        match reference:
            case ("storage", str(kind), str(key), str(), int(number)) if kind in _ELEMENT_BYTES and key.isdecimal():
                needed, found = number * _ELEMENT_BYTES[kind], self._bytes.get(f"data/{key}", 0)
                if not 0 <= needed <= found:
                    raise InputError(f"storage {key} has {found:,} bytes, expected {needed:,}")
            case _:
                raise InputError("a reference to a storage is not as torch writes it")
