//! One reactor on each core, all on one port.
//!
//! Invariant: the shards start together. When one ends, fails or panics, `wait` returns that at
//! once, and the program decides about the others; `join` stops them.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, OsError};
use crate::event::Event;
use crate::net::Net;
use crate::net::os::Os;
use crate::options::{ListenOptions, StopOptions};
use crate::reactor::{Reactor, Waker};
use crate::socket::Socket;
use crate::target::{BoundAddr, Target};

/// One of several reactors that share a port, each with a listener ([`Shards`]). Its program calls
/// [`next`](Shard::next) as for a [`Reactor`]. When the shards are stopped, every listener of the
/// reactor is stopped, including those that the program has opened, and `next` returns `None` after
/// the last connection has ended.
///
/// ```
/// use finale::{Error, Event, Shard};
/// fn serve(mut shard: Shard) -> Result<(), Error> {
///     while let Some((mut socket, event)) = shard.next()? {
///         match event {
///             Event::Data(bytes) => {
///             socket.write(bytes)?;
///         }
///             Event::End => socket.end(),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Shard<N: Net = Os> {
    index: usize,
    reactor: Reactor<N>,
    last_stop: Arc<Stop>,
    /// The number of stops that it has applied.
    seen: usize,
}

/// The last stop that was requested.
#[derive(Debug, Default)]
struct Stop {
    /// How many stops were requested.
    count: AtomicUsize,
    stop: Mutex<StopOptions>,
}

/// Stops shards, from any thread.
///
/// ```
/// use finale::{ListenOptions, Shards, StopOptions};
/// let serve = |mut shard: finale::Shard| {
///     while shard.next()?.is_some() {}
///     Ok(())
/// };
/// let (shards, _addr) = Shards::start(2, "127.0.0.1:0", ListenOptions::default(), serve)?;
/// let stopper = shards.stopper().clone();
/// std::thread::spawn(move || stopper.stop(StopOptions::default()));
/// shards.join()?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ShardStopper {
    last_stop: Arc<Stop>,
    remotes: Vec<Waker>,
}

impl ShardStopper {
    /// Makes every shard [stop its listeners](Reactor::stop_listener). Does not wait; a second call
    /// replaces the options of the first.
    ///
    /// Idle clients are ended after the grace. A client that continues to send requests is not
    /// idle, and stays until the limit unless the program ends it: at [`Event::Woken`], check
    /// [`Shard::is_stopping`].
    pub fn stop(&self, stop: StopOptions) {
        *self.last_stop.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
        self.last_stop.count.fetch_add(1, Ordering::Release);
        for remote in &self.remotes {
            // A shard without a reactor has stopped.
            let _ = remote.wake();
        }
    }

    /// Whether the shards were stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.last_stop.count.load(Ordering::Acquire) > 0
    }
}

/// The threads of several [`Shard`]s. Dropping it stops the shards and waits for them.
///
/// Shards share no state. They send each other messages through [inboxes](Reactor::inbox). In this
/// example each line of a client is sent to the clients of all shards, until the shards are
/// stopped. A thread that waits for signals can do that with a clone of
/// [`stopper`](Shards::stopper), while the main thread waits in [`join`](Shards::join).
///
/// ```
/// use finale::{Error, Event, Inbox, ListenOptions, Reactor, Sender, Shard, Shards, SocketMap, StopOptions};
///
/// fn serve(mut shard: Shard, (mut inbox, all): (Inbox<Vec<u8>>, Vec<Sender<Vec<u8>>>)) -> Result<(), Error> {
///     let mut clients = SocketMap::new();
///     while let Some((mut socket, event)) = shard.next()? {
///         match event {
///             Event::Connection => drop(clients.insert(socket.id(), ())),
///             // The inbox of a slow shard can be full: this program drops the line then.
///             Event::Data(line) => all.iter().for_each(|shard| drop(shard.send(line.to_vec()))),
///             Event::Woken => {
///                 while let Some(line) = inbox.take() {
///                     for (id, ()) in clients.iter() {
///                         socket.get(id).map(|mut client| client.write(&line));
///                     }
///                 }
///             }
///             Event::End => socket.end(),
///             Event::Close(_) => drop(clients.remove(socket.id())),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Error> {
/// let reactors = vec![Reactor::new()?, Reactor::new()?];
/// let (all, inboxes): (Vec<_>, Vec<_>) = reactors.iter().map(|reactor| reactor.inbox(1000)).unzip();
/// let (shards, stopper, addr) = Shard::open(reactors, "127.0.0.1:0", ListenOptions::default())?;
/// println!("two reactors on {addr}");
/// let own = inboxes.into_iter().map(|inbox| (inbox, all.clone()));
/// let shards = Shards::run(shards.into_iter().zip(own).collect(), stopper, serve)?;
/// shards.stopper().stop(StopOptions::default());
/// shards.join()
/// # }
/// ```
///
/// A shard whose program returns or panics leaves the others alone. The program decides what
/// happens then: [`join`](Shards::join) stops the others, and [`wait`](Shards::wait) returns how
/// one has ended, at once.
///
/// ```
/// use finale::{Error, ListenOptions, Shard, ShardEnd, Shards, StopOptions};
///
/// # fn main() -> Result<(), Error> {
/// let serve = |mut shard: Shard| {
///     assert_ne!(shard.index(), 1, "a mistake of the program");
///     while shard.next()?.is_some() {}
///     Ok(())
/// };
/// let (mut shards, _addr) = Shards::start(3, "127.0.0.1:0", ListenOptions::default(), serve)?;
/// let mut failed = Vec::new();
/// while let Some((index, end)) = shards.wait() {
///     if !matches!(end, ShardEnd::Returned) {
///         eprintln!("shard {index} {end}; the others continue");
///         failed.push(index);
///     }
///     shards.stopper().stop(StopOptions::default()); // Or later.
/// }
/// assert_eq!(failed, [1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Shards {
    stopper: ShardStopper,
    /// The index of each shard, and its thread until that was joined.
    threads: Vec<Option<(usize, Thread)>>,
    ends: Arc<Ends>,
}

