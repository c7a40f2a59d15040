"""The same application for gunicorn (WSGI) and uvicorn (ASGI)."""
import asyncio
import time

BIG = b"x" * (16 * 1024 * 1024)
LIMIT = 64 * 1024


def wsgi(environ, start_response):
    status, body = "200 OK", b"hello\n"
    if int(environ.get("CONTENT_LENGTH") or 0) > LIMIT:
        status, body = "413 Content Too Large", b"too large\n"
    elif environ["PATH_INFO"] == "/slow":
        time.sleep(1.5)
        body = b"slow\n"
    elif environ["PATH_INFO"] == "/big":
        body = BIG
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    status, body = 200, b"hello\n"
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if int(length) > LIMIT:
        status, body = 413, b"too large\n"
    elif scope["path"] == "/slow":
        await asyncio.sleep(1.5)
        body = b"slow\n"
    elif scope["path"] == "/big":
        body = BIG
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
