"""Credentials, region and clients of one pool.

Keys in the config or the environment are used as they are. Otherwise the aioboto3 session finds
credentials by the whole AWS chain (environment, profile, SSO, container, instance), again at each
signing, so that expiring ones are refreshed in time. Loading the session reads some megabytes of
JSON the first time, so it happens in a thread, and only when it is needed.
"""

from __future__ import annotations

import asyncio
import atexit
import datetime as dt
import functools
import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from isthmus._core.loop_pools import secret_digest
from isthmus._core.registry import import_driver
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.transport.aioboto3 import translate_boto_error
from isthmus.backends.s3.transport.redirects import Unredirected
from isthmus.errors import ConfigError

# Read again after this at the latest; botocore refreshes 10 to 15 minutes ahead of the end.
_REFRESH_AFTER = dt.timedelta(minutes=8)
# obstore can close the sockets of a dropped store late: after twice this at the latest (default 90 s).
_IDLE = dt.timedelta(seconds=15)


class AccessKeys:
    """A fixed pair of keys, and a token with temporary ones."""

    __slots__ = ("access", "secret", "token")

    def __init__(self, access: str, secret: str, token: str | None) -> None:
        self.access = access
        self.secret = secret
        self.token = token


def find_keys(config: S3Config, environ: Mapping[str, str] = os.environ) -> AccessKeys | None:
    """Return the keys of the config, else of the environment; None if a session has to find them.

    Keys and token come from one source, never mixed. As in botocore, a profile in the config
    takes precedence over the environment.
    """
    if config.anonymous:
        return None
    if config.aws_access_key_id is not None and config.aws_secret_access_key is not None:
        token = config.aws_session_token
        return AccessKeys(
            config.aws_access_key_id,
            config.aws_secret_access_key.get_secret_value(),
            None if token is None else token.get_secret_value(),
        )
    if config.profile is not None:
        return None
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return AccessKeys(access, secret, environ.get("AWS_SESSION_TOKEN") or None)
    if access or secret:
        here, missing = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
        here, missing = (here, missing) if access else (missing, here)
        raise ConfigError(f"s3: environment {here} is set and {missing} is not")
    return None


def pool_key(config: S3Config, keys: AccessKeys | None) -> Hashable:
    """Return the key by which handles share a pool: all settings that matter to it, secrets as digests."""
    credentials = (
        (keys.access, secret_digest(keys.secret), secret_digest(keys.token))
        if keys is not None
        else (config.profile, os.environ.get("AWS_PROFILE"))
    )
    return (
        "s3",
        config.bucket,
        config.region,
        config.endpoint_url,
        credentials,
        config.transport,
        config.pool.max_connections,
        config.pool.timeout,
        config.timeout,
        config.checksum,
        config.ca_file,
        config.anonymous,
        config.addressing_style,
        config.server_side_encryption,
        config.sse_kms_key_id,
        config.requester_pays,
        config.storage_class,
    )


class Sessions:
    """The aioboto3 session of one pool, created when it is first needed."""

    def __init__(self, config: S3Config, keys: AccessKeys | None) -> None:
        self._config = config
        self.keys = keys
        self._session: Any = None
        self._lock = asyncio.Lock()

    async def session(self) -> Any:
        """Return the session; created in a thread the first time."""
        async with self._lock:
            if self._session is None:
                try:
                    self._session = await asyncio.to_thread(_create_session, self._config, self.keys)
                except Exception as error:  # botocore's own, such as ProfileNotFound
                    raise translate_boto_error(error, location="s3", writes=False) from None
            return self._session

    async def credentials(self) -> dict[str, Any]:
        """Return the credentials for the next requests, in obstore's form.

        Raises `ConfigError` if there are none.
        """
        try:
            found = await (await self.session()).get_credentials()
            frozen = None if found is None else await found.get_frozen_credentials()
        except Exception as error:  # a provider's own: SSO, IMDS, a process
            raise translate_boto_error(error, location="s3", writes=False) from None
        if frozen is None:
            raise ConfigError(
                "s3: no credentials: give aws_access_key_id and aws_secret_access_key, a profile, or AWS_*"
            )
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": dt.datetime.now(dt.UTC) + _REFRESH_AFTER,
        }