type Thread = JoinHandle<Result<(), Error>>;

/// How the program of a shard has ended: [`Shards::wait`].
///
/// ```
/// use finale::{Error, ShardEnd};
/// let failed = ShardEnd::Failed(Error::WriteAfterEnd);
/// assert_eq!(failed.to_string(), "has failed: write after end: our FIN ends the stream");
/// assert_eq!(ShardEnd::Panicked(Box::new("why")).to_string(), "has panicked: why");
/// ```
#[derive(Debug)]
pub enum ShardEnd {
    /// It has returned `Ok`.
    Returned,
    /// It has returned an error.
    Failed(Error),
    /// It has panicked with this payload, for
    /// [`resume_unwind`](std::panic::resume_unwind) or a message.
    Panicked(Box<dyn Any + Send>),
}

impl fmt::Display for ShardEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("has ended"),
            Self::Failed(error) => write!(f, "has failed: {error}"),
            Self::Panicked(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                write!(f, "has panicked: {}", text.unwrap_or("its payload is no text"))
            }
        }
    }
}

/// The threads that have ended and were not joined, by their places, the first one first.
#[derive(Debug, Default)]
struct Ends {
    places: Mutex<VecDeque<usize>>,
    added: Condvar,
    waker: OnceLock<Waker>,
}

impl Ends {
    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            // A reactor that is gone waits for nothing.
            let _ = waker.wake();
        }
    }
}

/// Held by each thread until its program has ended, also by a panic.
struct EndGuard {
    ends: Arc<Ends>,
    place: usize,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.ends.places.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.place);
        self.ends.added.notify_one();
        self.ends.wake();
    }
}

impl Shards {
    /// Opens `count` listeners on one address, each with a reactor on its own thread, and runs
    /// `program` with each. All shards run the same program, which creates its own data. The kernel
    /// distributes the connections over them (SO_REUSEPORT, socket(7)), by their addresses and not
    /// by the load of a shard. The threads are named `finale-shard-0` and so on.
    ///
    /// All listeners are open when it returns. The returned address is theirs.
    ///
    /// # Errors
    /// As for [`Reactor::new`] and [`Reactor::listen`]; [`Error::System`] if a thread can't be
    /// started. Then nothing is left running.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn start<T, F>(count: usize, addr: T, options: ListenOptions, program: F) -> Result<(Self, BoundAddr), Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
        F: Fn(Shard) -> Result<(), Error> + Send + Sync + 'static,
    {
        let reactors = (0..count).map(|_| Reactor::new()).collect::<Result<Vec<_>, _>>()?;
        let (shards, stopper, addr) = Shard::open(reactors, addr, options)?;
        let shards = shards.into_iter().map(|shard| (shard, ())).collect();
        Ok((Self::run(shards, stopper, move |shard, ()| program(shard))?, addr))
    }

