"""Downloads that can be broken off: checked, resumed, and never in place before they are whole.

pooch keeps the place and the checksum; its own downloader starts again from nothing after every interruption, so the
one here asks the server for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn._extras import extra

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Progress", "fetch"]

Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all where the server says

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte


def fetch(
    urls: Sequence[str],
    folder: str | Path,
    checksum: str,
    *,
    progress: Progress | None = None,
    unpack: bool = False,
) -> Path:
    """One file of the network in `folder`, downloaded if it is not there yet.

    The bytes go to ``<name>.part``.  A broken download leaves it, and the next call continues it; the file gets its
    name only after its checksum was found right.

    Args:
        urls: where it can be had; the next is tried if one fails.  All end in the same name.
        folder: where it is kept; made if need be.
        checksum: ``"md5:..."`` or ``"sha256:..."``.
        progress: called now and then with (file name, bytes so far, bytes in all or None).
        unpack: it is a tar archive; unpack it into `folder` too.

    Returns:
        The path of the file.

    Raises:
        ConnectionError: no server could be reached or gave the whole file.
        ValueError: what came has another checksum; it is deleted.
        OSError: the disk is full or not writable.
        ModuleNotFoundError: pooch is not installed.
    """
    with extra("train", "pooch"):
        import pooch
        import requests

    name = urls[0].rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")
    said: list[str] = []
    for url in urls:
        try:
            got = pooch.retrieve(
                url,
                checksum,
                fname=name,
                path=folder,
                downloader=_Resuming(Path(folder) / f"{name}.part", progress),
                processor=pooch.Untar(extract_dir=".") if unpack else None,
            )
        except (requests.exceptions.RequestException, ConnectionError) as error:
            said.append(f"{url}: {error}")
            continue
        return Path(folder) / name if unpack else Path(got)
    raise ConnectionError(f"could not download {name}; " + "; ".join(said))


class _Resuming:
    """A downloader in pooch's sense: fills `output_file`, by way of a partial file that outlives a failure."""

    def __init__(self, part: Path, progress: Progress | None) -> None:
        self._part = part
        self._progress = progress

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: Any, check_only: bool = False) -> None:
        """Bring `url` to `output_file`; the partial file becomes it once everything is there."""
        import requests

        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        # The bytes as they are stored: a server that compresses on the way would make sizes and ranges meaningless.
        headers["Accept-Encoding"] = "identity"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 416 and have:  # nothing lies beyond what is here: the checksum will judge it
                os.replace(self._part, output_file)
                return
            response.raise_for_status()
            continues = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            self._receive(url, response, have if continues else 0)
        os.replace(self._part, output_file)

    def _receive(self, url: str, response: Response, have: int) -> None:
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        done = have
        with open(self._part, "ab" if have else "wb") as part:
            for chunk in response.iter_content(_CHUNK):
                part.write(chunk)
                done += len(chunk)
                if self._progress is not None:
                    self._progress(url.rpartition("/")[2], done, total)
        if total is not None and done < total:
            raise ConnectionError(f"the connection ended after {done} of {total} bytes")
