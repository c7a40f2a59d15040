'use strict';
// A client on Node's https module that prints each event. `node https.js PORT CA`

const https = require('node:https');
const fs = require('node:fs');

const [port, ca] = process.argv.slice(2);
const events = [];
// The last line counts.
const note = (event) => {
  events.push(event);
  console.log(`\nreport: ${events.join(', ').replace(/\s+/g, ' ')}`);
};
const options = { host: '127.0.0.1', port: Number(port), servername: 'localhost', ca: fs.readFileSync(ca), agent: false };
const request = https.get(options, (response) => {
  response.on('data', (bytes) => process.stdout.write(bytes));
  response.on('end', () => note(`end (complete: ${response.complete})`));
  response.on('aborted', () => note('aborted'));
  response.on('error', (error) => note(`error of the response (${error.code}: ${error.message})`));
  response.on('close', () => note('close'));
});
request.on('error', (error) => note(`error of the request (${error.code}: ${error.message})`));
