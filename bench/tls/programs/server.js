'use strict';
// A server on Node's tls module for one connection: it reads to the end, prints each event, and answers after the end.
// `node server.js FOLDER`

const tls = require('node:tls');
const fs = require('node:fs');

const folder = process.argv[2];
const events = [];
// The last line counts.
const note = (event) => {
  events.push(event);
  console.log(`\nreport: ${events.join(', ').replace(/\s+/g, ' ')}`);
};
const options = { cert: fs.readFileSync(`${folder}/cert.pem`), key: fs.readFileSync(`${folder}/key.pem`), allowHalfOpen: true };
const server = tls.createServer(options, (socket) => {
  socket.on('data', (bytes) => process.stdout.write(bytes));
  socket.on('end', () => {
    note('end');
    socket.end('the first half, the second half\n');
  });
  socket.on('error', (error) => note(`error (${error.code}: ${error.message})`));
  socket.on('close', (hadError) => {
    note(`close (hadError: ${hadError})`);
    process.exit();
  });
});
server.on('tlsClientError', (error) => {
  note(`tlsClientError (${error.code}: ${error.message})`);
  process.exit();
});
server.listen(0, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
