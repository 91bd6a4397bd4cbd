"""The real scripts, run by the Lua that Redis has (5.1), with `redis.call` bound to the commands of this package."""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lupa import lua51  # type: ignore[import-untyped]

from tests.simulation.server.replies import NIL_ARRAY, Refused, Reply, Status

Call = Callable[[bytes, list[bytes]], Reply]
# A value of Lua: bytes, int, float, bool, None or a table
Value = Any


class Interpreter:
    """One for the process: a script leaves nothing behind but its locals. `call` is whose commands it calls now."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._call: Call | None = None
        globals_ = self._lua.globals()
        globals_[b"redis"] = self._lua.table_from({b"call": self._called, b"pcall": self._protected})
        globals_[b"cmsgpack"] = self._lua.table_from({b"pack": self._pack, b"unpack": self._unpack})
        self._globals = globals_
        self._table_type = type(globals_)

    @lru_cache(256)  # noqa: B019 - there is one interpreter
    def compiled(self, text: bytes) -> Value:
        if text.startswith(b"#!"):
            text = b"--" + text
        return self._lua.eval(b"function(text) return assert(loadstring(text)) end")(text)

    @lru_cache(256)  # noqa: B019 - as above
    def _keys(self, *keys: bytes) -> Value:
        """No script changes them."""
        return self._lua.table_from(keys)

    def run(self, text: bytes, keys: list[bytes], args: list[bytes], call: Call) -> Reply:
        """What the script returns. Raises Refused."""
        script = self.compiled(text)
        self._globals[b"KEYS"], self._globals[b"ARGV"] = self._keys(*keys), self._lua.table_from(args)
        self._call = call
        try:
            return self._to_reply(script())
        except lua51.LuaError as error:
            raise Refused(f"ERR {error}") from error
        finally:
            self._call = None

    def _called(self, *args: Value) -> Value:
        assert self._call is not None
        name, *rest = map(_argument, args)
        return self._to_lua(self._call(name, rest))

    def _protected(self, *args: Value) -> Value:
        try:
            return self._called(*args)
        except Refused as refused:
            return self._lua.table_from({b"err": refused.text.encode()})

    def _to_lua(self, reply: Reply) -> Value:
        if isinstance(reply, Status):
            return self._lua.table_from({b"ok": bytes(reply)})
        if isinstance(reply, (bytes, int)):
            return reply
        if reply is None or reply is NIL_ARRAY:
            return False
        return self._lua.table_from([self._to_lua(part) for part in reply])

    def _to_reply(self, value: Value) -> Reply:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, (int, float)):
            return int(value)
        if isinstance(value, bytes):
            return value
        if (error := value[b"err"]) is not None:
            raise Refused(error.decode())
        if (status := value[b"ok"]) is not None:
            return Status(status)
        found: list[Reply] = []
        while (part := value[len(found) + 1]) is not None:
            found.append(self._to_reply(part))
        return found

    def _pack(self, value: Value) -> bytes:
        """cmsgpack, as far as the scripts use it: lists of whole numbers and strings."""
        parts = [_packed(part) for part in value.values()]
        return struct.pack(">BH", 0xDC, len(parts)) + b"".join(parts)

    def _unpack(self, packed: bytes) -> Value:
        (length,) = struct.unpack_from(">H", packed, 1)
        place, parts = 3, []
        for _ in range(length):
            kind, value = struct.unpack_from(">Bq" if packed[place] == 0xD3 else ">BI", packed, place)
            if kind == 0xD3:
                place += 9
                parts.append(value)
            else:
                parts.append(packed[place + 5 : place + 5 + value])
                place += 5 + value
        return self._lua.table_from(parts)


def _packed(value: bytes | float) -> bytes:
    return struct.pack(">BI", 0xDB, len(value)) + value if isinstance(value, bytes) else struct.pack(">Bq", 0xD3, value)


def _argument(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % value if value == int(value) else b"%.17g" % value


@lru_cache(1)
def interpreter() -> Interpreter:
    return Interpreter()
