// The events of a client, to an address and to a name.
import { createServer, connect } from "net";

const server = createServer((socket) => socket.end());
server.listen(0, "127.0.0.1", async () => {
  for (const host of ["127.0.0.1", "localhost"]) {
    const client = connect({ host, port: server.address().port, family: 4 });
    const events = [];
    for (const event of ["lookup", "connect", "ready", "end", "close"]) {
      client.on(event, () => events.push(event));
    }
    client.resume();
    await new Promise((resolve) => client.on("close", resolve));
    console.log(`${host}: ${events.join(", ")}`);
  }
  server.close();
});
