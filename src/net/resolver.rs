//! Host names, looked up by the system's resolver or the program's own, off the loop's thread.
//!
//! Invariant: a lookup delays neither the loop nor the end of the program: threads are few, start
//! with the first lookups, and are never joined. A lookup that is no longer needed leaves the
//! queue; if it has begun, its result has a stale token and is dropped.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use mio::Waker;

use super::{LookupAnswer, Token};
use crate::error::LookupCause;

/// Lookups that run at once; further ones wait, each for at most its socket's connect timeout.
/// getaddrinfo(3) blocks for many seconds when a name server is silent, so one thread is too few. A
/// program that needs many more has a resolver of its own.
const THREADS: usize = 4;

/// Finds the addresses of a host, and may block.
pub(crate) type Resolve = dyn Fn(&str, u16) -> LookupAnswer + Send + Sync;

struct Request {
    token: Token,
    host: Box<str>,
    port: u16,
    resolve: Arc<Resolve>,
}

/// Requests without a thread. `None`: the reactor is gone.
struct Queue {
    requests: Mutex<Option<VecDeque<Request>>>,
    filled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Request>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request.
    fn take(&self) -> Option<Request> {
        let mut requests = self.lock();
        loop {
            if let Some(request) = requests.as_mut()?.pop_front() {
                return Some(request);
            }
            requests = self.filled.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(super) struct Resolver {
    waker: Arc<Waker>,
    resolve: Arc<Resolve>,
    /// Shared by the threads: a free one takes the next request.
    queue: Arc<Queue>,
    answers: Receiver<(Token, LookupAnswer)>,
    answer: Sender<(Token, LookupAnswer)>,
    threads: usize,
    /// Requests without a result so far: a thread is started only if all are busy.
    open: usize,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let queue = Queue { requests: Mutex::new(Some(VecDeque::new())), filled: Condvar::new() };
        let (answer, answers) = channel();
        let (resolve, queue) = (Arc::new(system), Arc::new(queue));
        Self { waker, resolve, queue, answers, answer, threads: 0, open: 0 }
    }

    /// Looks names up with this function from now on.
    pub(super) fn replace(&mut self, resolve: Arc<Resolve>) {
        self.resolve = resolve;
    }

    pub(super) fn lookup(&mut self, token: Token, host: &str, port: u16) {
        self.open += 1;
        if self.open > self.threads && self.threads < THREADS {
            self.start_thread();
        }
        if self.threads == 0 {
            // No thread could be started: the lookup fails.
            let _ = self.answer.send((token, Err(LookupCause::Failed)));
            let _ = self.waker.wake();
            return;
        }
        let request = Request { token, host: host.into(), port, resolve: Arc::clone(&self.resolve) };
        if let Some(requests) = self.queue.lock().as_mut() {
            requests.push_back(request);
        }
        self.queue.filled.notify_one();
    }

    /// Removes a lookup that is no longer needed. One that has begun goes on.
    pub(super) fn forget(&mut self, token: Token) {
        let mut queue = self.queue.lock();
        let Some(requests) = queue.as_mut() else { return };
        // From both ends: lookups that are given up together come in the order of their requests,
        // or reversed.
        let (mut fore, mut back) = (0..requests.len(), (0..requests.len()).rev());
        let places = std::iter::from_fn(|| Some([fore.next()?, back.next()?])).flatten();
        if let Some(place) = places.take(requests.len() + 1).find(|place| requests[*place].token == token) {
            requests.remove(place);
            self.open -= 1;
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
            while let Some(request) = queue.take() {
                // A resolver that panics has failed.
                let resolve = AssertUnwindSafe(|| (request.resolve)(&request.host, request.port));
                let found = catch_unwind(resolve).unwrap_or(Err(LookupCause::Failed));
                if answer.send((request.token, found)).is_err() || waker.wake().is_err() {
                    break;
                }
            }
        });
        match started {
            Ok(_) => self.threads += 1,
            Err(error) => log::warn!("can't start a thread for lookups: {error}"),
        }
    }
}

impl Drop for Resolver {
    /// The threads are not joined: each ends after the lookup that it has begun.
    fn drop(&mut self) {
        *self.queue.lock() = None;
        self.queue.filled.notify_all();
    }
}

/// The system's resolver: getaddrinfo(3).
fn system(host: &str, port: u16) -> LookupAnswer {
    match (host, port).to_socket_addrs() {
        Ok(addrs) => match addrs.collect::<Vec<SocketAddr>>() {
            none if none.is_empty() => Err(LookupCause::NoAddress),
            some => Ok(some),
        },
        Err(error) => Err(cause(&error)),
    }
}

/// std has no code of getaddrinfo's error, only its text (gai_strerror(3), in English unless the
/// program sets another locale, which Rust programs don't).
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
