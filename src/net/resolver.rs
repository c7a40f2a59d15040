//! Host names, looked up by the system's resolver or the program's own, on other threads than the
//! loop's.
//!
//! Invariant: a lookup delays neither the loop nor the end of the program: threads are few, start
//! with the first lookups, and are never joined. A lookup that is no longer needed leaves the
//! queue; if it has begun, its result has a stale token.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use mio::Waker;

use super::{LookupAnswer, Token};
use crate::error::LookupErrorKind;

/// Lookups that run at once; others wait, each for at most its socket's connect timeout.
/// getaddrinfo(3) blocks for many seconds when a name server is silent, so one thread is too few.
const THREADS: usize = 4;

/// Finds the addresses of a host, and may block.
pub(crate) type Resolve = dyn Fn(&str, u16) -> LookupAnswer + Send + Sync;

struct Request {
    token: Token,
    host: Box<str>,
    port: u16,
    resolve: Arc<Resolve>,
}

struct Queue {
    /// Requests that no thread has taken yet. `None`: the reactor was dropped.
    requests: Mutex<Option<VecDeque<Request>>>,
    filled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Request>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request.
    fn take(&self) -> Option<Request> {
        let is_empty = |requests: &mut Option<VecDeque<_>>| requests.as_ref().is_some_and(VecDeque::is_empty);
        let filled = self.filled.wait_while(self.lock(), is_empty);
        filled.unwrap_or_else(PoisonError::into_inner).as_mut()?.pop_front()
    }
}

pub(super) struct Resolver {
    waker: Arc<Waker>,
    pub(super) resolve: Arc<Resolve>,
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

    /// Fails if there is no thread, and none can be started now.
    pub(super) fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()> {
        if self.open >= self.threads && self.threads < THREADS {
            match self.start_thread() {
                Ok(()) => self.threads += 1,
                Err(error) => {
                    log::warn!("can't start a thread for lookups: {error}");
                    if self.threads == 0 {
                        return Err(error);
                    }
                }
            }
        }
        self.open += 1;
        let request = Request { token, host: host.into(), port, resolve: Arc::clone(&self.resolve) };
        if let Some(requests) = self.queue.lock().as_mut() {
            requests.push_back(request);
        }
        self.queue.filled.notify_one();
        Ok(())
    }

    /// Removes a lookup that is no longer needed. A lookup that has begun continues.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(requests) = self.queue.lock().as_mut() {
            // Lookups that are cancelled together are in the order of their requests, or reversed.
            let is_it = |request: &Request| request.token == token;
            let is_last = requests.back().is_some_and(is_it);
            let index = if is_last { Some(requests.len() - 1) } else { requests.iter().position(is_it) };
            if let Some(index) = index {
                requests.remove(index);
                self.open -= 1;
            }
        }
    }

    #[inline]
    pub(super) fn answer(&mut self) -> Option<(Token, LookupAnswer)> {
        if self.open == 0 {
            return None;
        }
        let answer = self.answers.try_recv().ok()?;
        self.open -= 1;
        Some(answer)
    }

    fn start_thread(&self) -> io::Result<()> {
        let (queue, answer, waker) = (Arc::clone(&self.queue), self.answer.clone(), Arc::clone(&self.waker));
        let thread = thread::Builder::new().name("finale-lookup".into()).spawn(move || {
            while let Some(request) = queue.take() {
                // A resolver that panics counts as failed.
                let resolve = AssertUnwindSafe(|| (request.resolve)(&request.host, request.port));
                let found = catch_unwind(resolve).unwrap_or(Err(LookupErrorKind::Failed));
                if answer.send((request.token, found)).is_err() || waker.wake().is_err() {
                    break;
                }
            }
        });
        thread.map(drop)
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
    let addrs: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|error| cause(&error))?.collect();
    if addrs.is_empty() { Err(LookupErrorKind::NoAddress) } else { Ok(addrs) }
}

/// std has no code of getaddrinfo's error, only its text (gai_strerror(3), in English unless the
/// program sets another locale, which Rust programs don't).
fn cause(error: &io::Error) -> LookupErrorKind {
    let text = error.to_string();
    let says = |words: &str| text.contains(words);
    if says("not known") || says("does not resolve") {
        LookupErrorKind::NotFound
    } else if says("Temporary failure") || says("Try again") {
        LookupErrorKind::TryAgain
    } else if says("No address associated") || says("no usable address") {
        LookupErrorKind::NoAddress
    } else {
        LookupErrorKind::Failed
    }
}

#[cfg(test)]
mod tests;
