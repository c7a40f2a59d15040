//! `finale lab`: a page on which two machines live, served by the reactor itself.
//!
//! The server keeps nothing of a run: a page sends the whole script, and gets the whole ladder. What
//! takes time happens on other threads (`workers`), so the reactor answers all tabs meanwhile.
//!
//! Invariant: only a page that this server has sent can make it do something: other names in `Host`
//! and other pages in `Origin` are refused, and it listens on loopback only.

mod compare;
mod http;
mod load;
mod questions;
mod real;
mod routes;
mod rust_test;
mod scenarios;
mod workers;

use std::net::SocketAddr;
use std::time::Duration;

use finale::{Event, ListenOptions, OverflowPolicy, Reactor, StopOptions};

use crate::errors::Error;
use crate::interrupt::Interrupt;
use crate::output;
use http::Server;
use routes::Routes;

/// A page on which a connection lives: two machines, the ladder between them, and buttons
///
/// Open the address in a browser. Simulated runs have a virtual clock and can go back; the same
/// script can run on two real sockets; 24 questions are answered by runs. Nothing is loaded from
/// elsewhere.
#[derive(Debug, clap::Args)]
pub(crate) struct LabOptions {
    /// The loopback address and port of the page; port 0 lets the system choose
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7007", value_parser = loopback)]
    listen: SocketAddr,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
    /// Print the 24 questions with their answers, as Markdown, and serve nothing
    #[arg(long, conflicts_with_all = ["listen", "open"])]
    questions: bool,
}

/// Pages of other machines must not reach it: it starts connections and threads.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_loopback() => Ok(addr),
        Ok(_) => Err("the lab is for this machine only; write a loopback address, as 127.0.0.1:7007".to_owned()),
        Err(_) => Err("write an address and a port, as 127.0.0.1:7007".to_owned()),
    }
}

/// More tabs wait in the backlog. Each connection can hold an answer of some megabytes.
const CONNECTIONS: usize = 64;
/// How long a request may take, from the connection to its last byte, and how long its answer may
/// wait for the client.
const SILENCE: Duration = Duration::from_secs(30);
/// Real runs that wait for others take at most this long, and an answer some time.
const LONGEST: Duration = Duration::from_secs(60);
/// At the end.
const GRACE: Duration = Duration::from_secs(1);

/// Serves the page until a signal arrives, or prints the questions.
pub(crate) fn run(options: &LabOptions) -> Result<(), Error> {
    if options.questions {
        return output::print(&questions::markdown()?);
    }
    let mut reactor = Reactor::new()?;
    let waker = reactor.waker();
    let interrupt = Interrupt::watch(move || drop(waker.wake()))?;
    let limits = ListenOptions::default().idle_timeout(SILENCE).deadline(LONGEST).half_closed_timeout(LONGEST);
    let limits = limits.max_connections(CONNECTIONS).overflow_policy(OverflowPolicy::Wait);
    let refused = |source| Error::Listen { addr: options.listen.to_string(), source };
    let listener = reactor.listen(options.listen, limits).map_err(refused)?;
    let addr = listener.addr.ip().unwrap_or(options.listen);
    let mut server = Server::new(addr, Routes::new(&reactor)?);
    let url = format!("http://{addr}/");
    output::print(&format!("the lab is at {url}\n"))?;
    if options.open {
        open(&url);
    }
    let mut is_stopping = false;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => {
                while let Some((id, answer)) = server.take_answer() {
                    if let Some(mut socket) = socket.get(id) {
                        server.answer(&mut socket, &answer);
                    }
                }
            }
            event => server.handle(&mut socket, event),
        }
        if interrupt.signal().is_some() && !is_stopping {
            is_stopping = true;
            server.stop();
            let stop = StopOptions::default().grace(Duration::ZERO).limit(GRACE);
            reactor.stop_listener(listener.id, stop)?;
        }
        // The threads can still wake the reactor, so it has no last event.
        if is_stopping && reactor.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// Opens the page. Without a browser there is the address on stdout.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = std::process::Stdio::null;
    let started = std::process::Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    if let Err(error) = started {
        output::error(format_args!("can't start {program} ({error}); open {url} yourself"));
    }
}
