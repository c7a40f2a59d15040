//! One reactor on each core, all on one port.
//!
//! Invariant: the shards come and go together. One that ends, fails or panics has the others stop,
//! and whoever waits for them learns of it.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, OsError};
use crate::event::Event;
use crate::net::Net;
use crate::net::os::Os;
use crate::options::{ListenOptions, StopOptions};
use crate::reactor::{Reactor, Waker};
use crate::socket::Socket;
use crate::target::{BoundAddr, Target};

/// One of several reactors that share a port, each with a listener ([`Shards`]). Its program pulls
/// events out of it as out of a [`Reactor`]. When the shards are told to stop, every listener of
/// its reactor is stopped, also those that the program has opened, and [`next`](Shard::next) ends
/// when the last connection has.
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
    told: Arc<Told>,
    /// How many orders it has obeyed.
    seen: usize,
}

/// What the shards were told last.
#[derive(Debug, Default)]
struct Told {
    /// How many orders there were.
    count: AtomicUsize,
    stop: Mutex<StopOptions>,
}

/// Tells shards to stop, from any thread.
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
    told: Arc<Told>,
    remotes: Vec<Waker>,
}

impl ShardStopper {
    /// Has every shard [stop its listeners](Reactor::stop_listener). Does not wait; a second call
    /// replaces what the first has said.
    ///
    /// Idle clients are ended after the grace; one that goes on asking is not idle, and lives to
    /// the limit unless the program ends it: at [`Event::Woken`], [`Shard::is_stopping`] says that
    /// it is time to.
    pub fn stop(&self, stop: StopOptions) {
        *self.told.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
        self.told.count.fetch_add(1, Ordering::Release);
        for remote in &self.remotes {
            // One that is gone has stopped.
            let _ = remote.wake();
        }
    }
}

/// The threads of several [`Shard`]s. Dropping it stops the shards and waits for them.
///
/// Shards share nothing. What one of them has to tell another goes through
/// [inboxes](Reactor::inbox); here each line that a client says is told to the clients of all
/// shards, until somebody gives the order to stop (a thread that waits for signals, say, with a
/// clone of [`stopper`](Shards::stopper), while the main one waits in [`join`](Shards::join)).
///
/// ```
/// use finale::{Error, Event, Inbox, ListenOptions, Reactor, Sender, Shard, Shards, SocketMap, StopOptions};
///
/// fn serve(mut shard: Shard, (mut told, all): (Inbox<Vec<u8>>, Vec<Sender<Vec<u8>>>)) -> Result<(), Error> {
///     let mut clients = SocketMap::new();
///     while let Some((mut socket, event)) = shard.next()? {
///         match event {
///             Event::Connection => drop(clients.insert(socket.id(), ())),
///             // An inbox that is full belongs to a shard that is behind: this program lets such a line go.
///             Event::Data(line) => all.iter().for_each(|shard| drop(shard.send(line.to_vec()))),
///             Event::Woken => {
///                 while let Some(line) = told.take() {
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
/// let (shards, orders, addr) = Shard::open(reactors, "127.0.0.1:0", ListenOptions::default())?;
/// println!("two reactors on {addr}");
/// let own = inboxes.into_iter().map(|inbox| (inbox, all.clone()));
/// let shards = Shards::run(shards.into_iter().zip(own).collect(), orders, serve)?;
/// shards.stopper().stop(StopOptions::default());
/// shards.join()
/// # }
/// ```
#[derive(Debug)]
pub struct Shards {
    orders: ShardStopper,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

impl Shards {
    /// Opens `count` listeners on one address, each with a reactor on a thread of its own, and runs
    /// `program` with each: the same program for all, which makes for itself whatever it needs. The
    /// kernel spreads the connections over them (SO_REUSEPORT, socket(7)), by their addresses and
    /// not by how busy a shard is. The threads are named `finale-shard-0` and so on.
    ///
    /// All listeners are open when it returns; their address comes with it.
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
        let (shards, orders, addr) = Shard::open(reactors, addr, options)?;
        let shards = shards.into_iter().map(|shard| (shard, ())).collect();
        Ok((Self::run(shards, orders, move |shard, ()| program(shard))?, addr))
    }

    /// Runs `program` with each of these shards and what it gets for its own, on a thread of its
    /// own.
    ///
    /// # Errors
    /// [`Error::System`] if a thread can't be started. Then nothing is left running.
    pub fn run<T, F>(shards: Vec<(Shard, T)>, orders: ShardStopper, program: F) -> Result<Self, Error>
    where
        T: Send + 'static,
        F: Fn(Shard, T) -> Result<(), Error> + Send + Sync + 'static,
    {
        let mut started = Self { orders, threads: Vec::new() };
        let program = Arc::new(program);
        for (shard, own) in shards {
            let (program, fall) = (Arc::clone(&program), Fall(started.orders.clone()));
            let named = thread::Builder::new().name(format!("finale-shard-{}", shard.index));
            let thread = named.spawn(move || {
                let _fall = fall;
                program(shard, own)
            });
            let failed = |error| Error::System { call: "pthread_create", source: OsError::from(&error) };
            started.threads.push(thread.map_err(failed)?);
        }
        Ok(started)
    }

