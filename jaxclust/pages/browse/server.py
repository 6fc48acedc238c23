"""The requests of the page, one by one, as an application that `serving` answers with."""

import functools
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from jaxclust.clusters import table
from jaxclust.clusters.decisions import LONGEST, PARTS
from jaxclust.clusters.journal import Changed
from jaxclust.data.decode import decode
from jaxclust.data.encodings import Unusable
from jaxclust.pages.browse import pictures, words
from jaxclust.pages.browse.guard import Guard
from jaxclust.pages.browse.library import ORDERS, Library, Now
from jaxclust.run.errors import ConfigError, RunError
from jaxclust.run.files import encoded, expanded, finite, is_inside
from jaxclust.run.workdir import CLUSTERS, SORTED

logger = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """What the network says of an image."""

    q: np.ndarray  # f32[1, K], soft assignment to its clusters
    x: np.ndarray  # f32[1, D], the embedding
    novel: np.ndarray | None  # bool[1], whether it looks like nothing seen in training; None where that is not known


Embed = Callable[[np.ndarray], Embedded]  # of an image u8[H, W, C]
# clusters as they are, a folder, whether to copy -> how many links and files are there
Sort = Callable[[Now, Path, bool], tuple[int, int]]

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MOST_JSON = 4 * 2**20  # bytes; a move of 400,000 images
MOST_UPLOAD = 32 * 2**20  # bytes


