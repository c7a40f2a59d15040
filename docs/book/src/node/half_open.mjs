// The second experiment of the lesson, in short: a server that answers after "end".
import { createServer, connect } from "net";

const options = { allowHalfOpen: process.argv[2] === "allowHalfOpen" };
const server = createServer(options, async (socket) => {
  socket.on("error", (error) => console.log(`server: error: ${error.code}`));
  socket.resume();
  await new Promise((resolve) => socket.on("end", resolve));
  socket.write("answer");
  socket.end();
});

server.listen(0, "127.0.0.1", () => {
  const client = connect(server.address().port, "127.0.0.1", () => client.end("request"));
  client.on("data", (data) => console.log(`client: data: ${data}`));
  client.on("end", () => console.log("client: end"));
  client.on("close", () => server.close());
});
