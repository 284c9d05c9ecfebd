"""Text that has broken other systems, and mutations of it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

SEEDS = (
    # SQL
    "'",
    '"',
    "''",
    '""',
    "';--",
    "' OR '1'='1",
    "' OR 1=1--",
    "'; DROP TABLE records; --",
    '"; DROP TABLE records; --',
    "x' UNION SELECT null,null--",
    "$1",
    "$$",
    "$tag$",
    "%s",
    ":name",
    "?",
    "\\'",
    "\\",
    "E'\\x27'",
    "') RETURNING *--",
    "/**/",
    "--",
    "#",
    ";",
    "1;SELECT pg_sleep(10)",
    "a' || 'b",
    "U&'\\0027'",
    "CHR(39)",
    "0x27",
    "\u02bc",
    "\uff07",
    "\u2019",
    "x'::jsonb",
    "data->>'a'",
    "a->b",
    "a#>>'{b}'",
    "::text",
    "jsonb_typeof",
    # JSON and JSON path
    '{"$gt": ""}',
    "$.a",
    "$[*]",
    '$."a"',
    "$.a[?(@.b)]",
    '"}]}',
    '\\"',
    "{}",
    "[]",
    "null",
    "true",
    "a.b",
    "a..b",
    ".",
    "..",
    "[0]",
    "a[0]",
    "*",
    "@",
    '{"a":1}',
    "\\u0027",
    "{,1}",
    "{{7*7}}",
    "${7*7}",
    "#{7*7}",
    # Lucene and Elasticsearch
    "*:*",
    "a:b",
    "a AND b",
    "a OR NOT b",
    "+a -b",
    "(a",
    "a)",
    "[a TO b]",
    "a~2",
    "a^5",
    "/a/",
    "_exists_:a",
    "_all",
    "_id",
    "_source",
    "_score",
    "_doc",
    "script",
    "ctx._source.a=1",
    "doc['a'].value",
    "params._source",
    "{{#toJson}}a{{/toJson}}",
    '\n{"delete":{"_index":"x"}}\n',
    "\r\n",
    "data",
    "metadata",
    "odd",
    "obj",
    "id",
    "version",
    # Patterns
    "%",
    "_",
    "%%",
    "\\%",
    "\\_",
    "a%b_c",
    ".*",
    "^$",
    "(?i)a",
    "[",
    "]",
    "(a+)+$",
    "\\d",
    "\\",
    "a{1,1000}",
    "|",
    "a|b",
    "(?=a)",
    # Paths, headers, URLs
    "../x",
    "..\\x",
    "/etc/passwd",
    "a/../../b",
    "//",
    "/",
    "a//b",
    "%2e%2e%2f",
    "%00",
    "a?b=c",
    "a#b",
    "a&b=c",
    "x\r\nHost: y",
    "C:\\x",
    "~",
    "-rf",
    "|id",
    "`id`",
    "$(id)",
    "&& id",
    "> /tmp/x",
    "<!--",
    "<script>",
    "]]>",
    "<!ENTITY x>",
    "s3://b/k",
    "record/",
    ".isthmus",
    "prefix2/",
    "+",
    "a b",
    " a",
    "a ",
    "\t",
    "\n",
    "\x01",
    "\x7f",
    "\x1b[31m",
    # Unicode
    "\u202e",
    "\u200b",
    "\ufeff",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
    "\u0130",
    "\u0131",
    "\u00df",
    "\u1e9e",
    "\ud7ff",
    "\ue000",
    "\U0010ffff",
    "\u2028",
    "\u0085",
    "a" * 300,
    "\u00e9" * 100,
    # Numbers and words
    "0",
    "-0",
    "1e999",
    "NaN",
    "Infinity",
    "9223372036854775808",
    "0x1",
    "1_000",
    "None",
    "undefined",
    "__proto__",
    "constructor",
    "__class__",
    "password",
    "select",
    "user",
    "order",
    "limit",
)


def payloads(count: int, seed: int) -> Iterator[str]:
    """Yield the corpus, then mutations of it: joined, wrapped, cut, repeated. All are distinct."""
    rng = Random(seed)
    seen: set[str] = set()
    queue = list(SEEDS)
    while len(seen) < count:
        text = queue.pop(0) if queue else _mutated(rng)
        if text and text not in seen and "\0" not in text:
            seen.add(text)
            yield text


def _mutated(rng: Random) -> str:
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(1, 3)):
        other = rng.choice(SEEDS)
        match rng.randrange(6):
            case 0:
                text += other
            case 1:
                text = other + text
            case 2:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + other + text[at:]
            case 3:
                text = text[: rng.randrange(1, len(text) + 1)]
            case 4:
                text = f"a{text}b"
            case 5:
                text = text * 2
    return text[:400]