    /// Runs `program` with each of these shards and its own value, each on its own thread. The
    /// threads end by themselves, when the program returns.
    ///
    /// # Errors
    /// [`Error::System`] if a thread can't be started. Then nothing is left running.
    pub fn run<N, T, F>(shards: Vec<(Shard<N>, T)>, stopper: ShardStopper, program: F) -> Result<Self, Error>
    where
        N: Net + Send + 'static,
        T: Send + 'static,
        F: Fn(Shard<N>, T) -> Result<(), Error> + Send + Sync + 'static,
    {
        let mut started = Self { stopper, threads: Vec::new(), ends: Arc::default() };
        let program = Arc::new(program);
        for shard in shards {
            started.begin(thread::Builder::new(), shard, Arc::clone(&program))?;
        }
        Ok(started)
    }

    /// Starts the thread of a shard.
    fn begin<N, T, F>(
        &mut self,
        thread: thread::Builder,
        (shard, own): (Shard<N>, T),
        program: Arc<F>,
    ) -> Result<(), Error>
    where
        N: Net + Send + 'static,
        T: Send + 'static,
        F: Fn(Shard<N>, T) -> Result<(), Error> + Send + Sync + 'static,
    {
        let (index, place, ends) = (shard.index, self.threads.len(), Arc::clone(&self.ends));
        let started = thread.name(format!("finale-shard-{index}")).spawn(move || {
            // Not before: a thread that could not be started has no end.
            let _guard = EndGuard { ends, place };
            program(shard, own)
        });
        let failed = |error| Error::System { call: "pthread_create", source: OsError::from(&error) };
        self.threads.push(Some((index, started.map_err(failed)?)));
        Ok(())
    }

    /// Stops these shards.
    #[must_use]
    pub const fn stopper(&self) -> &ShardStopper {
        &self.stopper
    }

    /// Waits until the program of a further shard has ended, and returns the shard's index with the
    /// result. Returns at once if one has ended already, and `None` if all results were returned.
    /// The other shards continue: [`stopper`](Shards::stopper) stops them.
    pub fn wait(&mut self) -> Option<(usize, ShardEnd)> {
        if self.threads.iter().all(Option::is_none) {
            return None;
        }
        let is_empty = |places: &mut VecDeque<usize>| places.is_empty();
        let places = self.ends.places.lock().unwrap_or_else(PoisonError::into_inner);
        let places = self.ends.added.wait_while(places, is_empty);
        let place = places.unwrap_or_else(PoisonError::into_inner).pop_front();
        self.joined(place?)
    }

    /// The same without waiting, for a thread that does something else. `None` also while all
    /// shards run.
    pub fn try_wait(&mut self) -> Option<(usize, ShardEnd)> {
        let place = self.ends.places.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.joined(place?)
    }

    /// Wakes a reactor of another thread at each end of a shard, and at once if one has ended
    /// already: call [`try_wait`](Self::try_wait) at its [`Event::Woken`]. A second call changes
    /// nothing.
    pub fn wake_at_end(&self, waker: Waker) {
        let _ = self.ends.waker.set(waker);
        self.ends.wake();
    }

    /// Joins a thread that has ended, or is about to.
    fn joined(&mut self, place: usize) -> Option<(usize, ShardEnd)> {
        let (index, thread) = self.threads.get_mut(place)?.take()?;
        let end = match thread.join() {
            Ok(Ok(())) => ShardEnd::Returned,
            Ok(Err(error)) => ShardEnd::Failed(error),
            Err(payload) => ShardEnd::Panicked(payload),
        };
        Some((index, end))
    }

    /// Waits until every shard's program has ended. When one ends, for any reason, the others are
    /// stopped, which takes up to the [limit of a stop](StopOptions::limit); an error is logged
    /// before that. The main thread can wait here, and other threads for signals and the like.
    ///
    /// # Errors
    /// The first error of a program.
    ///
    /// # Panics
    /// If a program has panicked: resumes its panic, after all have ended.
    pub fn join(mut self) -> Result<(), Error> {
        let (mut outcome, mut panic) = (Ok(()), None);
        while let Some((index, end)) = self.wait() {
            if !matches!(end, ShardEnd::Returned) {
                log::error!("shard {index} {end}");
            }
            self.stop_unless_requested();
            match end {
                ShardEnd::Returned => {}
                ShardEnd::Failed(error) => outcome = outcome.and(Err(error)),
                ShardEnd::Panicked(payload) => panic = panic.or(Some(payload)),
            }
        }
        match panic {
            Some(payload) => resume_unwind(payload),
            None => outcome,
        }
    }

