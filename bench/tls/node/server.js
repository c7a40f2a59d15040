'use strict';
// The protocol of src/service.rs on Node's tls module, as its documentation shows it: 'data', 'drain', 'end'.
//
// Fair: pieces are views of one buffer, and noDelay is set when a connection is accepted. Node can't be kept from sending
// session tickets in TLS 1.3; OpenSSL sends two.

const tls = require('node:tls');
const fs = require('node:fs');

const PIECE = Buffer.alloc(64 << 10, 0x5a);
const folder = process.argv[2];

function serve(socket) {
  const header = Buffer.alloc(9);
  let [filled, upload, pending] = [0, 0, 0];
  const command = () => {
    const number = Number(header.readBigUInt64BE(1));
    if (header[0] === 0x70) pending += 1;
    else if (filled < 9) return;
    else if (header[0] === 0x64) pending += number;
    else if (header[0] === 0x75) upload = number;
    filled = 0;
  };
  const send = () => {
    while (pending > 0) {
      const bytes = Math.min(pending, PIECE.length);
      pending -= bytes;
      if (!socket.write(PIECE.subarray(0, bytes))) break;
    }
  };
  socket.on('drain', send);
  socket.on('data', (data) => {
    for (let at = 0; at < data.length; ) {
      if (upload > 0) {
        const taken = Math.min(upload, data.length - at);
        upload -= taken;
        if (upload === 0) pending += 1;
        at += taken;
        continue;
      }
      header[filled++] = data[at++];
      command();
    }
    send();
  });
  socket.on('error', () => {});
}

const options = {
  cert: fs.readFileSync(`${folder}/cert.pem`),
  key: fs.readFileSync(`${folder}/key.pem`),
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
  ecdhCurve: 'X25519',
  noDelay: true,
};
const server = tls.createServer(options, serve);
server.on('tlsClientError', () => {});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
