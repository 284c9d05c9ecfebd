"""Object keys: how they encode record ids and collection names, in the order of the ids.

An id is escaped byte by byte so that keys sort as ids do: a listing comes in id order, a page by
id begins at `StartAfter`, and a search with a limit stops early. Letters, digits and `-` stand for
themselves; each run of other bytes has a lead character that sorts in its place (`(` below `-`,
`.` for `.` and `/`, `=` up to `@`, `_` up to the backtick, `~` above `z`). A record's key ends in
`!.json`, and `!` sorts before all of these, so that `a` comes before `a-b`.
"""

from __future__ import annotations

import hashlib
import re

from isthmus.errors import UsageError

RECORD = "!.json"
MARKER = "_layout.json"
PROBE = "_probe-"
"""The start of the name of a passing object of ours, which another process may list: not a record's name."""
# In a key component of 200 bytes: 160 of the id, `!`, a digest, and the ending.
_LITERAL = 160
_DIGEST = 32
_MAX_NAME = 200


def _escapes() -> list[str]:
    table = []
    for byte in range(256):
        character = chr(byte)
        if character == "-" or (byte < 128 and character.isalnum()):
            table.append(character)
        elif byte < ord("-"):
            table.append(f"({byte:02x}")
        elif byte <= ord("/"):
            table.append({".": "..", "/": ".f"}[character])
        elif byte < ord("A"):
            table.append(f"={byte:02x}")
        elif byte < ord("a"):
            table.append({"_": "__", "`": "_g"}.get(character, f"_{byte:02x}"))
        else:
            table.append(f"~{byte:02x}")
    return table


_ESCAPES = _escapes()
_BYTES = {escape: byte for byte, escape in enumerate(_ESCAPES)}
_plain = re.compile(r"[0-9A-Za-z-]+").fullmatch
_token = re.compile(r"[0-9A-Za-z-]|[(=~][0-9a-f]{2}|\.\.|\.f|__|_g|_[0-9a-f]{2}")
_hashed = re.compile(rf"[0-9A-Za-z(=~._-]{{{_LITERAL}}}![0-9a-f]{{{_DIGEST}}}").fullmatch


def escape(text: str) -> str:
    """Return text in characters that every S3 server preserves; it sorts as the text does."""
    if _plain(text):
        return text
    return "".join([_ESCAPES[byte] for byte in text.encode()])


def unescape(escaped: str) -> str | None:
    """Return the text of which this is the escaped form; None if it is not one."""
    if _plain(escaped):
        return escaped
    position, decoded = 0, bytearray()
    while position < len(escaped):
        token = _token.match(escaped, position)
        byte = _BYTES.get(token[0]) if token else None
        if token is None or byte is None:
            return None
        decoded.append(byte)
        position = token.end()
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        return None


def record_name(id: str) -> str:
    """Return the last component of a record's key; at most 200 bytes.

    A long id is truncated and followed by a digest; the whole id is in the object's body. Such
    names are in the order of ids only up to there: see `stem_of`.
    """
    escaped = escape(id)
    if len(escaped) <= _LITERAL:
        return escaped + RECORD
    digest = hashlib.blake2b(id.encode(), digest_size=_DIGEST // 2).hexdigest()
    return f"{escaped[:_LITERAL]}!{digest}{RECORD}"


def is_record_name(name: str) -> bool:
    """Return whether this is the name of a record."""
    if not name.endswith(RECORD):
        return False
    stem = name[: -len(RECORD)]
    if len(stem) > _LITERAL:
        return _hashed(stem) is not None
    return _plain(stem) is not None or (bool(stem) and unescape(stem) is not None)


def stem_of(name: str) -> str | None:
    """Return the stem of a truncated id, which other names may share; None for the name of a whole id."""
    return name[:_LITERAL] if len(name) > _LITERAL + len(RECORD) else None


def name_before_stem(id: str) -> str | None:
    """Return a name just before all that share the stem of this id; None if the id is not truncated."""
    escaped = escape(id)
    # The exact prefix, if it is an id, ends in `!.json`, and `.` sorts before a digest.
    return f"{escaped[:_LITERAL]}{RECORD}" if len(escaped) > _LITERAL else None


def id_of(name: str) -> str | None:
    """Return the id in a record's name; None if it is truncated, so that only the body has it."""
    return None if stem_of(name) is not None else unescape(name[: -len(RECORD)])


def name_before(id: str) -> str:
    """Return a name just before that of an id, and before all that share its stem."""
    # Without its last character a name is just before itself.
    return name_before_stem(id) or record_name(id)[:-1]


def upper_bound(id: str) -> str:
    """Return a text such that names that sort after it, in its length, are of ids beyond this one."""
    return record_name(id)[:_LITERAL]


def folder_name(collection: str) -> str:
    """Return the folder of a collection; raises `UsageError` if the name does not fit into a key."""
    escaped = escape(collection)
    if not escaped or len(escaped) > _MAX_NAME or escaped in (".", ".."):
        raise UsageError(
            f"the name of a collection on S3 has 1 to {_MAX_NAME} characters once escaped, and is not '.'"
        )
    return escaped


def is_folder_of(collection: str, folder: str) -> bool:
    """Return whether this is the folder of a collection: two texts may unescape to one name."""
    try:
        return folder_name(collection) == folder
    except UsageError:
        return False
