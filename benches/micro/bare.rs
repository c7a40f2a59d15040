//! A net that does almost nothing, so that only the reactor is measured. Any number of connections
//! wait to be accepted. Either all are silent except the last, and the next message on that one
//! arrives with the poll after the answer to the previous message; or each sends a request and its
//! FIN, and reads the answer.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use finale::net::{LookupAnswer, Net, Polled, Readiness, Received, SystemOptions, Token, Unread};
use finale::{KeepAlive, ListenOptions};

pub(crate) struct Bare {
    now: Instant,
    /// How many wait to be accepted, and whether the listener was reported.
    waiting: usize,
    /// The connection that is not silent, once it is accepted, and the token of its readiness.
    busy: Option<u32>,
    token: Option<Token>,
    /// Its next message is in flight; it has arrived, and was not read.
    coming: bool,
    unread: bool,
    /// What each connection has sent, in the other case.
    requests: Option<Requests>,
}

/// Requests, each with the FIN after it.
#[derive(Default)]
struct Requests {
    /// Whether they arrive after the server has found nothing to read.
    late: bool,
    /// For each slot, what is unread: 2 is a request and the FIN, 1 the FIN.
    unread: Vec<u8>,
    /// Connections that wait for theirs.
    tokens: Vec<Token>,
}

impl Bare {
    pub(crate) fn new(connections: usize) -> Self {
        let now = Instant::now();
        Self { now, waiting: connections, busy: None, token: None, coming: false, unread: false, requests: None }
    }

    /// Connections that each send a request and finish.
    pub(crate) fn half_closing(connections: usize, late: bool) -> Self {
        Self { requests: Some(Requests { late, ..Requests::default() }), ..Self::new(connections) }
    }
}

impl Requests {
    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        let unread = &mut self.unread[slot as usize];
        let bytes = match unread {
            0 => return nothing(),
            1 => 0,
            _ => MESSAGE,
        };
        *unread -= 1;
        buffer[..bytes].fill(1);
        Ok(Received { bytes, drained: true })
    }
}

/// How long a message is, in bytes.
const MESSAGE: usize = 64;

/// As on the simulated network: time passes from message to message.
const PACE: Duration = Duration::from_micros(10);

fn nothing<T>() -> io::Result<T> {
    Err(io::ErrorKind::WouldBlock.into())
}

impl Net for Bare {
    fn now(&self) -> Instant {
        self.now
    }

    fn poll(
        &mut self,
        _now: Instant,
        _timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        self.now += PACE;
        let readable = Readiness { readable: true, ..Readiness::default() };
        if self.waiting > 0 {
            ready(Token { index: 0, generation: 0 }, readable);
        }
        if let Some(requests) = &mut self.requests {
            for token in requests.tokens.drain(..) {
                requests.unread[token.index as usize] = 2;
                ready(token, Readiness { read_closed: true, writable: true, ..readable });
            }
        }
        if let Some(token) = self.token
            && std::mem::take(&mut self.coming)
        {
            self.unread = true;
            ready(token, readable);
        }
        Ok(Polled { complete_until: self.now, more: false })
    }

    fn accept(&mut self, _listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        if self.waiting == 0 {
            return nothing();
        }
        self.waiting -= 1;
        if let Some(requests) = &mut self.requests {
            requests.unread.resize(requests.unread.len().max(slot as usize + 1), 0);
            requests.unread[slot as usize] = if requests.late { 0 } else { 2 };
        } else if self.waiting == 0 {
            (self.busy, self.coming) = (Some(slot), true);
        }
        Ok(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))))
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        if self.busy == Some(slot) {
            self.token = Some(token);
        } else if let Some(requests) = &mut self.requests {
            requests.tokens.push(token);
        }
        Ok(())
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        if let Some(requests) = &mut self.requests {
            return requests.recv(slot, buffer);
        }
        if self.busy == Some(slot) && std::mem::take(&mut self.unread) {
            buffer[..MESSAGE].fill(1);
            return Ok(Received { bytes: MESSAGE, drained: true });
        }
        nothing()
    }

    fn send(&mut self, _slot: u32, bytes: &[u8], _more: bool) -> io::Result<usize> {
        self.coming = true;
        Ok(bytes.len())
    }

    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        pieces.iter().map(|piece| self.send(slot, piece, more)).sum()
    }

    fn listen(&mut self, _listener: u32, addr: SocketAddr, _options: &ListenOptions) -> io::Result<SocketAddr> {
        Ok(addr)
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| {})
    }

    fn finish(&mut self, _slot: u32) -> io::Result<()> {
        Ok(())
    }

    fn acknowledged(&mut self, _slot: u32) -> io::Result<bool> {
        Ok(true)
    }

    // Calls that a server without outgoing connections and without failures never makes.

    fn set_accepting(&mut self, _listener: u32, _accepting: bool) -> io::Result<()> {
        nothing()
    }

    fn unlisten(&mut self, _listener: u32) {}

    fn connect(
        &mut self,
        _slot: u32,
        _token: Token,
        _addr: SocketAddr,
        _options: &SystemOptions,
        _local: Option<SocketAddr>,
    ) -> io::Result<()> {
        nothing()
    }

    fn connected(&mut self, _slot: u32) -> io::Result<bool> {
        nothing()
    }

    fn promote(&mut self, _from: u32, _to: u32, _token: Token) -> io::Result<()> {
        nothing()
    }

    fn peek(&mut self, _slot: u32) -> io::Result<Unread> {
        nothing()
    }

    fn is_readable(&self, _slot: u32) -> bool {
        self.unread
    }

    fn take_error(&mut self, _slot: u32) -> Option<io::Error> {
        None
    }

    fn close(&mut self, _slot: u32) {}

    fn reset(&mut self, _slot: u32) {}

    fn set_nodelay(&mut self, _slot: u32, _on: bool) -> io::Result<()> {
        nothing()
    }

    fn set_keep_alive(&mut self, _slot: u32, _times: Option<KeepAlive>) -> io::Result<()> {
        nothing()
    }

    fn local_addr(&self, _slot: u32) -> io::Result<SocketAddr> {
        nothing()
    }

    fn lookup(&mut self, _token: Token, _host: &str, _port: u16) -> io::Result<()> {
        Ok(())
    }

    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        None
    }
}
