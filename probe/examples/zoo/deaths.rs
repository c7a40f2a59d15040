//! Servers that the death of a client harms, and correct ones that only look so.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use finale_probe::{Options, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::correct::{ANSWER, head, linger, read_head};
use crate::keeper::{Server, each};
use crate::kept;

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "dies-of-reset",
        about: "lets ECONNRESET leave the function that serves a connection, and ends",
        found_by: &[("reset-after-request", Verdict::Fail)],
        run: |listener| mortal(listener, serves, |error| error.kind() == ErrorKind::ConnectionReset),
        probed: |_| {},
    },
    Server {
        name: "restarts-after-reset",
        about: "the same, and something starts it again after 300 ms",
        found_by: &[("reset-after-request", Verdict::Fail)],
        run: restarts_after_reset,
        probed: |_| {},
    },
    Server {
        name: "dies-of-sigpipe",
        about: "writes on after an error, and ends at the second write: SIGPIPE",
        found_by: &[("reset-mid-answer", Verdict::Fail)],
        run: |listener| mortal(listener, writes_on, |error| error.kind() == ErrorKind::BrokenPipe),
        probed: with_big,
    },
    Server {
        name: "delays-after-abort",
        about: "cleans up for 3 s after an aborted download, and lets the next request wait",
        found_by: &[("reset-mid-answer", Verdict::Fail)],
        run: delays_after_abort,
        probed: |options| {
            with_big(options);
            options.timeout = Duration::from_secs(5);
        },
    },
    Server {
        name: "retries-after-fin",
        about: "takes the error of a write after the client's FIN for a full buffer, and tries for ever: 4 workers",
        found_by: &[("fin-then-reset", Verdict::Fail)],
        run: |listener| workers(&listener, 4, retries_after_fin),
        probed: |_| {},
    },
    Server {
        name: "reads-for-ever",
        about: "has 4 workers, and no deadline: each client that vanishes takes one",
        found_by: &[("vanish", Verdict::Fail)],
        run: |listener| workers(&listener, 4, serves_quietly),
        probed: |_| {},
    },
    Server {
        name: "serves-inline",
        about: "serves on the thread that accepts, without a deadline: one silent client blocks all others",
        found_by: &[("vanish", Verdict::Fail)],
        run: |listener| workers(&listener, 1, serves_quietly),
        probed: |_| {},
    },
    Server {
        name: "handshakes-inline",
        about: "waits for the first byte on the thread that accepts, as for a TLS handshake",
        found_by: &[("vanish", Verdict::Fail)],
        run: handshakes_inline,
        probed: |_| {},
    },
    Server {
        name: "holds-the-dead",
        about: "is said to have a deadline of 200 ms, and has none",
        found_by: &[("vanish", Verdict::Fail)],
        run: |listener| each(&listener, serves_quietly),
        probed: |options| options.claims.header = Some(Duration::from_millis(200)),
    },
    Server {
        name: "works-on",
        about: "continues a slow request after its client has reset the connection",
        found_by: &[("abandon-slow", Verdict::Fail)],
        run: |listener| each(&listener, |client| works(client, "works-on", false)),
        probed: |options| with_consequence(options, "works-on"),
    },
    Server {
        name: "counts-only-up",
        about: "counts the connections that it has accepted, and closes each one beyond 40",
        found_by: &[("churn", Verdict::Fail)],
        run: counts_only_up,
        probed: |_| {},
    },
    Server {
        name: "leaks-unclean",
        about: "has 32 places, and releases them only after a FIN",
        found_by: &[("churn", Verdict::Fail)],
        run: |listener| places(&listener, 32, |result| result.is_ok()),
        probed: |_| {},
    },
    Server {
        name: "stops-accepting",
        about: "takes ENOTCONN of getpeername(2) on an aborted connection for an error of its listener",
        found_by: &[("abort-storm", Verdict::Fail)],
        run: stops_accepting,
        probed: |_| {},
    },
    Server {
        name: "small-backlog",
        about: "correct: a queue of one unaccepted connection",
        found_by: &[],
        run: |listener| {
            // On Linux a second call changes the length.
            rustix::net::listen(&listener, 1).expect("it listens");
            each(&listener, serves_quietly);
        },
        probed: with_big,
    },
    Server {
        name: "has-few-places",
        about: "correct: closes what comes beyond 16 connections, and recovers; its deadline is 500 ms",
        found_by: &[],
        run: |listener| places(&listener, 16, |_| true),
        probed: with_big,
    },
    Server {
        name: "one-at-a-time",
        about: "correct: serves on the thread that accepts, with a deadline of 100 ms",
        found_by: &[],
        run: |listener| {
            workers(&listener, 1, |client| {
                let _ = client.set_read_timeout(Some(Duration::from_millis(100)));
                serves_quietly(client);
            });
        },
        probed: |_| {},
    },
    Server {
        name: "works-one-at-a-time",
        about: "correct: serves on the thread that accepts, with a request that takes 3 s: others wait for it, even if its client leaves",
        found_by: &[],
        run: |listener| workers(&listener, 1, |client| works(client, "works-one-at-a-time", true)),
        probed: |options| with_consequence(options, "works-one-at-a-time"),
    },
    Server {
        name: "has-no-deadline",
        about: "correct: a thread for each connection, and no deadline: it is not said to have one",
        found_by: &[],
        run: |listener| each(&listener, serves_quietly),
        probed: with_big,
    },
    Server {
        name: "keeps-alive",
        about: "correct: any number of answers per connection, and a deadline of 500 ms between them",
        found_by: &[],
        run: |listener| each(&listener, keeps_alive),
        probed: |_| {},
    },
    Server {
        name: "ends-work-at-reset",
        about: "correct: a reset ends the work for its client, a FIN does not",
        found_by: &[],
        run: |listener| each(&listener, |client| works(client, "ends-work-at-reset", true)),
        probed: |options| with_consequence(options, "ends-work-at-reset"),
    },
    Server {
        name: "penalizes",
        about: "correct: after 10 resets it closes what comes from that address for 1.5 s",
        found_by: &[],
        run: penalizes,
        probed: |_| {},
    },
];