def _create_session(config: S3Config, keys: AccessKeys | None) -> Any:
    session = import_driver("aioboto3", extra="s3").Session(
        aws_access_key_id=keys.access if keys else None,
        aws_secret_access_key=keys.secret if keys else None,
        aws_session_token=keys.token if keys else None,
        region_name=config.region,
        profile_name=config.profile,
    )
    data_path = session._session.get_config_variable("data_path")
    session._session.register_component("data_loader", _load_models(data_path))
    return session


@functools.cache
def _load_models(data_path: str | None) -> Any:
    """Return botocore's loader with S3's files in its cache.

    The files take 0.1 s to parse, so that all pools of a process share them, and creating a client
    does not block on the disk.
    """
    loader = import_driver("botocore.loaders", extra="s3").create_loader(data_path)
    for model in ("service-2", "endpoint-rule-set-1", "paginators-1"):
        loader.load_service_model("s3", model)
    for data in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(data)
    return loader


@functools.cache
def _checking_session() -> Any:
    """Return aiobotocore's HTTP session made to check certificates, to follow no redirect and to stay closed.

    aiobotocore 2.25 takes urllib3's context, which leaves host names to urllib3, and gives it to
    aiohttp, which does not check them; behind a proxy it checks nothing at all. A request under way that
    a closed session has not sent yet makes it connect again, and nobody would close that.
    """
    plain: Any = import_driver("aiobotocore.httpsession", extra="s3").AIOHTTPSession
    refused = import_driver("aiohttp", extra="s3").ClientConnectionError

    class CheckingSession(plain):  # type: ignore[misc]  # the driver is untyped
        _ended = False

        async def __aexit__(self, *error: Any) -> Any:
            self._ended = True
            return await super().__aexit__(*error)

        async def _get_session(self, proxy_url: Any) -> Any:
            if self._ended:
                raise refused("the client was closed")
            return Unredirected(await super()._get_session(proxy_url))

        def _get_ssl_context(self) -> Any:
            context = super()._get_ssl_context()
            context.check_hostname = True
            context.load_default_certs()
            return context

        def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
            return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()

    return CheckingSession


async def boto_client(config: S3Config, sessions: Sessions) -> Any:
    """Return an open aioboto3 client for this loop; close it by `__aexit__`."""
    if config.ca_file:
        await asyncio.to_thread(_read_certificates, config.ca_file)
    session = await sessions.session()
    unsigned = {"signature_version": import_driver("botocore", extra="s3").UNSIGNED}
    options = import_driver("aiobotocore.config", extra="s3").AioConfig(
        **unsigned if config.anonymous else {},
        http_session_cls=_checking_session(),
        max_pool_connections=config.pool.max_connections,
        connect_timeout=min(5.0, config.timeout),
        read_timeout=config.timeout,
        # A repeated conditional write fails because the first one succeeded: `Requests` retries.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Other servers reject CRC trailers, the default since botocore 1.36.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        # The config has what profile and environment say; what it lacks, obstore would not have either.
        ignore_configured_endpoint_urls=True,
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
        s3={
            "addressing_style": "virtual" if config.bucket_in_host else "path",
            "use_accelerate_endpoint": False,
            "use_dualstack_endpoint": False,
        },
    )
    try:
        client = session.client(
            "s3",
            region_name=config.signing_region,
            endpoint_url=config.endpoint_url,
            verify=config.ca_file,
            config=options,
        )
        entered = await client.__aenter__()
    except Exception as error:  # botocore's own, such as for an unknown region
        raise translate_boto_error(error, location="s3", writes=False) from None
    _resolve_once(entered)
    entered.meta.events.register_last("before-parameter-build.s3", _follow_no_region)
    return entered


