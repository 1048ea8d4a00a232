"""`oss://bucket/key`: the names of objects and of prefixes in object stores."""

import re
from dataclasses import dataclass

#: OSS by its own package, the others through fsspec
SCHEMES = ("oss", "s3", "gs")
#: of OSS; other stores allow a little more
MAX_KEY_BYTES = 1023
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(?:/(.*))?", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """One object, or all that lie below a prefix. The key is literal: nothing in it is decoded."""

    scheme: str
    bucket: str
    #: without a slash at either end; empty for the bucket itself
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectUrl":
        """The prefix that this lies right below."""
        return ObjectUrl(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def below(self, name: str) -> "ObjectUrl":
        """The object or prefix of this relative name."""
        key = "/".join(part for part in (self.key, name) if part)
        return ObjectUrl(self.scheme, self.bucket, key)

    def sibling(self, name: str) -> "ObjectUrl":
        """The object of another name beside this one."""
        return self.parent.below(name)

    def is_below(self, prefix: "ObjectUrl") -> bool:
        """Whether this is the prefix, or lies below it; names count whole."""
        if (self.scheme, self.bucket) != (prefix.scheme, prefix.bucket):
            return False
        return not prefix.key or f"{self.key}/".startswith(f"{prefix.key}/")

    def relative_to(self, prefix: "ObjectUrl") -> str:
        """The rest of the key behind a prefix that this is below."""
        return self.key[len(prefix.key) :].lstrip("/")

    @classmethod
    def parse(cls, text: str) -> "ObjectUrl":
        """Read a URL; raises `ValueError` with what is wrong with it.

        Empty parts, `.` and `..` are refused and not resolved: to a store they are names like any
        other, to whoever checks a prefix they are not.
        """
        found = _URL.fullmatch(text.removesuffix("/"))
        if found is None:
            raise ValueError("it is not of the form oss://bucket/key")
        scheme, bucket, key = found[1], found[2], found[3] or ""
        if scheme not in SCHEMES:
            raise ValueError(f"its scheme is none of {', '.join(SCHEMES)}")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise ValueError(
                "its bucket is no bucket's name: up to 63 lower-case letters, digits and hyphens"
            )
        if problem := _key_problem(key):
            raise ValueError(f"its key {problem}")
        return cls(scheme, bucket, key)


def is_object_url(text: str) -> bool:
    """Whether a text names an object, and not a web page or a file."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def _key_problem(key: str) -> str | None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # lone surrogates, which JSON can spell
        return "is not valid Unicode"
    if size > MAX_KEY_BYTES:
        return f"has {size} bytes; a store takes {MAX_KEY_BYTES}"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in key):
        return "holds a control character"
    if key.startswith("\\"):
        return "begins with a backslash"
    parts = key.split("/") if key else []
    if any(part in ("", ".", "..") for part in parts):
        return "holds an empty part, '.' or '..'"
    return None
