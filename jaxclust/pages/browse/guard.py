"""Which requests are answered: those of this server's own page, and of a person who types its address.

The server listens on the loopback interface only, but any web page that the user has open may send requests there.
Its name in the Host header tells a rebound DNS name; Origin and Sec-Fetch-Site tell another site's page.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, port: int):
        self.app = app
        self.hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")}
        if port == 80:  # browsers leave it out
            self.hosts |= {"127.0.0.1", "localhost", "[::1]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        why = self.refuses(scope["method"], scope["path"], Headers(scope=scope))
        app = self.app if why is None else JSONResponse({"error": why}, 403)
        await app(scope, receive, send_guarded)

    def refuses(self, method: str, path: str, headers: Headers) -> str | None:
        """Why a request is refused; None where it is not."""
        host = headers.getlist("host")
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return "this server answers to 127.0.0.1 and localhost, with its port, and to no other name"
        reading = method in ("GET", "HEAD")
        sites = set(headers.getlist("sec-fetch-site"))
        # The page itself holds nothing of the run, so a link from elsewhere may lead to it.
        if not sites <= ({"same-origin", "none"} if reading else {"same-origin"}) and not (reading and path == "/"):
            return "another site's page may not ask for this"
        if not reading and headers.getlist("origin") != [f"http://{host[0].lower()}"]:
            return "only this server's own page may change anything"
        return None
