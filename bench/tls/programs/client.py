"""A client on Python's ssl that prints what it reports. `client.py PORT CA plain|strict|asyncio|urllib [half-close]`"""
import asyncio
import http.client
import socket
import ssl
import sys
import urllib.request

PORT, CA, KIND = int(sys.argv[1]), sys.argv[2], sys.argv[3]
HALF_CLOSE = "half-close" in sys.argv
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CONTEXT = ssl.create_default_context(cafile=CA)


def name(error):
    return f"{type(error).__name__}: {error}"


def show(data):
    sys.stdout.write(data.decode())


def plain():
    raw = socket.create_connection(("127.0.0.1", PORT))
    tls = CONTEXT.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=KIND == "plain")
    tls.sendall(REQUEST)
    if HALF_CLOSE:
        tls.shutdown(socket.SHUT_WR)
    while data := tls.recv(65536):
        show(data)
    return "recv returned b''"


async def streams():
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT, ssl=CONTEXT, server_hostname="localhost")
    writer.write(REQUEST)
    if HALF_CLOSE:
        writer.write_eof()
    while data := await reader.read(65536):
        show(data)
    report = "read returned b''"
    writer.close()
    try:
        await writer.wait_closed()
    except Exception as error:
        report += f", then wait_closed: {name(error)}"
    return report


def urllib_open():
    # The name resolves to the loopback address, and the certificate is for it.
    with urllib.request.urlopen(f"https://localhost:{PORT}/", context=CONTEXT) as response:
        try:
            show(response.read())
        except http.client.IncompleteRead as error:
            show(error.partial)
            raise
    return "read returned"


try:
    report = asyncio.run(streams()) if KIND == "asyncio" else urllib_open() if KIND == "urllib" else plain()
except Exception as error:
    report = name(error)
print(f"\nreport: {report}")
