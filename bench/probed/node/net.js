// Node's net as its documentation begins: an echo, one line of code.
'use strict';
const server = require('net').createServer((socket) => socket.pipe(socket));
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => server.close());
