//! Servers that can be stopped and reloaded: correct ones, and ones with a fault in that.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use finale_probe::{Options, Stop, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::Control;
use crate::correct::{ANSWER, linger};
use crate::keeper::Server;
use crate::kept::{KEPT, Request, is_readable, parse};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "stops",
        about: "correct: finishes answers and ends idle connections with a FIN, and is not started again",
        found_by: &[],
        run: |listener| serve(listener, Fault::StaysAway),
        probed: stopped,
    },
    Server {
        name: "restarts",
        about: "correct: the same, and is started again; a reload keeps its listening socket",
        found_by: &[],
        run: |listener| serve(listener, Fault::None),
        probed: |options| {
            stopped(options);
            options.reload = Some(Control::here().reload_command());
            options.claims.restart = Some(Duration::from_secs(2));
        },
    },
    Server {
        name: "stop-resets-in-flight",
        about: "at a stop it resets the connections whose requests it works on",
        found_by: &[("stop-in-flight", Verdict::Fail)],
        run: |listener| serve(listener, Fault::ResetsInFlight),
        probed: stopped,
    },
    Server {
        name: "stop-drops-requests",
        about: "a request that arrives after the stop is read, and the connection ended without an answer",
        found_by: &[("stop-race", Verdict::Fail)],
        run: |listener| serve(listener, Fault::DropsRequests),
        probed: stopped,
    },
    Server {
        name: "stop-answers-500",
        about: "a request that arrives after the stop is answered with status 500",
        found_by: &[("stop-race", Verdict::Fail)],
        run: |listener| serve(listener, Fault::Answers500),
        probed: stopped,
    },
    Server {
        name: "stop-holds-idle",
        about: "at a stop it waits 7 s for idle connections",
        found_by: &[("stop-idle", Verdict::Warn)],
        run: |listener| serve(listener, Fault::HoldsIdle),
        probed: |options| {
            stopped(options);
            options.timeout = Duration::from_secs(9);
        },
    },
    Server {
        name: "stop-resets-idle",
        about: "at a stop it resets idle connections",
        found_by: &[("stop-idle", Verdict::Warn)],
        run: |listener| serve(listener, Fault::ResetsIdle),
        probed: stopped,
    },
    Server {
        name: "stop-hangs-half",
        about: "at a stop it waits for ever for the rest of half a request",
        found_by: &[("stop-idle", Verdict::Fail)],
        run: |listener| serve(listener, Fault::WaitsForHalf),
        probed: |options| {
            stopped(options);
            options.claims.drain = Some(Duration::from_secs(2));
        },
    },
    Server {
        name: "stop-drops-queued",
        about: "accepts each 200 ms, and at a stop closes its listening socket with the clients that wait there",
        found_by: &[("stop-queued", Verdict::Fail)],
        run: |listener| serve(listener, Fault::DropsQueued),
        probed: stopped,
    },
    Server {
        name: "restart-fails",
        about: "can't bind its port again, without SO_REUSEADDR, while its connections are in TIME-WAIT",
        found_by: &[("stop-restart", Verdict::Fail)],
        run: |listener| serve(listener, Fault::BindsWithoutReuse),
        probed: |options| {
            stopped(options);
            options.claims.restart = Some(Duration::from_secs(1));
        },
    },
    Server {
        name: "reload-drops-queued",
        about: "accepts each 200 ms, and a reload closes its listening socket and opens another one",
        found_by: &[("reload", Verdict::Fail)],
        run: |listener| serve(listener, Fault::DropsQueued),
        probed: |options| options.reload = Some(Control::here().reload_command()),
    },
];

/// A request that these servers work on for a while.
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: zoo\r\nConnection: close\r\n\r\n";

fn stopped(options: &mut Options) {
    let control = Control::here();
    options.stop = Some(Stop::call(move || control.stop()));
    options.slow_request = Some(SLOW.to_vec());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// No fault, and no start after a stop.
    StaysAway,
    ResetsInFlight,
    DropsRequests,
    Answers500,
    HoldsIdle,
    ResetsIdle,
    WaitsForHalf,
    DropsQueued,
    BindsWithoutReuse,
}

const TICK: Duration = Duration::from_millis(5);
/// The time between two looks at the backlog, for the server that drops it.
const RARELY: Duration = Duration::from_millis(200);
/// In this time after a stop a request that is on its way arrives.
const GRACE: Duration = Duration::from_millis(200);
const LONG_GRACE: Duration = Duration::from_secs(7);
const WORK: Duration = Duration::from_millis(600);

