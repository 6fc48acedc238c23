"""The requests of the page, and the loop that answers them, on the loopback interface only."""

import errno
import json
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from jaxclust.browse import pictures, words
from jaxclust.browse.guard import Guard
from jaxclust.browse.library import ORDERS, Library, Now
from jaxclust.config import ConfigError, RunError
from jaxclust.data.decode import Unusable, decode
from jaxclust.decisions import FILE, LONGEST, PARTS, Changed
from jaxclust.files import finite

# images u8[n, H, W, C] -> q f32[n, K], x f32[n, D]
Embed = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MOST_JSON = 4 * 2**20  # bytes; a move of 400,000 images
MOST_UPLOAD = 32 * 2**20  # bytes


def serve(library: Library, port: int, embed: Embed | None = None) -> None:
    """Answers until Ctrl-C, which is the way to end it and no failure. To be called in the main thread.

    Args:
      library: the run.
      port: to listen on, on 127.0.0.1; 0 is any that is free.
      embed: shows new images to the network, for a search; None where it cannot be shown any.

    Raises:
      ConfigError: the port is taken, or the run's decisions cannot be read.
    """
    library.now()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen()
        except (OSError, OverflowError) as e:
            if getattr(e, "errno", None) == errno.EADDRINUSE:
                raise ConfigError(f"port {port} is taken; give another one, or --port=0 for any that is free") from e
            raise ConfigError(f"port {port} cannot be used ({getattr(e, 'strerror', None) or e}); give another") from e
        port = listening.getsockname()[1]
        how = uvicorn.Config(
            application(library, port, embed),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        answering = uvicorn.Server(how)
        # From here on Ctrl-C only asks it to end, as it does once it runs.
        before = signal.signal(signal.SIGINT, answering.handle_exit)
        try:
            print(f"{len(library.images):,} images in {len(library.now().names)} groups: http://127.0.0.1:{port}/")
            print(f"decisions are kept in {library.workdir / FILE}; Ctrl-C ends this", flush=True)
            answering.run([listening])
        finally:
            signal.signal(signal.SIGINT, before)


def application(library: Library, port: int, embed: Embed | None) -> ASGIApp:
    """The server as an ASGI application that believes to be at `port`."""
    here = Requests(library, embed)
    page = files("jaxclust.browse") / "page"
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

    def __init__(self, library: Library, embed: Embed | None):
        self.library, self.embed = library, embed
        self.token = secrets.token_hex(4)  # in a sheet's address: a browser keeps none beyond this server's life
        self.embedding = threading.Lock()

    def version(self, request: Request) -> Response:
        return _json({"version": self.library.now().version, "server": self.token})

    def state(self, request: Request) -> Response:
        return self._state(self.library.now(), request.query_params.get("seen"))

    def _state(self, now: Now, seen: str | None = None, status: int = 200, **more: Any) -> Response:
        run, decided = self.library, now.decided
        height, width = pictures.thumbnail_size(run.images.shape[1:])
        news = [] if seen in (None, now.version) else words.news(run.remembered(seen), decided)
        return _json(
            {
                **more,
                "version": now.version,
                "run": run.workdir.resolve().name,
                "step": run.step,
                "images": len(run.images),
                "shape": run.images.shape[1:],
                "originals": run.files is not None and run.root is not None,
                "search": self.embed is not None,
                "longest": LONGEST,
                "parts": PARTS,
                "sheet": {
                    "token": self.token,
                    "columns": pictures.COLUMNS,
                    "most": pictures.MOST,
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
            raise HTTPException(404, f"there is no group {group} (any more)")
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
        picture = pictures.sheet(self.library.images, [self._row(text) for text in asked])
        return _picture(picture, "private, max-age=86400, immutable")

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
        if run.files is None or run.root is None:
            raise HTTPException(404, "the images of this run are not files in a folder")
        return _picture(pictures.original(run.root, run.files[row]))

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
            return self._state(self.library.decide(now, entry))
        except Changed:
            return self._changed(seen)

    def _changed(self, seen: str) -> Response:
        return self._state(self.library.now(), seen, 409, error="the groups have changed in the meantime")

    async def search(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        if not (kind.startswith("image/") or kind == "application/octet-stream"):
            raise HTTPException(415, "send an image, as image/... or application/octet-stream")
        if self.embed is None:
            raise HTTPException(404, "this run cannot be searched with an image")
        content = await _body(request, MOST_UPLOAD)
        return await run_in_threadpool(self._search, content)

    def _search(self, content: bytes) -> Response:
        height, width, channels = self.library.images.shape[1:]
        image = decode(content, height if height == width else None, channels)
        if image.shape != (height, width, channels):
            raise Unusable(f"this run's images are {width} by {height} pixels, and this one is not")
        with self.embedding:
            q, x = (np.asarray(part) for part in self.embed(image[None]))
        now = self.library.now()
        place, sure = now.decided.assign(q, x)
        about = {"group": [*now.names][int(place[0])], "confidence": float(sure[0])}
        return _json({"version": now.version, **about, "neighbours": self._neighbours(now, x[0])})

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
        raise HTTPException(404, "that is not the number of an image or group")
    return int(text)


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