    /// Another stop would replace the limits of one that the program has requested.
    fn stop_unless_requested(&self) {
        if !self.stopper.is_stopping() {
            self.stopper.stop(StopOptions::default());
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        if self.threads.iter().all(Option::is_none) {
            return;
        }
        self.stop_unless_requested();
        // Only `wait` and `join` return the error of a program.
        while self.wait().is_some() {}
    }
}

impl<N: Net> Shard<N> {
    /// Opens a listener for each of these reactors, all on one address, and starts no thread: for a
    /// program that has its own threads, and for the [simulated network](crate#testing), where each
    /// reactor is a host of the same address.
    ///
    /// The port must be free, unless the options have [`reuse_port`](ListenOptions::reuse_port):
    /// then other programs with that option can share it.
    ///
    /// # Errors
    /// As for [`Reactor::listen`]. Of several reactors only the first can open a Unix domain socket:
    /// see [`group`](Self::group).
    ///
    /// # Panics
    /// If there is no reactor.
    pub fn open<T>(
        reactors: Vec<Reactor<N>>,
        addr: T,
        options: ListenOptions,
    ) -> Result<(Vec<Self>, ShardStopper, BoundAddr), Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        Self::open_at(reactors, addr.try_into()?, options)
    }

    fn open_at(
        reactors: Vec<Reactor<N>>,
        mut addr: Target,
        options: ListenOptions,
    ) -> Result<(Vec<Self>, ShardStopper, BoundAddr), Error> {
        let mut bound = None;
        let mut listening = Vec::new();
        let shared = options.clone().reuse_port(true);
        // Otherwise another program on the port, started by mistake, would get some of the clients.
        let claimed = if options == shared || reactors.len() == 1 { options } else { options.reuse_port_after_bind() };
        for mut reactor in reactors {
            let options = if bound.is_none() { &claimed } else { &shared };
            let listener = reactor.listen(addr.clone(), options.clone())?;
            // The first listener chooses the port if it is 0.
            addr = listener.addr.ip().map_or(addr, Target::Addr);
            bound = Some(listener.addr);
            listening.push(reactor);
        }
        let (shards, stopper) = Self::group(listening);
        Ok((shards, stopper, bound.expect("shards need a reactor")))
    }

    /// Makes shards of reactors that listen already, on any addresses. TCP listeners on one port
    /// need [`reuse_port`](ListenOptions::reuse_port) and the same port, not 0. A Unix domain
    /// socket belongs to one shard, or its listener is cloned and each shard takes a clone over
    /// ([`Reactor::adopt`]).
    #[must_use]
    pub fn group(reactors: Vec<Reactor<N>>) -> (Vec<Self>, ShardStopper) {
        let last_stop = Arc::new(Stop::default());
        let remotes = reactors.iter().map(Reactor::waker).collect();
        let shard = |(index, reactor)| Self { index, reactor, last_stop: Arc::clone(&last_stop), seen: 0 };
        (reactors.into_iter().enumerate().map(shard).collect(), ShardStopper { last_stop, remotes })
    }

    /// Its number, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The reactor, for all its other methods.
    pub const fn reactor(&mut self) -> &mut Reactor<N> {
        &mut self.reactor
    }

    /// As [`Reactor::next`], and `None` when the shards were stopped and `close` of the last socket
    /// was delivered. This includes sockets that the program has opened itself, so it should end
    /// them at [`Event::ListenerClosed`].
    ///
    /// # Errors
    /// As for [`Reactor::next`].
    #[allow(clippy::should_implement_trait, reason = "an Iterator can't lend")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        if self.is_over() { Ok(None) } else { self.reactor.next() }
    }

    /// As [`Reactor::next_before`], and `None` also when no further event is possible: see
    /// [`is_over`](Shard::is_over).
    ///
    /// # Errors
    /// As for [`Reactor::next_before`].
    pub fn next_before(&mut self, deadline: std::time::Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        if self.is_over() { Ok(None) } else { self.reactor.next_before(deadline) }
    }

    /// Whether the shards were stopped. An [`Event::Woken`] is delivered with that.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.last_stop.count.load(Ordering::Acquire) > 0
    }

    /// Applies a stop, and returns whether the shards were stopped and this one has nothing left.
    pub fn is_over(&mut self) -> bool {
        let count = self.last_stop.count.load(Ordering::Acquire);
        if count == 0 {
            return false;
        }
        let is_new = count > self.seen;
        self.seen = count;
        for listener in self.reactor.listener_ids() {
            // This includes a listener that the program has opened since.
            if is_new || !self.reactor.is_stopping(listener) {
                let stop = *self.last_stop.stop.lock().unwrap_or_else(PoisonError::into_inner);
                // It is open, since it was just listed.
                let _ = self.reactor.stop_listener(listener, stop);
            }
        }
        self.reactor.is_empty() && self.reactor.listener_ids().is_empty()
    }
}

#[cfg(test)]
mod tests;
