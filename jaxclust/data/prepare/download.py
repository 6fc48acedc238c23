"""Fetching files over HTTP: a download that breaks off goes on where it stopped, and has its name when it is whole."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from jaxclust.run.errors import ConfigError
from jaxclust.run.files import FULL, put

TIMEOUT = 60  # seconds without a byte


def fetch(urls: Sequence[str], folder: Path, wants: str) -> None:
    """Downloads `urls` into `folder`, each under its last part; a file that is there is not fetched again.

    Args:
      urls: what to fetch.
      folder: where to; it is made.
      wants: what to give `--from` instead, for the message: the end of a sentence.

    Raises:
      ConfigError: the server cannot be reached, has no such file, or the connection broke off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for url in urls:
        path = folder / url.rsplit("/", 1)[1]
        if path.exists():
            continue
        try:
            _download(url, path)
        except (OSError, http.client.HTTPException) as e:
            if isinstance(e, OSError) and e.errno in FULL:
                raise
            reason = getattr(e, "reason", None) or e
            raise ConfigError(
                f"{url} cannot be fetched ({reason}); run the same command again to go on, or fetch it by hand and "
                f"give --from=PATH to {wants}"
            ) from e


def _download(url: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if (
            e.headers.get("Content-Range") != f"bytes */{start}"
        ):  # else it was killed between its last byte and its name
            part.unlink()
            return _download(url, path)
    else:
        _receive(response, part, start)
    put(part, path)


def _receive(response: http.client.HTTPResponse, part: Path, start: int) -> None:
    if response.status != http.client.PARTIAL_CONTENT:  # the server sends the whole again
        start = 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    with (
        response,
        part.open("ab" if start else "wb") as f,
        tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while data := response.read(1 << 20):
            f.write(data)
            bar.update(len(data))
        f.flush()
        os.fsync(f.fileno())
        if total is not None and f.tell() != total:
            raise ConnectionError(f"it broke off after {f.tell():,} of {total:,} bytes")