fn serve(mut listener: TcpListener, fault: Fault) {
    let control = Control::here();
    let Ok(addr) = listener.local_addr() else { return };
    loop {
        until_stopped(listener, &control, fault, addr);
        if fault == Fault::StaysAway {
            return;
        }
        control.begin_again();
        let Some(again) = listen(addr, fault != Fault::BindsWithoutReuse) else { return };
        listener = again;
    }
}

/// Serves until the stop, or until a reload if that opens another listening socket, and until the
/// connections are over.
fn until_stopped(listener: TcpListener, control: &Control, fault: Fault, addr: SocketAddr) {
    let _ = listener.set_nonblocking(true);
    let mut threads = Vec::new();
    let mut listener = Some(listener);
    while let Some(open) = listener.take() {
        if fault == Fault::DropsQueued {
            wait(&[], RARELY);
        } else {
            wait(&[PollFd::new(&open, PollFlags::IN)], TICK);
        }
        let (is_stopping, is_reloaded) = (control.is_stopping(), control.takes_reload());
        if fault == Fault::DropsQueued && (is_stopping || is_reloaded) {
            drop(open);
            wait(&[], RARELY);
            listener = if is_reloaded { listen(addr, true) } else { None };
            continue;
        }
        while let Ok((client, _)) = open.accept() {
            let connection = Connection { client, control: control.clone(), fault, born: control.reloads() };
            threads.push(thread::spawn(move || connection.serve()));
        }
        // What was in the backlog is accepted.
        listener = (!is_stopping).then_some(open);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn listen(addr: SocketAddr, reuses: bool) -> Option<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).ok()?;
    socket.set_reuse_address(reuses).ok()?;
    socket.bind(&addr.into()).ok()?;
    socket.listen(128).ok()?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

fn wait(what: &[PollFd<'_>], time: Duration) {
    let time = Timespec::try_from(time).expect("it is short");
    let _ = poll(&mut what.to_vec(), Some(&time));
}

struct Connection {
    client: TcpStream,
    control: Control,
    fault: Fault,
    /// The reloads before it.
    born: u32,
}

/// How a connection ends.
enum End {
    Finish,
    Reset,
}

impl Connection {
    fn serve(mut self) {
        let _ = self.client.set_nonblocking(false);
        let _ = self.client.set_read_timeout(Some(TICK));
        let end = loop {
            let head = match self.read_head() {
                Ok(head) => head,
                Err(end) => break end,
            };
            let is_late = self.is_ending();
            if is_late && self.fault == Fault::DropsRequests {
                break End::Finish;
            }
            if head.starts_with(b"GET /slow") && self.work() {
                break End::Reset;
            }
            let is_last = !matches!(parse(&head), Request::Get) || self.is_ending();
            let answer = match (parse(&head), is_late && self.fault == Fault::Answers500) {
                (_, true) => b"HTTP/1.1 500 Stopped\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                (Request::Body(_) | Request::Bad, _) => {
                    &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"[..]
                }
                (Request::Get | Request::LastGet, _) => {
                    if is_last {
                        ANSWER
                    } else {
                        KEPT
                    }
                }
            };
            if self.client.write_all(answer).is_err() || is_last {
                break End::Finish;
            }
        };
        let _ = self.client.set_read_timeout(None);
        match end {
            End::Finish => linger(self.client),
            End::Reset => {
                let _ = socket2::SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// The server stops, or was reloaded since.
    fn is_ending(&self) -> bool {
        self.control.is_stopping() || self.control.reloads() > self.born
    }

    /// Reads a request's head, until the client or the server ends.
    fn read_head(&mut self) -> Result<Vec<u8>, End> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        let mut ending_since = None;
        while !head.ends_with(b"\r\n\r\n") {
            match self.client.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => return Err(End::Finish),
            }
            if !self.is_ending() || is_readable(&self.client, Duration::ZERO) {
                continue;
            }
            let since: &mut Instant = ending_since.get_or_insert_with(Instant::now);
            let grace = match self.fault {
                Fault::WaitsForHalf if !head.is_empty() => continue,
                Fault::HoldsIdle if head.is_empty() => LONG_GRACE,
                _ => GRACE,
            };
            if since.elapsed() > grace {
                return Err(if self.fault == Fault::ResetsIdle { End::Reset } else { End::Finish });
            }
        }
        Ok(head)
    }

    /// Works. Returns whether the work was broken off.
    fn work(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            if self.fault == Fault::ResetsInFlight && self.control.is_stopping() {
                return true;
            }
            wait(&[], TICK);
        }
        false
    }
}
