//! Host names, by the system's resolver, off the loop's thread.
//!
//! Invariant: a look-up never holds up the loop, and never the end of the program: threads are few, start with the first
//! look-ups, and are never joined. An answer that nobody waits for any more is dropped with its stale token.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

use super::{LookupAnswer, Token};
use crate::error::LookupCause;

/// Look-ups that run at once. getaddrinfo(3) blocks for many seconds when a name server is silent, so one thread is too
/// few; a program that needs many more has a resolver of its own. What exceeds this waits in order.
const THREADS: usize = 4;

struct Request {
    token: Token,
    host: Box<str>,
    port: u16,
}

pub(super) struct Resolver {
    waker: Arc<Waker>,
    requests: Sender<Request>,
    /// Shared by the threads: whoever is free takes the next request.
    queue: Arc<Mutex<Receiver<Request>>>,
    answers: Receiver<(Token, LookupAnswer)>,
    answer: Sender<(Token, LookupAnswer)>,
    threads: usize,
    /// Requests without an answer so far: a thread more is started only if all are busy.
    open: usize,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (requests, queue) = channel();
        let (answer, answers) = channel();
        Self { waker, requests, queue: Arc::new(Mutex::new(queue)), answers, answer, threads: 0, open: 0 }
    }

    pub(super) fn lookup(&mut self, token: Token, host: &str, port: u16) {
        self.open += 1;
        if self.open > self.threads && self.threads < THREADS {
            self.start_thread();
        }
        let request = Request { token, host: host.into(), port };
        if self.threads == 0 || self.requests.send(request).is_err() {
            // No thread could be started: the look-up fails, the loop goes on.
            let _ = self.answer.send((token, Err(LookupCause::Failed)));
            let _ = self.waker.wake();
        }
    }

    pub(super) fn answer(&mut self) -> Option<(Token, LookupAnswer)> {
        let answer = self.answers.try_recv().ok()?;
        self.open -= 1;
        Some(answer)
    }

    fn start_thread(&mut self) {
        let (queue, answer, waker) = (Arc::clone(&self.queue), self.answer.clone(), Arc::clone(&self.waker));
        let started = thread::Builder::new().name("finale-lookup".into()).spawn(move || {
            // Ends when the reactor, and with it the sender of requests, is gone.
            while let Some(request) = take(&queue) {
                let found = resolve(&request);
                if answer.send((request.token, found)).is_err() || waker.wake().is_err() {
                    break;
                }
            }
        });
        match started {
            Ok(_) => self.threads += 1,
            Err(error) => log::warn!("can't start a thread for look-ups: {error}"),
        }
    }
}

fn take(queue: &Mutex<Receiver<Request>>) -> Option<Request> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn resolve(request: &Request) -> LookupAnswer {
    match (&*request.host, request.port).to_socket_addrs() {
        Ok(addrs) => match addrs.collect::<Vec<_>>() {
            none if none.is_empty() => Err(LookupCause::NoAddress),
            some => Ok(some),
        },
        Err(error) => Err(cause(&error)),
    }
}

/// std hides getaddrinfo's code and leaves its words (gai_strerror(3), in English unless the program asks for another
/// locale, which Rust programs don't).
fn cause(error: &io::Error) -> LookupCause {
    let text = error.to_string();
    let says = |words: &str| text.contains(words);
    if says("not known") || says("does not resolve") || says("nodename nor servname") {
        LookupCause::NotFound
    } else if says("Temporary failure") || says("Try again") {
        LookupCause::TryAgain
    } else if says("No address associated") {
        LookupCause::NoAddress
    } else {
        LookupCause::Failed
    }
}
