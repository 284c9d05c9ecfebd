"""Writes of layout `object`: one object for each record, each written by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus._core.apply import already_exists, apply_one, refusal, version_conflict
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._record import Record
from isthmus.backends.s3.compare_and_set import RowChanges, encode_once
from isthmus.backends.s3.envelope import RecordRow, parse_record, timestamp
from isthmus.backends.s3.errors import NoSuchKeyError, PreconditionError
from isthmus.backends.s3.keys import record_name
from isthmus.backends.s3.object.listing import RecordLister, parse_own_record
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.protocol import Blob
from isthmus.backends.s3.transport.requests import Requests, for_each
from isthmus.errors import (
    AccessError,
    Applied,
    ConflictError,
    ConnectError,
    IsthmusError,
    RecordError,
    StoreError,
    UnavailableError,
    UnexpectedError,
)

_ATTEMPTS = 40
# A listing of 1,000 names takes as long as about so many concurrent requests.
_WORTH_LISTING = 100


class ObjectWriter:
    """Writes and deletes the objects of records; the prefix of a collection is passed to each call."""

    def __init__(self, requests: Requests, probe: ConditionalPutProbe) -> None:
        self._requests = requests
        self._probe = probe

    async def write(self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation]) -> list[ItemResult]:
        """Apply mutations concurrently, those of one id in order; return one result for each.

        A create costs one PUT, a replace, update or upsert a GET and a PUT, and again if another
        writer came in between; deletions are bulk requests. Raises the error of an outage that no
        mutation survived.
        """
        if kind is WriteKind.DELETE:
            if not any(mutation.if_version is not None for mutation in mutations):
                return await self._delete(prefix, mutations)
        elif kind is not WriteKind.UPSERT or any(mutation.if_version is not None for mutation in mutations):
            await self._probe.require_conditional_put()
        results: list[ItemResult] = [False] * len(mutations)
        by_id: dict[str, list[int]] = {}
        for index, mutation in enumerate(mutations):
            by_id.setdefault(mutation.id, []).append(index)
        outage: list[StoreError] = []
        now = timestamp()

        async def apply(indexes: list[int]) -> None:
            for index in indexes:
                if outage:  # further requests would only take longer to fail in the same way
                    results[index] = _copy_error(outage[0])
                    continue
                try:
                    results[index] = await self._apply(prefix, kind, mutations[index], now)
                except RecordError as error:
                    error.record_id = mutations[index].id
                    results[index] = error
                except StoreError as error:
                    results[index] = error
                    if isinstance(error, ConnectError | AccessError):
                        outage.append(error)

        await for_each(apply, by_id.values(), self._requests.limit)
        if outage and all(
            isinstance(result, StoreError) and result.applied is Applied.NO for result in results
        ):
            raise outage[0]
        return results

    async def _apply(self, prefix: str, kind: WriteKind, mutation: Mutation, now: str) -> ItemResult:
        key = prefix + record_name(mutation.id)
        match kind:
            case WriteKind.CREATE:
                return await self._create(key, mutation, now)
            case WriteKind.DELETE if mutation.if_version is None:
                [result] = await self._delete(prefix, [mutation])
                if isinstance(result, IsthmusError):
                    raise result
                return result
            case WriteKind.DELETE:
                return await self._delete_if(key, prefix, mutation)
            case _:
                encode_once(mutation)
                return await self._compare_and_set(key, prefix, kind, mutation, now)

    async def _create(self, key: str, mutation: Mutation, now: str) -> ItemResult:
        changes = RowChanges({}, now)
        result = apply_one(changes, WriteKind.CREATE, mutation)
        try:
            for _, row in changes.effects:
                await self._put(key, row, None)
        except PreconditionError as error:
            refused = already_exists(mutation.id)
            if error.ambiguous:
                refused.applied = Applied.MAYBE
            return refused
        return result

    async def _compare_and_set(
        self, key: str, prefix: str, kind: WriteKind, mutation: Mutation, now: str
    ) -> ItemResult:
        """Read a record, apply the mutation and write it if the object is unchanged; repeat if it is not."""
        for attempt in range(_ATTEMPTS):
            blob = await self._requests.get(key)
            current = None if blob is None else self._parse(blob, prefix, mutation.id)
            changes = RowChanges({} if current is None else {mutation.id: current}, now)
            result = apply_one(changes, kind, mutation)
            if isinstance(result, IsthmusError):
                return result
            [(_, row)] = changes.effects
            assert row is not None
            try:
                await self._put(key, row, None if blob is None else blob.etag)
            except PreconditionError as error:
                if error.ambiguous and mutation.if_version is not None:
                    raise ConflictError(
                        f"record {mutation.id!r} was written again after an attempt without a response",
                        applied=Applied.MAYBE,
                    ) from None
            else:
                return result
            await self._requests.pause(min(attempt, 3) - 3)
        raise _too_many_attempts(mutation)

    async def _put(self, key: str, row: RecordRow | None, etag: str | None) -> None:
        assert row is not None
        version = row.version

        def is_ours(body: bytes) -> bool:
            record = parse_record(body)
            return record is not None and record.version == version

        # Without conditions only an upsert comes here, of which the last one wins.
        await self._probe.put(key, row.line(), is_ours, if_match=etag)

    def _parse(self, blob: Blob, prefix: str, id: str) -> Record:
        record = parse_own_record(blob.body, prefix, record_name(id))
        if record is None:
            raise UnexpectedError(f"the object of {id!r} is not a record that isthmus wrote")
        return record

    async def _delete(self, prefix: str, mutations: Sequence[Mutation]) -> list[ItemResult]:
        """Delete records and return for each whether it existed: one bulk request for 1,000 ids.

        Which ones exist is looked up first, so if two handles delete an id at the same time, both
        may hear that it existed.
        """
        keys = {mutation.id: prefix + record_name(mutation.id) for mutation in mutations}
        names = {record_name(id): id for id in keys}
        present = {names[name]: exists for name, exists in (await self._list_present(prefix, names)).items()}

        async def look_up(id: str) -> None:
            present[id] = await self._requests.head(keys[id]) is not None

        await for_each(look_up, [id for id in keys if id not in present], self._requests.limit)
        if not all(present.values()):
            await self._probe.require_bucket()
        failed = await self._requests.delete_many([keys[id] for id in keys if present[id]])
        results: list[ItemResult] = []
        for mutation in mutations:
            # The first delete of an id finds it, a second one in the batch does not.
            exists = present[mutation.id]
            present[mutation.id] = False
            results.append(failed.get(keys[mutation.id], True) if exists else False)
        return results

    async def _list_present(self, prefix: str, names: Iterable[str]) -> dict[str, bool]:
        """Return which of many names exist, as far as listings are cheaper than single requests."""
        wanted = sorted(names)
        present: dict[str, bool] = {}
        while len(wanted) - len(present) >= _WORTH_LISTING:
            # Without its last character a name is just before itself.
            listing = await self._requests.listing(prefix, after=wanted[len(present)][:-1])
            listed = {found.name for found in listing.found}
            last = listing.found[-1].name if listing.more else None
            decided = 0
            for name in wanted[len(present) :]:
                if last is not None and name.encode() > last.encode():
                    break
                present[name] = name in listed
                decided += 1
            if decided < _WORTH_LISTING:
                break
        return present

    async def _delete_if(self, key: str, prefix: str, mutation: Mutation) -> ItemResult:
        """Delete a record if it has the expected version."""
        boto = await self._probe.require_conditional_delete()
        ambiguous = False
        for attempt in range(_ATTEMPTS):
            blob = await self._requests.get(key)
            if blob is None and ambiguous:
                return True
            version = None if blob is None else self._parse(blob, prefix, mutation.id).version
            refused = refusal(WriteKind.DELETE, mutation, version)
            if refused is not None:
                return refused
            assert blob is not None
            etag = blob.etag
            try:
                await self._requests.send(lambda _, etag=etag: boto.delete_if(key, etag))  # type: ignore[misc]
            except PreconditionError:
                continue
            except NoSuchKeyError:
                if ambiguous:
                    return True
                return version_conflict(mutation.id, str(mutation.if_version))
            except UnavailableError as error:
                ambiguous = ambiguous or error.applied is Applied.MAYBE
                if not error.transient or isinstance(error, ConnectError) or attempt >= 3:
                    error.applied = Applied.MAYBE if ambiguous else Applied.NO
                    raise
                await self._requests.pause(attempt)
            else:
                return True
        raise _too_many_attempts(mutation)

    async def clear(self, prefix: str) -> int:
        """Delete all records and return how many there were; foreign objects stay."""
        lister = RecordLister(self._requests, prefix)
        total = 0
        try:
            while names := await lister.take(10_000, max_bytes=2**62):
                failed = await self._requests.delete_many([prefix + listed.name for listed in names])
                total += len(names) - len(failed)
                if failed:
                    raise next(iter(failed.values()))
        finally:
            lister.close()
        return total


def _too_many_attempts(mutation: Mutation) -> ConflictError:
    return ConflictError(
        f"record {mutation.id!r} kept changing: other writers were faster in each of {_ATTEMPTS} attempts"
    )


def _copy_error(error: StoreError) -> StoreError:
    copy = type(error)(str(error), transient=error.transient, applied=Applied.NO)
    copy.__cause__ = error.__cause__
    return copy
