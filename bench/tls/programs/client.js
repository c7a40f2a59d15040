'use strict';
// A client on Node's tls module that prints each event. `node client.js PORT CA [half-close]`

const tls = require('node:tls');
const fs = require('node:fs');

const [port, ca, mode] = process.argv.slice(2);
const halfClose = mode === 'half-close';
const options = { host: '127.0.0.1', port: Number(port), servername: 'localhost', ca: fs.readFileSync(ca), allowHalfOpen: halfClose };
const events = [];
// The last line counts.
const note = (event) => {
  events.push(event);
  console.log(`\nreport: ${events.join(', ').replace(/\s+/g, ' ')}`);
};
const socket = tls.connect(options);
socket.on('secureConnect', () => {
  const request = 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
  if (halfClose) socket.end(request);
  else socket.write(request);
});
socket.on('data', (bytes) => process.stdout.write(bytes));
socket.on('end', () => {
  note('end');
  if (halfClose) socket.end();
});
socket.on('error', (error) => note(`error (${error.code}: ${error.message})`));
socket.on('close', (hadError) => note(`close (hadError: ${hadError})`));
