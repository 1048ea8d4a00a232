"""How OSS is reached, from the environment (design section 4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_INTERNAL = re.compile(r"-internal(?=\.aliyuncs\.com)")


class ConfigError(ValueError):
    """Variables that are missing or cannot work together; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class OssConfig:
    """Keys and addresses. With a region requests are signed with version 4, else 1."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    endpoint: str
    #: what links for clients begin with: an internal endpoint is no use outside its region
    public_endpoint: str
    region: str | None = None
    security_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "OssConfig":
        """Read `OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET`, `OSS_SESSION_TOKEN`, `OSS_ENDPOINT`,
        `OSS_REGION` and `OSS_PUBLIC_ENDPOINT`; raises `ConfigError`."""

        def given(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        key_id, secret = given("OSS_ACCESS_KEY_ID"), given("OSS_ACCESS_KEY_SECRET")
        region = given("OSS_REGION")
        region = region.removeprefix("oss-") if region else None
        endpoint = given("OSS_ENDPOINT") or (f"oss-{region}.aliyuncs.com" if region else None)
        values = {
            "OSS_ACCESS_KEY_ID": key_id,
            "OSS_ACCESS_KEY_SECRET": secret,
            "OSS_ENDPOINT (or OSS_REGION)": endpoint,
        }
        if missing := [name for name, value in values.items() if not value]:
            raise ConfigError(f"set {', '.join(missing)} in the environment")
        assert key_id is not None
        assert secret is not None
        assert endpoint is not None
        endpoint = _with_scheme(endpoint, "OSS_ENDPOINT")
        public = given("OSS_PUBLIC_ENDPOINT")
        return cls(
            access_key_id=key_id,
            access_key_secret=secret,
            endpoint=endpoint,
            public_endpoint=_with_scheme(public, "OSS_PUBLIC_ENDPOINT")
            if public
            else _INTERNAL.sub("", endpoint),
            region=region,
            security_token=given("OSS_SESSION_TOKEN"),
        )


def _with_scheme(endpoint: str, name: str) -> str:
    """As a URL; a bare host gets https."""
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+/?", url):
        raise ConfigError(
            f"{name}: {endpoint!r} is no address such as oss-cn-hangzhou.aliyuncs.com"
        )
    return url.rstrip("/")
