// Node's http with its defaults, and its close() at SIGTERM. A body above 64 KiB is refused at once.
'use strict';
const http = require('http');

const big = Buffer.alloc(16 * 1024 * 1024, 'x');
const server = http.createServer((request, response) => {
  if (Number(request.headers['content-length'] ?? 0) > 65536) {
    response.writeHead(413, { Connection: 'close' });
    response.end('too large\n');
  } else if (request.url === '/slow') {
    setTimeout(() => response.end('slow\n'), 1500);
  } else if (request.url === '/big') {
    response.end(big);
  } else {
    response.end('hello\n');
  }
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => server.close());