    /// What stops them.
    #[must_use]
    pub const fn stopper(&self) -> &ShardStopper {
        &self.orders
    }

    /// Waits until every shard's program has ended. When one ends, for whatever reason, the others
    /// are stopped. So this is where a main thread waits; what else there is to wait for waits on
    /// other threads.
    ///
    /// # Errors
    /// The first error of a program.
    ///
    /// # Panics
    /// If a program has panicked, with its panic, once all have ended.
    pub fn join(mut self) -> Result<(), Error> {
        let (mut outcome, mut panic) = (Ok(()), None);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(ended) => outcome = outcome.and(ended),
                Err(payload) => panic = panic.or(Some(payload)),
            }
        }
        match panic {
            Some(payload) => resume_unwind(payload),
            None => outcome,
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.orders.stop(StopOptions::default());
        for thread in self.threads.drain(..) {
            // What it has failed of, `join` would have told.
            let _ = thread.join();
        }
    }
}

/// Held by each thread: when its program ends, all do.
struct Fall(ShardStopper);

impl Drop for Fall {
    fn drop(&mut self) {
        if self.0.told.count.load(Ordering::Acquire) == 0 {
            self.0.stop(StopOptions::default());
        }
    }
}

impl<N: Net> Shard<N> {
    /// Opens a listener for each of these reactors, all on one address, and no thread: for a
    /// program that has threads of its own, and for the [simulated network](crate::sim), where each
    /// reactor is a host of the same address.
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
        Self::open_at(reactors, addr.try_into()?, &options.reuse_port(true))
    }

    fn open_at(
        reactors: Vec<Reactor<N>>,
        mut addr: Target,
        options: &ListenOptions,
    ) -> Result<(Vec<Self>, ShardStopper, BoundAddr), Error> {
        let mut bound = None;
        let mut listening = Vec::new();
        for mut reactor in reactors {
            let listener = reactor.listen(addr.clone(), options.clone())?;
            // Port 0 is chosen once.
            addr = listener.addr.ip().map_or(addr, Target::Addr);
            bound = Some(listener.addr);
            listening.push(reactor);
        }
        let (shards, orders) = Self::group(listening);
        Ok((shards, orders, bound.expect("shards need a reactor")))
    }

    /// Makes shards of reactors that listen already, on whatever they like: TCP listeners on one
    /// port need [`reuse_port`](ListenOptions::reuse_port) and one and the same number, not 0; a
    /// Unix domain socket is one shard's, or its listener is cloned and taken over by each
    /// ([`Reactor::adopt`]).
    #[must_use]
    pub fn group(reactors: Vec<Reactor<N>>) -> (Vec<Self>, ShardStopper) {
        let told = Arc::new(Told::default());
        let remotes = reactors.iter().map(Reactor::waker).collect();
        let shard = |(index, reactor)| Self { index, reactor, told: Arc::clone(&told), seen: 0 };
        (reactors.into_iter().enumerate().map(shard).collect(), ShardStopper { told, remotes })
    }

    /// Its number, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The reactor, for everything else that one can do.
    pub const fn reactor(&mut self) -> &mut Reactor<N> {
        &mut self.reactor
    }

    /// As [`Reactor::next`], and `None` when the shards were told to stop and the last socket has
    /// told `close`: also the last of those that the program has opened itself, so it should end
    /// them at [`Event::ListenerClosed`].
    ///
    /// # Errors
    /// As for [`Reactor::next`].
    #[allow(clippy::should_implement_trait, reason = "an Iterator can't lend")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        if self.is_over() { Ok(None) } else { self.reactor.next() }
    }

    /// As [`Reactor::next_before`], and `None` also when there is nothing more to come: see
    /// [`is_over`](Shard::is_over).
    ///
    /// # Errors
    /// As for [`Reactor::next_before`].
    pub fn next_before(&mut self, deadline: std::time::Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        if self.is_over() { Ok(None) } else { self.reactor.next_before(deadline) }
    }

    /// Whether the shards were told to stop. An [`Event::Woken`] comes with the order.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.told.count.load(Ordering::Acquire) > 0
    }

    /// Obeys what it was told, and says whether it was told to stop and has.
    pub fn is_over(&mut self) -> bool {
        let count = self.told.count.load(Ordering::Acquire);
        if count == 0 {
            return false;
        }
        let is_new = count > self.seen;
        self.seen = count;
        for listener in self.reactor.listener_ids() {
            // Also one that the program has opened since.
            if is_new || !self.reactor.is_stopping(listener) {
                let stop = *self.told.stop.lock().unwrap_or_else(PoisonError::into_inner);
                // It is open, since it was just named.
                let _ = self.reactor.stop_listener(listener, stop);
            }
        }
        self.reactor.is_empty() && self.reactor.listener_ids().is_empty()
    }
}
