// A server that gives up in the middle of its answer, in one of two ways.
import { createServer, connect } from "net";

const way = process.argv[2]; // destroy, or resetAndDestroy
const server = createServer((socket) => {
  socket.once("data", () => {
    socket.write("half an ans");
    socket.once("data", () => socket[way]()); // The client has read it.
  });
});

server.listen(0, "127.0.0.1", () => {
  const client = connect(server.address().port, "127.0.0.1", () => client.write("request"));
  client.on("data", (data) => {
    console.log(`client: data: ${data}`);
    client.write("next");
  });
  client.on("end", () => console.log("client: end"));
  client.on("error", (error) => console.log(`client: error: ${error.code}`));
  client.on("close", () => server.close());
});