const BIG: &[u8] = b"GET /big HTTP/1.1\r\nHost: zoo\r\nConnection: close\r\n\r\n";
const BIG_BYTES: usize = 16 << 20;
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: zoo\r\nConnection: close\r\n\r\n";
const SLOW_TAKES: Duration = Duration::from_secs(3);

fn with_big(options: &mut Options) {
    options.big_request = Some(BIG.to_vec());
}

/// The folder with a file for each request that a server works on.
fn work_folder(name: &str) -> PathBuf {
    env::temp_dir().join(format!("finale-zoo-{}-{name}", process::id()))
}

fn with_consequence(options: &mut Options, name: &str) {
    options.slow_request = Some(SLOW.to_vec());
    options.consequence = Some(format!("ls '{}' | grep -q .", work_folder(name).display()));
    options.timeout = Duration::from_secs(5);
}

/// Waits, without a look at the connection.
fn pass(time: Duration) {
    let (_kept, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// The pieces of the answer to a request.
fn answer(head: &[u8]) -> Vec<Vec<u8>> {
    if !head.starts_with(b"GET /big") {
        return vec![ANSWER.to_vec()];
    }
    let first = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG_BYTES}\r\nConnection: close\r\n\r\n");
    let piece = vec![b'x'; 64 << 10];
    let pieces = BIG_BYTES / piece.len();
    std::iter::once(first.into_bytes()).chain(std::iter::repeat_n(piece, pieces)).collect()
}

/// One answer, its FIN, and then it reads until the client's.
fn serves(mut client: TcpStream) -> io::Result<()> {
    let head = head(&mut client)?;
    if head.is_empty() {
        return Ok(());
    }
    for piece in answer(&head) {
        client.write_all(&piece)?;
    }
    client.shutdown(Shutdown::Write)?;
    if client.read_timeout()?.is_some_and(|limit| limit < AGAIN) {
        client.set_read_timeout(Some(AGAIN))?;
    }
    // A client that continues to send must not hold others up for longer.
    let until = client.read_timeout()?.map(|_| Instant::now() + Duration::from_secs(1));
    while client.read(&mut [0; 4096])? > 0 && until.is_none_or(|until| Instant::now() < until) {}
    Ok(())
}

/// After this time at the latest, Linux has sent a lost packet again: a close before it could reset
/// an answer that the client has missed.
const AGAIN: Duration = Duration::from_millis(400);

fn serves_quietly(client: TcpStream) {
    let _ = serves(client);
}

fn keeps_alive(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
    while let Some(head) = read_head(&mut client) {
        if !kept::answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

/// A thread for each connection. An error that kills ends the listener, as the end of the process
/// would.
fn mortal(listener: TcpListener, serve: fn(TcpStream) -> io::Result<()>, kills: fn(&io::Error) -> bool) {
    let listener = Arc::new(listener);
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            if serve(client).is_err_and(|error| kills(&error)) {
                let _ = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
            }
        });
    }
}

fn restarts_after_reset(listener: TcpListener) {
    let addr = listener.local_addr().expect("it is bound");
    let mut next = Some(listener);
    while let Some(listener) = next {
        mortal(listener, serves, |error| error.kind() == ErrorKind::ConnectionReset);
        pass(Duration::from_millis(300));
        next = TcpListener::bind(addr).ok();
    }
}