def application(
    library: Library,
    port: int,
    embed: Embed | None = None,
    sort: Sort | None = None,
    changed: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """The server as an ASGI application that believes to be at `port`, and calls `changed` after decisions."""
    here = Requests(library, embed, sort, changed)
    page = files("jaxclust.pages.browse") / "page"
    routes = [Route("/" if f.name == "browse.html" else f"/{f.name}", _constant(f)) for f in page.iterdir()]
    routes += [
        Route("/api/version", here.version),
        Route("/api/state", here.state),
        Route("/api/group/{group}", here.group),
        Route("/api/sheet", here.sheet),
        Route("/api/image/{row}", here.image),
        Route("/api/pixels/{row}", here.pixels),
        Route("/api/original/{row}", here.original),
        Route("/api/preview", here.preview, methods=["POST"]),
        Route("/api/decide", here.decide, methods=["POST"]),
        Route("/api/undo", here.undo, methods=["POST"]),
        Route("/api/search", here.search, methods=["POST"]),
        Route(f"/api/{CLUSTERS}", here.table),
        Route("/api/sort", here.sort, methods=["POST"]),
    ]
    failed = {
        HTTPException: lambda _, e: _json({"error": e.detail}, e.status_code),
        ConfigError: lambda _, e: _json({"error": str(e)}, 400),
        Unusable: lambda _, e: _json({"error": str(e)}, 422),
        RunError: lambda _, e: _json({"error": str(e)}, 500),
        OSError: lambda _, e: _json({"error": f"{e.filename or 'a file'} failed: {e.strerror or e}"}, 500),
        ClientDisconnect: lambda _, e: _json({"error": "the request ended early"}, 400),
    }
    app = Starlette(routes=routes, exception_handlers=failed)
    app.router.redirect_slashes = False
    return Guard(app, port)


class Requests:
    """One method answers one kind of request; those that are no coroutines run in threads."""

    def __init__(self, library: Library, embed: Embed | None, sort: Sort | None, changed: Callable[[], None]):
        self.library, self.embed, self.make_folders, self.changed = library, embed, sort, changed
        self.token = secrets.token_hex(4)  # in a sheet's address: a browser keeps none beyond this server's life
        self.embedding, self.sorting = threading.Lock(), threading.Lock()
        self.thumbnail = functools.lru_cache(pictures.KEPT)(
            functools.partial(pictures.thumbnail, library.images, library.originals)
        )

    def version(self, request: Request) -> Response:
        return _json({"version": self.library.now().version, "server": self.token})

    def state(self, request: Request) -> Response:
        return self._state(self.library.now(), request.query_params.get("seen"))

    def _state(self, now: Now, seen: str | None = None, status: int = 200, **more: Any) -> Response:
        run, decided = self.library, now.decided
        height, width = pictures.thumbnail_size(run.images.shape[1:], run.originals)
        news = [] if seen in (None, now.version) else words.news(run.remembered(seen), decided)
        return _json(
            {
                **more,
                "version": now.version,
                "run": run.workdir.resolve().name,
                "step": run.step,
                "images": len(run.images),
                "shape": run.images.shape[1:],
                "originals": run.originals is not None,
                "search": self.embed is not None,
                "sorted": str(run.workdir.resolve() / SORTED) if self.make_folders else None,
                "longest": LONGEST,
                "parts": PARTS,
                "sheet": {
                    "token": self.token,
                    "columns": pictures.COLUMNS,
                    "most": pictures.MOST if run.originals is None else pictures.AT_ONCE,
                    "gutter": pictures.GUTTER,
                    "height": height,
                    "width": width,
                },
                "groups": run.groups(now),
                "decided": len(decided.entries),
                "last": words.tell(decided, len(decided.entries) - 1) if decided.entries else None,
                "news": news,
            },
            status,
        )

    def group(self, request: Request) -> Response:
        now = self.library.now()
        group = _number(request.path_params["group"])
        order = request.query_params.get("order", ORDERS[0])
        if group not in now.names:
            raise HTTPException(404, f"there is no cluster {group} (any more)")
        if order not in ORDERS:
            raise HTTPException(400, f"orders are {', '.join(ORDERS)}")
        rows = self.library.rows(now, group, order)
        sure = (now.members.confidence[rows] * 1000).round().astype(int)
        placed = rows[now.members.placed[rows]]
        listed = {"rows": rows.tolist(), "confidence": sure.tolist(), "placed": placed.tolist()}
        return Response(json.dumps({"version": now.version, **listed}), media_type="application/json")

    def sheet(self, request: Request) -> Response:
        asked = request.query_params.get("rows", "").split(",")
        if len(asked) > pictures.MOST:
            raise HTTPException(400, f"a sheet holds at most {pictures.MOST} images")
        return _picture(
            pictures.sheet([self.thumbnail(self._row(text)) for text in asked]), "private, max-age=86400, immutable"
        )

    def image(self, request: Request) -> Response:
        row, run, now = self._row(request.path_params["row"]), self.library, self.library.now()
        return _json(
            {
                "version": now.version,
                **self._about(now, row),
                "file": run.files[row] if run.files is not None else None,
                "neighbours": self._neighbours(now, run.x[row], row),
            }
        )

    def _about(self, now: Now, row: int) -> dict[str, Any]:
        members = now.members
        group, sure = int(members.group[row]), float(members.confidence[row])
        return {"row": row, "group": group, "confidence": sure, "placed": bool(members.placed[row])}

    def _neighbours(self, now: Now, v: np.ndarray, but: int | None = None) -> list[dict[str, Any]]:
        rows, cosine = self.library.nearest(v, but)
        return [self._about(now, row) | {"cosine": c} for row, c in zip(rows.tolist(), cosine.tolist())]

    def pixels(self, request: Request) -> Response:
        return _picture(pictures.stored(self.library.images, self._row(request.path_params["row"])))

    def original(self, request: Request) -> Response:
        row, run = self._row(request.path_params["row"]), self.library
        if run.originals is None:
            raise HTTPException(404, "the images of this run are not files")
        return _picture(pictures.original(run.originals, row))

    async def preview(self, request: Request) -> Response:
        asked = await _asked(request, "group", "parts")
        now = self.library.now()
        if asked["seen"] != now.version:
            return await run_in_threadpool(self._changed, asked["seen"])

        def parts() -> Response:
            entry = self.library.split(now, asked["group"], asked["parts"])
            return _json({"version": now.version, "parts": self.library.preview(now, entry)})

        return await run_in_threadpool(parts)

    async def decide(self, request: Request) -> Response:
        asked = await _asked(request, "entry")
        return await run_in_threadpool(self._decide, asked["seen"], asked["entry"])

    async def undo(self, request: Request) -> Response:
        asked = await _asked(request)
        return await run_in_threadpool(self._decide, asked["seen"], None, True)

    def _decide(self, seen: str, asked: Any, undo: bool = False) -> Response:
        now = self.library.now()
        try:
            if now.version != seen:
                raise Changed
            entry = None if undo else self.library.request(now, asked)
            decided = self.library.decide(now, entry)
            self.changed()
            return self._state(decided)
        except Changed:
            return self._changed(seen)

    def _changed(self, seen: str) -> Response:
        return self._state(self.library.now(), seen, 409, error="the clusters have changed in the meantime")

    async def search(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        if not (kind.startswith("image/") or kind == "application/octet-stream"):
            raise HTTPException(415, "send an image, as image/... or application/octet-stream")
        if self.embed is None:
            raise HTTPException(404, "this run cannot be searched with an image")
        content = await _body(request, MOST_UPLOAD)
        return await run_in_threadpool(self._search, content, self.embed)

    def _search(self, content: bytes, embed: Embed) -> Response:
        height, width, channels = self.library.images.shape[1:]
        image = decode(content, height if height == width else None, channels)
        if image.shape != (height, width, channels):
            raise Unusable(f"this run's images are {width} by {height} pixels, and this one is not")
        with self.embedding:
            q, x, novel = embed(image)
        now = self.library.now()
        place, sure = now.decided.assign(q, x)
        about = {
            "group": [*now.names][int(place[0])],
            "confidence": float(sure[0]),
            "novel": None if novel is None else bool(novel[0]),
        }
        return _json({"version": now.version, **about, "neighbours": self._neighbours(now, x[0])})

    def table(self, request: Request) -> Response:
        run, now = self.library, self.library.now()
        text = table.text(run.files, now.names, now.members.group, now.members.confidence)
        how = {"content-disposition": f'attachment; filename="{CLUSTERS}"'}
        return Response(encoded(text), media_type="text/csv", headers=how)

    async def sort(self, request: Request) -> Response:
        asked = await _asked(request, "into", "copy")
        into, copy = asked["into"], asked["copy"]
        if not _is_path(into) or not isinstance(copy, bool):
            raise HTTPException(400, "send a folder's path as into, and true or false as copy")
        return await run_in_threadpool(self._sort, asked["seen"], into.strip(), copy)

    def _sort(self, seen: str, into: str, copy: bool) -> Response:
        now, make = self.library.now(), self.make_folders
        if make is None:
            raise HTTPException(404, "the images of this run are not at hand as files")
        if now.version != seen:
            return self._changed(seen)
        own = self.library.workdir.resolve()
        folder = own / expanded(into)
        if is_inside(folder, own) and not is_inside(folder, own / SORTED):
            raise ConfigError(f"{folder} is inside the run's own folder; give {own / SORTED}, or a folder elsewhere")
        with self.sorting:
            links, files = make(now, folder, copy)
        return _json({"version": now.version, "into": str(folder), "links": links, "files": files})

    def _row(self, text: str) -> int:
        row = _number(text)
        if row >= len(self.library.images):
            raise HTTPException(404, f"there is no image {row}; they are 0 to {len(self.library.images) - 1}")
        return row


def _constant(file: Any) -> Callable[[Request], Response]:
    kind, content = KINDS[file.name.rpartition(".")[2]], file.read_bytes()
    return lambda request: Response(content, media_type=kind)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(404, "that is not the number of an image or cluster")
    return int(text)


def _is_path(text: Any) -> bool:
    try:
        return isinstance(text, str) and text.strip() != "" and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, which no file is called
        return False


async def _asked(request: Request, *names: str) -> dict[str, Any]:
    """The JSON object in a request's body, with the text `seen` and the other names in it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        asked = json.loads((await _body(request, MOST_JSON)).decode())
    except (ValueError, RecursionError) as e:
        raise HTTPException(400, f"this is not JSON ({type(e).__name__})") from e
    if not isinstance(asked, dict) or asked.keys() != {"seen", *names} or not isinstance(asked["seen"], str):
        raise HTTPException(400, f"send an object with {', '.join(('seen', *names))}")
    return asked


async def _body(request: Request, most: int) -> bytes:
    content = bytearray()
    length = request.headers.get("content-length", "0")
    if len(length) < 15 and int(length) <= most:
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                break
        else:
            return bytes(content)
    raise HTTPException(413, f"more than {most:,} bytes")


def _json(value: Any, status: int = 200) -> Response:
    # ASCII only: file names may hold halves of surrogate pairs, which UTF-8 cannot say.
    return Response(json.dumps(finite(value), allow_nan=False), status, media_type="application/json")


def _picture(picture: pictures.Picture, cache: str = "no-store") -> Response:
    return Response(picture.content, media_type=picture.kind, headers={"cache-control": cache})