def _follow_no_region(context: dict[str, Any], **_: Any) -> None:
    """Have botocore raise for a redirect: it would ask the bucket for its region, again at each redirect."""
    context.setdefault("s3_redirect", {})["redirected"] = True


# Parameters of S3's endpoint rules that no rule reads.
UNREAD = frozenset({"Key", "Prefix", "CopySource"})


def _resolve_once(client: Any) -> None:
    """Evaluate the endpoint rules once and not for each key: saves a third of a request's time.

    botocore before 1.42 caches their result by all parameters, the key included (botocore#3528).
    """
    provider = getattr(getattr(client, "_ruleset_resolver", None), "_provider", None)
    if provider is None:
        return
    plain = provider.resolve_endpoint

    def resolved(**given: Any) -> Any:
        return plain(**{name: value for name, value in given.items() if name not in UNREAD})

    provider.resolve_endpoint = resolved


async def obstore_store(config: S3Config, sessions: Sessions) -> Any:
    """Return an obstore `S3Store`."""
    store = import_driver("obstore.store", extra="s3").S3Store
    _register_process_hooks()
    settings: dict[str, Any] = {
        "region": config.signing_region,
        "virtual_hosted_style_request": config.bucket_in_host,
        "skip_signature": config.anonymous,
        "request_payer": config.requester_pays,
    }
    if config.endpoint_url:
        scheme, _, place = config.endpoint_url.partition("://")
        # object_store takes an endpoint of this style with the bucket in it.
        settings["endpoint"] = (
            f"{scheme}://{config.bucket}.{place}" if config.bucket_in_host else config.endpoint_url
        )
    if config.checksum == "sha256":
        settings["checksum_algorithm"] = "sha256"
    for name in ("server_side_encryption", "sse_kms_key_id"):
        if (value := getattr(config, name)) is not None:
            settings[name] = value
    timeout = dt.timedelta(seconds=config.timeout)
    options: dict[str, Any] = {
        "timeout": timeout,
        "connect_timeout": min(timeout, dt.timedelta(seconds=5)),
        "allow_http": (config.endpoint_url or "").startswith("http://"),
        "pool_max_idle_per_host": str(config.pool.max_connections),
        "pool_idle_timeout": _IDLE,
    }
    if config.ca_file:
        options["root_certificate"] = await asyncio.to_thread(_read_certificates, config.ca_file)
    return store(
        config.bucket,
        config=settings,
        client_options=options,
        retry_config={"max_retries": 0, "retry_timeout": timeout},
        credential_provider=_provider(config, sessions),
    )


def _provider(config: S3Config, sessions: Sessions) -> Any:
    """Return obstore's source of credentials: a function even for static keys.

    obstore would add the environment's token to them.
    """
    if config.anonymous:
        return None
    return _key_provider(sessions.keys) if sessions.keys else sessions.credentials


def _read_certificates(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"s3: ca_file cannot be read: {error.strerror}") from None


def _key_provider(keys: AccessKeys) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "access_key_id": keys.access,
        "secret_access_key": keys.secret,
        "token": keys.token,
        "expires_at": None,
    }


_in_fork = False


def obstore_hangs() -> bool:
    """Return whether this process was forked from one that had used obstore: there obstore hangs."""
    return _in_fork


def _mark_forked() -> None:
    global _in_fork
    _in_fork = True


@functools.cache
def _register_process_hooks() -> None:
    os.register_at_fork(after_in_child=_mark_forked)
    # The thread that delivered the last response may still need the interpreter; if that is gone, the
    # process aborts (obstore 0.12.1: up to 10 of 15 short programs). 20 ms are enough.
    atexit.register(lambda: None if _in_fork or "obstore" not in sys.modules else time.sleep(0.02))
