'use strict';
// The server on Node's net module, as its documentation shows it: one callback a connection, 'data', 'end', 'drain'.
//
// Fair: allowHalfOpen keeps our side open after the client's FIN, so the answer and the FIN go out in one end() (Node
// sends both without a pass through its loop between them); nothing is copied, since pieces are views of one buffer.
// noDelay is set on every connection, because Node has no way to set it on the listener.

const net = require('node:net');

const LINE = 'finale: 64 bytes that say nothing but that the answer is whole.\n';
const PIECE_BYTES = 64 << 10;
const LINES = Buffer.from(LINE.repeat(PIECE_BYTES / LINE.length));
const BACKLOG = 4096;

// Pieces always begin at the start of a line: Node itself sees to the rest of a partial write.
function send(socket, left) {
  while (left > LINES.length) {
    left -= LINES.length;
    if (!socket.write(LINES)) {
      socket.once('drain', () => send(socket, left));
      return;
    }
  }
  socket.end(LINES.subarray(0, left));
}

function finishLast(answer) {
  return (socket) => {
    socket.on('end', () => send(socket, answer));
    socket.resume();
  };
}

function finishFirst(request, answer) {
  return (socket) => {
    let missing = request;
    const begin = () => {
      missing = 0;
      send(socket, answer);
    };
    socket.on('data', (bytes) => {
      if (missing > 0 && (missing -= bytes.length) <= 0) begin();
    });
    // A request that never became whole gets no answer; otherwise end() has been or will be called by send().
    socket.on('end', () => {
      if (missing > 0) socket.end();
    });
    if (request === 0) begin();
  };
}

function echo(socket) {
  socket.on('data', (bytes) => {
    if (!socket.write(bytes)) {
      socket.pause();
      socket.once('drain', () => socket.resume());
    }
  });
  socket.on('end', () => socket.end());
}

function usage() {
  console.error('usage: answer BYTES | first REQUEST ANSWER | echo');
  process.exit(2);
}

function service([mode, ...numbers]) {
  const counts = numbers.map((text) => (/^[0-9]+$/.test(text) ? Number(text) : usage()));
  if (mode === 'answer' && counts.length === 1) return finishLast(...counts);
  if (mode === 'first' && counts.length === 2) return finishFirst(...counts);
  return mode === 'echo' && counts.length === 0 ? echo : usage();
}

const serve = service(process.argv.slice(2));
const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  // Node closes a socket that failed by itself; without a listener it would end the process.
  socket.on('error', () => {});
  serve(socket);
});
server.listen({ host: '127.0.0.1', port: 0, backlog: BACKLOG }, () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