fn writes_on(mut client: TcpStream) -> io::Result<()> {
    let Ok(head) = head(&mut client) else { return Ok(()) };
    for piece in answer(&head) {
        match client.write_all(&piece) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    linger(client);
    Ok(())
}

fn delays_after_abort(listener: TcpListener) {
    let cleaning = Arc::new(Mutex::new(()));
    for client in listener.incoming().flatten() {
        let cleaning = Arc::clone(&cleaning);
        thread::spawn(move || {
            drop(cleaning.lock());
            if serves(client).is_err() {
                let _held = cleaning.lock();
                pass(Duration::from_secs(3));
            }
        });
    }
}

/// Serves on this many threads that accept.
fn workers(listener: &TcpListener, count: usize, serve: fn(TcpStream)) {
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| listener.incoming().flatten().for_each(serve));
        }
    });
}

fn retries_after_fin(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    let Ok(head) = head(&mut client) else { return };
    if head.is_empty() {
        return;
    }
    let has_ended = client_has(&client, PollFlags::RDHUP, Duration::from_millis(5));
    if has_ended && !client_has(&client, PollFlags::ERR | PollFlags::HUP, Duration::ZERO) {
        pass(Duration::from_millis(200));
        while client.write_all(ANSWER).is_err() {
            pass(Duration::from_millis(50));
        }
    } else {
        let _ = client.write_all(ANSWER);
    }
    linger(client);
}

/// Whether one of these is so, or becomes so within this time.
fn client_has(client: &TcpStream, flags: PollFlags, within: Duration) -> bool {
    let within = Timespec::try_from(within).expect("it is short");
    let mut looked = [PollFd::new(client, flags)];
    poll(&mut looked, Some(&within)).is_ok_and(|_| looked[0].revents().intersects(flags))
}

fn handshakes_inline(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        if client.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
            thread::spawn(move || serves_quietly(client));
        }
    }
}

/// Works for 3 s if the request is slow. A reset ends the work, if it looks.
fn works(mut client: TcpStream, name: &str, looks: bool) {
    let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
    let Ok(head) = head(&mut client) else { return };
    if head.starts_with(b"GET /slow") {
        let folder = work_folder(name);
        let _ = fs::create_dir_all(&folder);
        let file = folder.join(client.peer_addr().map_or(0, |addr| addr.port()).to_string());
        let _ = fs::write(&file, "");
        let begun = Instant::now();
        let mut is_gone = false;
        while begun.elapsed() < SLOW_TAKES && !is_gone {
            // POLLERR and POLLHUP are not asked for: the one is a reset, the other both ends.
            pass(Duration::from_millis(20));
            is_gone = looks && client_has(&client, PollFlags::ERR | PollFlags::HUP, Duration::ZERO);
        }
        let _ = fs::remove_file(&file);
        // It fails while another request is worked on.
        let _ = fs::remove_dir(&folder);
        if is_gone {
            return;
        }
    }
    if !head.is_empty() {
        let _ = client.write_all(ANSWER);
        linger(client);
    }
}

fn counts_only_up(listener: TcpListener) {
    for client in listener.incoming().flatten().take(40) {
        thread::spawn(move || serves_quietly(client));
    }
    listener.incoming().flatten().for_each(drop);
}

/// A number of places, which are released if the result says so.
fn places(listener: &TcpListener, count: usize, releases: fn(&io::Result<()>) -> bool) {
    let taken = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        if taken.load(Ordering::SeqCst) >= count {
            continue;
        }
        taken.fetch_add(1, Ordering::SeqCst);
        let taken = Arc::clone(&taken);
        thread::spawn(move || {
            let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
            // Longer: the window of a client that reads steadily can open once in a second.
            let _ = client.set_write_timeout(Some(Duration::from_secs(3)));
            if releases(&serves(client)) {
                taken.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
}

fn stops_accepting(listener: TcpListener) {
    while let Ok((client, _)) = listener.accept() {
        if client.peer_addr().is_err() {
            return;
        }
        thread::spawn(move || serves_quietly(client));
    }
}

/// The addresses that have reset connections: how often, and the end of the penalty.
type Offenders = Arc<Mutex<std::collections::HashMap<IpAddr, (u32, Option<Instant>)>>>;

fn penalizes(listener: TcpListener) {
    let offenders = Offenders::default();
    while let Ok((client, from)) = listener.accept() {
        {
            let mut all = offenders.lock().expect("no thread panics with it");
            let of = all.entry(from.ip()).or_default();
            if of.1.is_some_and(|until| until > Instant::now()) {
                continue;
            }
            of.1 = None;
        }
        let offenders = Arc::clone(&offenders);
        thread::spawn(move || {
            let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
            if serves(client).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
                let mut all = offenders.lock().expect("no thread panics with it");
                let of = all.entry(from.ip()).or_default();
                of.0 += 1;
                if of.0 >= 10 {
                    *of = (0, Some(Instant::now() + Duration::from_millis(1_500)));
                }
            }
        });
    }
}
