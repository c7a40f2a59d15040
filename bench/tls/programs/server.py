"""A server on Python's ssl for one connection: it reads to the end, prints what it reports, and answers after the end.
`server.py FOLDER plain|strict|asyncio`"""
import asyncio
import socket
import ssl
import sys

FOLDER, KIND = sys.argv[1], sys.argv[2]
CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CONTEXT.load_cert_chain(f"{FOLDER}/cert.pem", f"{FOLDER}/key.pem")
ANSWER = b"the first half, the second half\n"


def name(error):
    return f"{type(error).__name__}: {error}"


def listening(addr):
    print(f"listening on 127.0.0.1:{addr[1]}", flush=True)


def show(data):
    sys.stdout.write(data.decode())


def plain():
    listener = socket.create_server(("127.0.0.1", 0))
    listening(listener.getsockname())
    raw, _ = listener.accept()
    tls = CONTEXT.wrap_socket(raw, server_side=True, suppress_ragged_eofs=KIND == "plain")
    while data := tls.recv(65536):
        show(data)
    report = "recv returned b''"
    try:
        tls.sendall(ANSWER)
        tls.unwrap()
    except Exception as error:
        report += f", then for the answer: {name(error)}"
    tls.close()
    return report


async def streams():
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: finish(f"handler of the loop: {context}"))

    def finish(report):
        if not done.done():
            done.set_result(report)

    async def serve(reader, writer):
        try:
            while data := await reader.read(65536):
                show(data)
            report = "read returned b''"
        except Exception as error:
            finish(name(error))
            return
        try:
            writer.write(ANSWER)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except Exception as error:
            report += f", then for the answer: {name(error)}"
        finish(report)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=CONTEXT)
    listening(server.sockets[0].getsockname())
    return await done


try:
    report = asyncio.run(streams()) if KIND == "asyncio" else plain()
except Exception as error:
    report = name(error)
print(f"\nreport: {report}", flush=True)
