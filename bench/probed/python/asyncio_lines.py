"""asyncio's streams as its documentation shows them: one answer per line, then close."""
import asyncio
import sys


async def serve(reader, writer):
    line = await reader.readline()
    if line == b"slow\n":
        await asyncio.sleep(1.5)
    if line == b"big\n":
        writer.write(b"x" * (16 * 1024 * 1024))
    writer.write(b"you said " + line)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
