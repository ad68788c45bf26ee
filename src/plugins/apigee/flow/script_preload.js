// Loaded before a bundle's program: its servers listen on the socket that the gateway gives, whatever port they name, and
// it ends with the gateway.
'use strict';

const { isMainThread, Worker } = require('worker_threads');
const socket = process.env.SALLYPORT_SOCKET;

if (isMainThread && socket) {
  // The program's own children are none of the gateway's.
  delete process.env.SALLYPORT_SOCKET;

  const { Server } = require('net');
  const listen = Server.prototype.listen;
  let servers = 0;

  Server.prototype.listen = function (...wanted) {
    const last = wanted[wanted.length - 1];
    const callback = typeof last === 'function' ? last : undefined;
    const [first] = wanted;
    const asked = first !== null && typeof first === 'object' ? first.port : first;
    const port = Number(asked) || 0;
    servers += 1;
    // The first server is the one that is asked.
    const path = servers === 1 ? socket : `${socket}.${servers}`;
    this.address = () => ({ address: '127.0.0.1', family: 'IPv4', port });
    return callback ? listen.call(this, { path }, callback) : listen.call(this, { path });
  };

  // The gateway holds the other end of the standard input. A thread of its own sees it end even while the program is busy:
  // first the program may end by itself, then it is ended.
  const watch = `
    const { Socket } = require('net');
    const { parentPort } = require('worker_threads');
    const end = () => {
      parentPort.postMessage('end');
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1000);
    };
    const input = new Socket({ fd: 0, readable: true, writable: false });
    input.on('end', end);
    input.on('error', end);
    input.resume();
  `;
  const watcher = new Worker(watch, { eval: true, execArgv: [], stdin: false });
  watcher.on('message', () => {
    // Nobody else is left to tidy up if the gateway was killed.
    require('fs').rmSync(__dirname, { recursive: true, force: true });
    process.exit(0);
  });
  watcher.on('error', () => process.exit(1));
  watcher.unref();
}
