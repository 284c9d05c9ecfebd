"""The capabilities of an Elasticsearch collection, by its layout."""

from __future__ import annotations

from isthmus._core.capabilities import Capabilities
from isthmus._value import replace

MAX_RECORD_BYTES = 32 * 2**20
"""The largest record that is sent: data and metadata as canonical JSON, in bytes."""

CAPABILITIES = Capabilities(
    durable=True,
    conditional_create=True,
    compare_and_set=True,
    consistent_stream=True,
    relevance=True,
    vectors=True,
    drop=True,
    max_record_bytes=MAX_RECORD_BYTES,
)
EXTERNAL_CAPABILITIES = replace(CAPABILITIES, vectors=False, drop=False)
