"""How bytes come from elsewhere: http(s), and what fsspec has packages for. Credentials come from the environment alone."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

TIMEOUT = 60.0
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "memory": "fsspec"}
"""Schemes that go through fsspec, and the package each wants."""


class Interrupted(Exception):
    """A transfer that broke off: to be tried again from where it stopped."""


class Missing(Exception):
    """There is no such file."""


class Facts(NamedTuple):
    """What a place says of a file before it is fetched."""

    bytes: int | None
    version: str
    """Another one means other content; "" when the place has none."""


class Transport(Protocol):
    """One way to get files."""

    def facts(self, url: str) -> Facts:
        """Size and version. Raises Missing, Interrupted, or DataError where trying again does not help."""
        ...

    def read(self, url: str, start: int, version: str) -> AbstractContextManager[tuple[int, IO[bytes]]]:
        """(first byte, stream): from `start` on, or from 0 where the place cannot do that. Raises as `facts`."""
        ...


@dataclass(frozen=True)
class Http:
    """http(s), with a bearer token where an environment variable holds one."""

    token_variable: str | None = None

    def facts(self, url: str) -> Facts:
        """By a request for the first byte: signed addresses allow GET only."""
        with self._response(url, {"Range": "bytes=0-0"}) as response:
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            size = whole if response.status == 206 else response.headers.get("Content-Length", "")
            version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            return Facts(int(size) if size.isdigit() else None, version)

    @contextmanager
    def read(self, url: str, start: int, version: str) -> Iterator[tuple[int, IO[bytes]]]:
        """See Transport. A file that has another version by now is refused, by servers that look."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        headers |= {"If-Match": version} if version.startswith('"') else {}
        try:
            with self._response(url, headers) as response:
                yield (start if response.status == 206 else 0), response
        except (http.client.HTTPException, OSError) as error:
            raise Interrupted(str(error) or type(error).__name__) from error

    @contextmanager
    def _response(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        request = urllib.request.Request(url, headers=headers)
        if self.token_variable and (token := os.environ.get(self.token_variable)):
            # Not sent on to the server that a redirect names.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(error, self.token_variable) from error
        except (http.client.HTTPException, OSError) as error:
            raise Interrupted(str(getattr(error, "reason", error))) from error
        with response:
            yield response


def _refusal(error: urllib.error.HTTPError, token_variable: str | None) -> Exception:
    if error.code in (404, 410):
        return Missing(f"HTTP {error.code}")
    if error.code in (408, 425, 429) or error.code >= 500:
        return Interrupted(f"HTTP {error.code} {error.reason}")
    if error.code == 412:
        return DataError("it has changed since the run began", "start again")
    hint = "check the address"
    if error.code in (401, 403):
        hint = f"put a token that may read it into {token_variable}" if token_variable else "this address is not public"
    return DataError(f"the server says HTTP {error.code} {error.reason}", hint)


@dataclass(frozen=True)
class Filesystem:
    """An fsspec file system, by its scheme; it takes its credentials from the environment."""

    scheme: str

    def open(self) -> Any:  # noqa: ANN401
        """The file system. DataError names the package that is missing."""
        import fsspec

        try:
            return fsspec.filesystem(self.scheme)
        except ImportError as error:
            package = PACKAGES[self.scheme]
            message = f"{self.scheme}:// addresses need the package {package}, which is not installed"
            raise DataError(message, f"pip install {package}") from error

    def facts(self, url: str) -> Facts:
        """See Transport."""
        files = self.open()
        with _explained():
            return Facts(files.info(url)["size"], str(files.ukey(url)))

    @contextmanager
    def read(self, url: str, start: int, version: str) -> Iterator[tuple[int, IO[bytes]]]:  # noqa: ARG002
        """See Transport."""
        files = self.open()
        with _explained(), files.open(url, "rb") as stream:
            stream.seek(start)
            yield start, stream

    def tars(self, url: str) -> list[str]:
        """The .tar files right in a folder, sorted."""
        files = self.open()
        with _explained():
            return sorted(f"{self.scheme}://{path.lstrip('/')}" for path in files.glob(f"{url.rstrip('/')}/*.tar"))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(str(error)) from error
    except PermissionError as error:
        hint = "put credentials that may read it into the environment"
        raise DataError(f"access is refused: {error}", hint) from error
    except OSError as error:
        raise Interrupted(str(error)) from error
