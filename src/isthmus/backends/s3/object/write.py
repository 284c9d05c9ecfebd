"""Writes of the layout `object`: each record by itself, under the condition that nobody wrote in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._record import Record
from isthmus.backends.s3.compare_and_set import gone, judge_version, rewritten
from isthmus.backends.s3.envelope import RecordRow, new_token, parse_record, timestamp
from isthmus.backends.s3.errors import NoSuchKeyError, PreconditionError
from isthmus.backends.s3.keys import record_name
from isthmus.backends.s3.layout import MAX_RECORD_BYTES, NO_LIMIT
from isthmus.backends.s3.object.listing import Lister, parse_own_record
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.protocol import Blob
from isthmus.backends.s3.transport.requests import Requests, for_each
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    Applied,
    ConflictError,
    ConnectError,
    InvalidRecordError,
    IsthmusError,
    RecordError,
    StoreError,
    UnavailableError,
    UnexpectedError,
)

_ATTEMPTS = 40
# A listing of 1,000 takes as long as so many single requests side by side.
_WORTH_LISTING = 100


class ObjectWriter:
    """Writes one object per record."""

    def __init__(self, requests: Requests, probe: ConditionalPutProbe) -> None:
        self._requests = requests
        self._probe = probe

    async def write(self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation]) -> list[ItemResult]:
        """Apply changes side by side, those of one id in their order."""
        if kind is not WriteKind.DELETE and (
            kind is not WriteKind.UPSERT or any(c.if_version for c in mutations)
        ):
            await self._probe.require_conditional_put()
        if kind is WriteKind.DELETE and not any(mutation.if_version for mutation in mutations):
            return await self._delete(prefix, mutations)
        results: list[ItemResult] = [False] * len(mutations)
        runs: dict[str, list[int]] = {}
        for at, mutation in enumerate(mutations):
            runs.setdefault(mutation.id, []).append(at)
        stamp = timestamp()
        outage: list[StoreError] = []

        async def run(places: list[int]) -> None:
            for at in places:
                if outage:  # asking each time would only take longer to say the same
                    results[at] = _copy_error(outage[0])
                    continue
                try:
                    results[at] = await self._apply(prefix, kind, mutations[at], stamp)
                except RecordError as error:
                    error.record_id = mutations[at].id
                    results[at] = error
                except StoreError as error:
                    results[at] = error
                    if isinstance(error, ConnectError | AccessError):
                        outage.append(error)

        await for_each(run, runs.values(), self._requests.limit)
        if outage and all(
            isinstance(result, StoreError) and result.applied is Applied.NO for result in results
        ):
            raise outage[0]
        return results

    async def _apply(self, prefix: str, kind: WriteKind, mutation: Mutation, stamp: str) -> ItemResult:
        key = prefix + record_name(mutation.id)
        match kind:
            case WriteKind.CREATE:
                row = RecordRow(
                    mutation.id, new_token(), stamp, stamp, mutation.encoded_metadata(), mutation.encoded()
                )
                return await self._create(key, row)
            case WriteKind.DELETE:
                return await self._delete_if(key, prefix, mutation)
            case _:
                return await self._rewrite(key, prefix, kind, mutation, stamp)

    async def _create(self, key: str, row: RecordRow) -> str:
        try:
            await self._put(key, row, None)
        except PreconditionError as error:
            raise AlreadyExistsError(
                f"a record with the id {row.id!r} is there already",
                record_id=row.id,
                applied=Applied.MAYBE if error.ambiguous else None,
            ) from None
        return row.id

    async def _put(self, key: str, row: RecordRow, etag: str | None) -> None:
        line = row.line()
        if len(line) > MAX_RECORD_BYTES:
            raise InvalidRecordError(
                f"data: the encoded record has {len(line)} bytes, at most {MAX_RECORD_BYTES} are stored",
                path="data",
                record_id=row.id,
            )

        def is_ours(body: bytes) -> bool:
            found = parse_record(body)
            return found is not None and found.version == row.version

        await self._requests.put_if(key, line, is_ours, if_match=etag)

    async def _rewrite(
        self, key: str, prefix: str, kind: WriteKind, mutation: Mutation, stamp: str
    ) -> ItemResult:
        """Read, judge and write under the condition that nobody wrote in between; again if somebody did."""
        data, metadata = mutation.encoded(), mutation.encoded_metadata()
        for attempt in range(_ATTEMPTS):
            found = await self._requests.get(key)
            current = None if found is None else self._own(found, prefix, mutation.id)
            row = rewritten(kind, mutation, current, data, metadata, stamp)
            if not self._probe.conditional_put:  # an upsert: the last one wins
                await self._requests.put(key, row.line())
                return row.version
            try:
                await self._put(key, row, None if found is None else found.etag)
            except PreconditionError as error:
                if error.ambiguous and mutation.if_version is not None:
                    raise ConflictError(
                        f"{mutation.id!r} was written again after an attempt that had no answer",
                        applied=Applied.MAYBE,
                    ) from None
            else:
                return row.version
            await self._requests.pause(min(attempt, 3) - 3)
        raise ConflictError(f"{mutation.id!r} kept changing: {_ATTEMPTS} attempts met another write")

    def _own(self, found: Blob, prefix: str, id: str) -> Record:
        record = parse_own_record(found.body, prefix, record_name(id))
        if record is None:
            raise UnexpectedError(
                f"the object of {id!r} is not a record that isthmus wrote; it is left alone"
            )
        return record

    async def _delete(self, prefix: str, mutations: Sequence[Mutation]) -> list[ItemResult]:
        """Delete what is there and say of each whether it was: one request for 1,000 ids.

        What is there is looked up first; of two handles that delete one id at once, both may hear
        that it was there.
        """
        keys = {mutation.id: prefix + record_name(mutation.id) for mutation in mutations}
        names = {record_name(id): id for id in keys}
        present = {names[name]: there for name, there in (await self._list_present(prefix, names)).items()}

        async def look(id: str) -> None:
            present[id] = await self._requests.head(keys[id]) is not None

        await for_each(look, [id for id in keys if id not in present], self._requests.limit)
        if not all(present.values()):
            await self._probe.require_bucket()
        failed = await self._requests.delete_many([keys[id] for id in keys if present[id]])
        results: list[ItemResult] = []
        for mutation in mutations:
            # The first delete of an id finds it, a second one in the batch does not.
            there = present[mutation.id]
            present[mutation.id] = False
            results.append(failed.get(keys[mutation.id], True) if there else False)
        return results

    async def _list_present(self, prefix: str, names: Iterable[str]) -> dict[str, bool]:
        """Return which of many names are there, as far as listings are cheaper than single requests."""
        wanted = sorted(names)
        known: dict[str, bool] = {}
        while len(wanted) - len(known) >= _WORTH_LISTING:
            # Without its last character a name is just before itself.
            listing = await self._requests.listing(prefix, after=wanted[len(known)][:-1])
            there = {listed.name for listed in listing.found}
            last = listing.found[-1].name if listing.more else None
            told = 0
            for name in wanted[len(known) :]:
                if last is not None and name.encode() > last.encode():
                    break
                known[name] = name in there
                told += 1
            if told < _WORTH_LISTING:
                break
        return known

    async def _delete_if(self, key: str, prefix: str, mutation: Mutation) -> bool:
        if mutation.if_version is None:
            [result] = await self._delete(prefix, [mutation])
            if isinstance(result, IsthmusError):
                raise result
            return bool(result)
        boto = await self._probe.require_conditional_delete()
        ambiguous = False
        for attempt in range(_ATTEMPTS):
            found = await self._requests.get(key)
            current = None if found is None else self._own(found, prefix, mutation.id)
            if found is None and ambiguous:
                return True
            judge_version(mutation, current)
            assert found is not None
            etag = found.etag
            try:
                await self._requests.send(lambda _, etag=etag: boto.delete_if(key, etag))  # type: ignore[misc]
            except PreconditionError:
                continue
            except NoSuchKeyError:
                if ambiguous:
                    return True
                raise gone(mutation) from None
            except UnavailableError as error:
                ambiguous = ambiguous or error.applied is Applied.MAYBE
                if not error.transient or isinstance(error, ConnectError) or attempt >= 3:
                    error.applied = Applied.MAYBE if ambiguous else Applied.NO
                    raise
                await self._requests.pause(attempt)
            else:
                return True
        raise ConflictError(f"{mutation.id!r} kept changing")

    async def clear(self, prefix: str) -> int:
        """Delete every record by 1,000; what is not a record stays."""
        lister = Lister(self._requests, prefix)
        total = 0
        try:
            while names := await lister.take(10_000, NO_LIMIT):
                failed = await self._requests.delete_many([prefix + listed.name for listed in names])
                total += len(names) - len(failed)
                if failed:
                    raise next(iter(failed.values()))
        finally:
            lister.close()
        return total


def _copy_error(error: StoreError) -> StoreError:
    return type(error)(str(error), transient=error.transient, applied=Applied.NO)
