"""Requests that nobody who means well would send: each is answered with a 4xx, and the server goes on.

They go out byte by byte over sockets, as a client library would tidy many of them up.
"""

import itertools
import json
import os
import socket
import time
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from helpers import browsed
from helpers.browsed import COUNT, GROUPS, SECRET
from PIL import Image

from jaxclust.run import workdir

OUT = ["etc/passwd", "secret.txt"]
CLIMBS = [
    "../../",
    "..%2f..%2f",
    "%2e%2e/%2e%2e/",
    "%2e%2e%2f%2e%2e%2f",
    "%252e%252e%252f%252e%252e%252f",
    "..%5c..%5c",
    "..\\..\\",
    "..%255c..%255c",
    "%c0%ae%c0%ae/%c0%ae%c0%ae/",  # overlong
    "%e0%80%ae%e0%80%ae%e0%80%af",
    "..%c0%af..%c0%af",
    "....//....//",
    "..;/..;/",
    "%u002e%u002e/",
    "%00../../",
    "0%00/../../",
    "/",
    "%2f",
    "//",
    "file:///",
    "file:%2f%2f%2f",
    "%ff%fe../",
]
PREFIXES = ["", "api/original/", "api/pixels/", "api/image/", "api/group/", "page/", "api/sheet?rows="]
NUMBERS = [
    *("-1", "+1", "1.0", "1e1", "1_0", "0x1", "0b1", "%201", "1%20", "1%00", "1%0a", "%D9%A3", "%C2%B2", "nan", "inf"),
    *("true", "null", "[0]", "{}", "''", "1;2", "1'", "9" * 20, "9" * 5000, str(COUNT), str(COUNT + 1)),
]
TYPED = "Content-Type: application/json"
ENTRIES = [
    *(None, 5, "rename", [], {}, {"do": None}, {"do": ["rename"]}, {"do": "delete", "group": 0}, {"do": "undo"}),
    *({"do": "rename", "group": g, "name": "x"} for g in (-1, COUNT, "0", 0.0, True, None, [0], {}, 1e300)),
    *({"do": "rename", "group": 0, "name": n} for n in (None, 5, ["x"], {"x": 1}, "x" * 201, True)),
    *({"do": "merge", "groups": g} for g in ([], [0], [0, 0], [0, COUNT], [0, -1], ["0", "1"], [0, 1.0], [0, True])),
    *({"do": "merge", "groups": g} for g in (None, "01", {"0": 1}, 0, [[0], [1]], [0, None])),
    *({"do": "split", "group": 0, "parts": p} for p in (0, 1, 9, -2, 2.0, "2", True, None, [2], 10**30)),
    *({"do": "split", "group": g, "parts": 2} for g in (-1, COUNT, "0", 0.0, False, None)),
    {"do": "split", "group": 0, "into": [0, 3], "centres": [[0] * 4] * 2},  # centres are the server's to find
    *({"do": "move", "rows": r, "group": 0} for r in ([], [-1], [COUNT], [0.0], ["0"], [True], [None], [[0]], "0", 0)),
    *({"do": "move", "rows": [0], "group": g} for g in (-1, COUNT, "0", None)),
    {"do": "move", "images": ["../../etc/passwd"], "group": 0},
    *({"do": "new", "rows": r, "name": "x"} for r in ([], [-1], [COUNT], [0.0], ["0"], [True], [None], [[0]])),
    *({"do": "new", "rows": r, "name": "x"} for r in (None, "0", 0, {"0": 0}, [0, COUNT], [0, "1"], [10**30])),
    *({"do": "new", "rows": [0], "name": n} for n in (None, 5, ["x"], {"x": 1}, "x" * 201, " " * 201, True)),
    *({"do": "new"}, {"do": "new", "rows": [0]}, {"do": "new", "name": "x"}),
    {  # what it reaches is the server's to find
        **{"do": "new", "images": ["020.png"], "group": GROUPS, "name": "x"},
        **{"from": [2], "centre": [0] * 4, "radius": 9.0, "stay": []},
    },
]
PLACES = [  # for sorted images, from the run's folder
    *(None, 5, True, [], {}, "", "  ", "\n\t", "\0", "../a\0b", "\ud800", "../a/\ud800/b"),
    *("../" + "x" * 300, "../a/b/" + "x" * 300, "../" + f"{'x' * 150}/" * 30, "../" + "x" * 10**6, "~" + "x" * 300),
    *("../file", "../file/", "../file/x", "../file/x/y", "../a/../file", "../pipe", "../pipe/x", "~/\0"),
    *("../circle", "../circle/x", "../nowhere", "../nowhere/x", "/dev/null/x", "/proc/x"),
    *("data", "data/x", "../data", "../data/x/y", "../a/../data/x", "data/sub"),
    *(".", "./", "../run", "../a/../run/x", "x", "sorted/..", "sorted/../x"),
    *(workdir.CHECKPOINTS, f"{workdir.CHECKPOINTS}/7", workdir.DECISIONS, workdir.CLUSTERS, f"{workdir.REPORT}/x"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    around = tmp_path_factory.mktemp("browsed")
    (folder := around / "run").mkdir()
    browsed.make(folder)
    (folder / f".{workdir.DECISIONS}.lock").touch()  # an undo takes its turn before it is refused
    (around / "file").write_text("mine")
    os.mkfifo(around / "pipe")
    for name, leads in (("circle", "circle"), ("nowhere", "nothing"), ("data", "run/data")):
        (around / name).symlink_to(around / leads)
    with browsed.serving(folder) as port:
        yield port, folder


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and all of the answer to what is sent; 0 where the line was just cut."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        received = bytearray()
        try:
            line.sendall(request)
            while part := line.recv(2**16):
                received += part
        except (ConnectionResetError, BrokenPipeError, TimeoutError):  # it may not want to hear all of it
            pass
    return int(received[9:12] or 0), bytes(received)


def there(folder: Path) -> dict[str, bytes | None]:
    """All that is in and around the run's folder, once the table is there that the server writes when it starts."""
    while not (folder / workdir.CLUSTERS).exists():
        time.sleep(0.01)
    found = sorted(folder.parent.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def http(method: str, target: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    lines = [f"{method} {target} HTTP/1.1", *headers, f"Content-Length: {length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def bad_requests(port: int, version: str) -> list[bytes]:
    """All of them; without what is wrong with it, each would be answered with 200."""
    here = f"Host: 127.0.0.1:{port}"
    own = (here, f"Origin: http://127.0.0.1:{port}")
    good = json.dumps({"seen": version, "entry": {"do": "rename", "group": 0, "name": "x"}}).encode()
    posts = {
        "/api/decide": good,
        "/api/undo": json.dumps({"seen": version}).encode(),
        "/api/preview": json.dumps({"seen": version, "group": 0, "parts": 2}).encode(),
        "/api/sort": json.dumps(sort := {"seen": version, "into": "../sorted", "copy": False}).encode(),
    }
    reads = ["/api/state", "/api/version", "/api/group/0", "/api/sheet?rows=0", "/api/pixels/0", "/api/original/20"]
    reads.append("/api/clusters.csv")

    requests = [  # paths, and numbers of images and groups
        *(http("GET", f"/{prefix}{climb}{out}", here) for prefix in PREFIXES for climb in CLIMBS for out in OUT),
        *(
            http("GET", f"/{prefix}{number}", here)
            for prefix in ("api/original/", "api/pixels/", "api/image/", "api/group/", "api/sheet?rows=")
            for number in NUMBERS
        ),
        *(http("GET", f"/api/original/{row}", here) for row in browsed.UNUSABLE),
        *(http("GET", f"/api/group/0?order={order}", here) for order in ("", "size", "../x", "%00", "typical%20")),
        *(http("GET", f"/api/sheet{query}", here) for query in ("", "?rows=", "?rows=0,,1", "?row=0", "?rows=0;1")),
        http("GET", f"/api/sheet?rows={','.join('0' * 65)}", here),
        *(
            http("GET", path, here)
            for path in (
                "/.",
                "/..",
                "/api/state/",
                "/browse.js/",
                "/.git/config",
                "/browse.html",
                "/server.py",
                "/api",
                "/api/",
                "/clusters.csv",
                "/api/clusters",
                "/api/clusters.csv/",
                "/api/clusters.csv%00",
                "/api/CLUSTERS.CSV",
                "/api/decisions.json",
                "/api/../decisions.json",
            )
        ),
    ]
    foreign = [  # other names, such as one that a DNS server has rebound to this machine
        *("evil.example", f"evil.example:{port}", f"127.0.0.1:{port + 1}", "127.0.0.1", "localhost", "", "null"),
        *(f"localhost:{port}.evil.example", f"127.0.0.1:{port}@evil.example", f"evil.example@127.0.0.1:{port}"),
        *(f"127.0.0.1.evil.example:{port}", f"127.0.0.1:{port}, evil.example", f"0.0.0.0:{port}", f"127.1:{port}"),
        *(f"2130706433:{port}", f"0x7f000001:{port}", f"[::]:{port}", f"[::ffff:127.0.0.1]:{port}", f"::1:{port}"),
        *(
            f"localhost.:{port}",
            f"127.0.0.1:0{port}",
            f"127.0.0.1:{port}:80",
            f"127.0.0.1:{port}/",
            f"127.0.0.2:{port}",
        ),
    ]
    for host in foreign:
        hosts = (f"Host: {host}", f"X-Forwarded-Host: 127.0.0.1:{port}", f"Forwarded: host=127.0.0.1:{port}")
        requests += [http("GET", path, *hosts) for path in ("/", "/browse.js", "/api/state")]
        requests += [http("POST", "/api/decide", *hosts, f"Origin: http://{host}", TYPED, body=good)]
        requests += [http("POST", "/api/decide", *hosts, own[1], TYPED, body=good)]
    requests += [
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        http("GET", "/", here, "Host: evil.example"),
        http("GET", "/", "Host: evil.example", here),
        http("GET", f"http://127.0.0.1:{port}/api/state", "Host: evil.example"),
        http("GET", "http://evil.example/", here),
    ]
    strangers = [  # other sites' pages
        *((), ("Origin: null",), ("Origin: https://evil.example",), (f"Origin: http://evil.example:{port}",)),
        *((f"Origin: http://127.0.0.1:{port + 1}",), (f"Origin: https://127.0.0.1:{port}",), ("Origin: file://",)),
        *(("Origin: http://127.0.0.1",), (f"Origin: http://localhost:{port}",), (f"Origin: http://127.0.0.1:{port}/",)),
        *((f"Origin: http://127.0.0.1:{port}@evil.example",), (f"Origin: http://127.0.0.1:{port}.evil.example",)),
        *((own[1], "Origin: https://evil.example"), (f"Origin: 127.0.0.1:{port}",), ("Origin:",), ("Origin: *",)),
        *((own[1], f"Sec-Fetch-Site: {site}") for site in ("cross-site", "same-site", "none", "x")),
        (f"Referer: http://127.0.0.1:{port}/",),
    ]
    for (path, body), headers in itertools.product(posts.items(), strangers):
        requests.append(http("POST", path, here, *headers, TYPED, body=body))
    for path, site in itertools.product(reads, ("cross-site", "same-site", "x")):
        requests.append(http("GET", path, here, f"Sec-Fetch-Site: {site}"))
    for path, method in itertools.product(["/", *reads, *posts], ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO")):
        requests.append(http(method, path, *own, TYPED, body=good))
    requests += [http("POST", path, *own, TYPED, body=good) for path in ("/", *reads)]
    requests += [http("GET", path, *own, TYPED, body=body) for path, body in posts.items()]
    requests += [http("CONNECT", "evil.example:443", *own)]

    kinds = [  # what a form, or a script without leave, may send across sites
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""),
        *("text/plain; application/json", "application/json-patch+json", "application/jsonp", "image/png"),
    ]
    for (path, body), kind in itertools.product(posts.items(), kinds):
        requests.append(http("POST", path, *own, f"Content-Type: {kind}", body=body))
    requests += [http("POST", path, *own, body=body) for path, body in posts.items()]
    Image.new("RGB", (8, 8)).save(out := BytesIO(), "PNG")
    png = out.getvalue()
    requests += [
        http("POST", "/api/search", *own, f"Content-Type: {kind}", body=png) for kind in ("text/html", "", TYPED)
    ]

    bodies = [
        *(b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"\0", b"{}", b"[" * 100_000),
        *(b'{"seen": NaN}', b"9" * 5000, b'{"a":' * 50_000, b"{'seen': 1}", good + b"x", good[:-1], b"--x\r\n\r\n"),
        *(json.dumps({"seen": seen, "entry": {}}).encode() for seen in (None, 5, [], {}, True)),
        json.dumps(json.loads(good) | {"more": 1}).encode(),
        json.dumps({"seen": "0" * 16, "entry": {"do": "rename", "group": 0, "name": "x"}}).encode(),  # not the latest
    ]
    for path, body in itertools.product(posts, bodies):
        requests.append(http("POST", path, *own, TYPED, body=body))
    for entry in ENTRIES:
        requests.append(
            http("POST", "/api/decide", *own, TYPED, body=json.dumps({"seen": version, "entry": entry}).encode())
        )
    for group, parts in [(0, p) for p in (0, 1, 9, 2.5, "2", None, True)] + [
        (g, 2) for g in (-1, COUNT, "0", None, [])
    ]:
        body = json.dumps({"seen": version, "group": group, "parts": parts}).encode()
        requests.append(http("POST", "/api/preview", *own, TYPED, body=body))
    requests += [http("POST", "/api/undo", *own, TYPED, body=posts["/api/undo"])]  # there is nothing to undo
    for wrong in (
        *({"into": place} for place in PLACES),
        *({"copy": copy} for copy in (None, 0, 1, "true", "", [], {})),
        *({"seen": seen} for seen in ("", "0" * 16, version[:-1], version.upper(), None, 5)),
        *({"more": 1}, {"group": 0}),
    ):
        requests.append(http("POST", "/api/sort", *own, TYPED, body=json.dumps(sort | wrong).encode()))
    for missing in sort:
        body = json.dumps({key: value for key, value in sort.items() if key != missing}).encode()
        requests.append(http("POST", "/api/sort", *own, TYPED, body=body))

    picture = "Content-Type: image/png"
    header = b"IHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"  # 3.6 thousand million pixels
    header = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header
    crc = zlib.crc32(header[12:]).to_bytes(4)
    uploads = [
        b"",
        b"no image",
        header,
        header + crc,
        header + crc + b"\0\0\0\0IEND\xaeB`\x82",
        b"GIF89a",
        b"BM" + b"\xff" * 60,
    ]
    uploads += [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS",
        b"\xff\xd8\xff\xe0" * 9,
        b"II*\0" + b"\xff" * 40,
    ]
    requests += [http("POST", "/api/search", *own, picture, body=body) for body in uploads]
    huge = f"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{2**22 + 1:x}\r\n".encode() + b" " * (2**22 + 1)
    for path, kind in [*((path, TYPED) for path in posts), ("/api/search", picture)]:
        for length in (10**9, 10**18, 10**30):
            requests.append(http("POST", path, *own, kind, body=b"{", length=length))
        if kind is TYPED:
            requests.append("\r\n".join([f"POST {path} HTTP/1.1", *own, kind, ""]).encode() + huge)

    start = f"GET / HTTP/1.1\r\n{here}\r\n".encode()
    requests += [  # not even HTTP
        *(b"x\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\r\n" * 2),
        *(
            b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\n\r\n",
            b"GET / / HTTP/1.1\r\n\r\n",
        ),
        *(
            start + b"no colon\r\n\r\n",
            start + b"A: \0\r\n\r\n",
            start + b" folded\r\nConnection: close\r\n\r\n",
            start + b": x\r\n\r\n",
        ),
        *(start + b"A B: x\r\n\r\n", start + b"A: " + b"x" * 100_000, b"GET /" + b"x" * 100_000),
        *(start + b"Content-Length: -1\r\n\r\n", start + b"Content-Length: x\r\n\r\n"),
        start + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        start + b"Transfer-Encoding: gzip\r\n\r\n",
        start + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\r\n".join(["POST /api/decide HTTP/1.1", *own, TYPED, "Transfer-Encoding: chunked", "", "zz\r\n"]).encode(),
    ]
    return requests


def test_every_bad_request_is_refused_and_changes_nothing(served, record_property):
    port, folder = served
    here = f"Host: 127.0.0.1:{port}"
    version = json.loads(answer(port, http("GET", "/api/version", here))[1].partition(b"\r\n\r\n")[2])["version"]
    before, requests = there(folder), bad_requests(port, version)
    record_property("bad_requests", len(requests))
    failed = []
    for request in requests:
        status, said = answer(port, request)
        if not 400 <= status < 500 or SECRET.encode() in said or b"root:" in said:
            failed.append((status, request[:300], said[:300]))
    with socket.create_connection(("127.0.0.1", port)) as line:  # hangs up in the middle
        line.sendall(http("POST", "/api/decide", here, f"Origin: http://127.0.0.1:{port}", TYPED, body=b"{", length=99))
    assert not failed, f"{len(failed)} of {len(requests)}: {failed[:20]}"
    assert len(requests) > 1100
    assert there(folder) == before
    assert not (folder / workdir.DECISIONS).exists()
    assert answer(port, http("GET", "/api/state", here))[0] == 200


@pytest.mark.parametrize(
    "query", ["?", "?x=1", "?seen=0", "?path=../secret.txt", "?%00", "?\"';#../..", "?" + "x" * 999]
)
def test_the_table_is_the_same_whatever_is_asked_with_it(served, query):
    port, folder = served
    there(folder)
    status, said = answer(port, http("GET", f"/api/clusters.csv{query}", f"Host: 127.0.0.1:{port}"))
    assert status == 200
    assert said.partition(b"\r\n\r\n")[2] == (folder / workdir.CLUSTERS).read_bytes()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_its_own_page_is_answered(served, host):
    port, _ = served
    status, said = answer(port, http("GET", "/", f"Host: {host}:{port}", "Sec-Fetch-Site: none"))
    assert status == 200
    assert b"<title>jaxclust</title>" in said


def test_a_link_may_lead_to_the_page(served):
    port, _ = served
    headers = (f"Host: 127.0.0.1:{port}", "Sec-Fetch-Site: cross-site")
    assert answer(port, http("GET", "/", *headers))[0] == 200


@pytest.mark.parametrize(
    "target", ["/", "/browse.js", "/api/state", "/api/sheet?rows=0", "/api/original/7", "/nothing"]
)
def test_every_answer_says_what_a_browser_must_not_do(served, target):
    port, _ = served
    head = answer(port, http("GET", target, f"Host: 127.0.0.1:{port}"))[1].partition(b"\r\n\r\n")[0].decode().lower()
    for header in (
        "content-security-policy: default-src 'none'; script-src 'self';",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "cache-control: ",
    ):
        assert header in head
    assert "frame-ancestors 'none'" in head
    assert "unsafe" not in head
    assert "server: " not in head
