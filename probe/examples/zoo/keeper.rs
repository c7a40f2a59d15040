//! What a server of the zoo is, and how it is probed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use finale_probe::{Options, Report, Verdict, probe};

use crate::control::Control;
use crate::{answers, bulk, correct, deadlines, deaths, endings, kept, odd, punctual, stops, talkers, tls};

/// A server of the zoo.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// What is wrong with it, or what makes a correct one look suspicious.
    pub(crate) about: &'static str,
    /// The cases that find it, with their verdict. A correct server has none.
    pub(crate) found_by: &'static [(&'static str, Verdict)],
    /// Serves until the process ends.
    pub(crate) run: fn(TcpListener),
    /// How it is probed, where that differs.
    pub(crate) probed: fn(&mut Options),
}

/// The request of the zoo.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: zoo\r\nConnection: close\r\n\r\n";

/// All servers, the correct ones first.
pub(crate) fn all() -> Vec<Server> {
    let mut all = [
        correct::SERVERS,
        endings::SERVERS,
        answers::SERVERS,
        odd::SERVERS,
        bulk::SERVERS,
        talkers::SERVERS,
        deaths::SERVERS,
        deadlines::SERVERS,
        punctual::SERVERS,
        kept::SERVERS,
        stops::SERVERS,
        tls::SERVERS,
    ]
    .concat();
    all.sort_by_key(|server| !server.found_by.is_empty());
    all
}

/// The page of the zoo, `docs/zoo.md`.
pub(crate) fn page() -> String {
    let (correct, faulty): (Vec<_>, Vec<_>) = all().into_iter().partition(|server| server.found_by.is_empty());
    let mut page = format!(
        "# The zoo of the probe\n\n\
         Servers for the tests of `finale probe`: {} with one fault each, and {} correct ones, many of\n\
         which look suspicious. Each runs by `cargo run --release -p finale-probe --example zoo -- serve\n\
         NAME`, and `zoo show NAME` probes it. `zoo page` writes this page, and a test compares it.\n\n\
         The tests (`probe/tests/zoo.rs`) require that each case finds the faults in its row, and that no\n\
         case accuses a correct server. 32 servers are probed at a time. On 29 November 2026 they passed\n\
         50 times in a row, before the servers with TLS were added, on two cores with other work (load\n\
         averages from 2 to 42).\n\n\
         | server | what is wrong with it | found by |\n|---|---|---|\n",
        faulty.len(),
        correct.len()
    );
    for server in faulty {
        let found: Vec<_> = server.found_by.iter().map(|(case, verdict)| format!("`{case}` ({verdict})")).collect();
        page += &format!("| {} | {} | {} |\n", server.name, server.about, found.join(", "));
    }
    page += "\n## Correct servers\n\nNo case fails or warns.\n\n| server | what it does |\n|---|---|\n";
    for server in correct {
        page += &format!("| {} | {} |\n", server.name, server.about);
    }
    page
}

/// A thread for each connection.
pub(crate) fn each(listener: &TcpListener, serve: fn(TcpStream)) {
    for client in listener.incoming().flatten() {
        thread::spawn(move || serve(client));
    }
}

/// Starts a server. This thread and the server's have the same [`Control`] then.
pub(crate) fn start(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let (run, control) = (server.run, Control::new());
    control.clone().install();
    thread::spawn(move || {
        control.install();
        run(listener);
    });
    addr
}

/// How a server is probed.
pub(crate) fn options(server: &Server) -> Options {
    let mut options = Options::new(REQUEST);
    options.timeout = Duration::from_secs(2);
    options.rate = 1_000;
    (server.probed)(&mut options);
    options
}

/// Probes a server with these cases; none: with all.
pub(crate) fn probe_with(server: &Server, cases: &[&str]) -> Report {
    let addr = start(server);
    let mut options = options(server);
    options.cases = cases.iter().map(ToString::to_string).collect();
    probe(&addr.to_string(), &options, |_| {}).unwrap_or_else(|error| panic!("{}: {error}", server.name))
}

/// Probes a server this many times with all cases. One with a fault is started again for each case:
/// the first could end it.
pub(crate) fn probe_often(server: &Server, runs: u32) -> Vec<Report> {
    let ids: Vec<&str> = finale_probe::cases().map(|case| case.id).collect();
    let together = if server.found_by.is_empty() { ids.len() } else { 1 };
    (0..runs).flat_map(|_| ids.chunks(together)).map(|ids| probe_with(server, ids)).collect()
}

/// Whether a case may have this verdict on a server: a correct one is not accused, and a fault is
/// found by its cases. What else a fault causes is open.
pub(crate) fn is_expected(server: &Server, case: &str, verdict: Verdict) -> bool {
    match server.found_by.iter().find(|(id, _)| *id == case) {
        Some((_, expected)) => verdict == *expected,
        None => !server.found_by.is_empty() || verdict < Verdict::Warn,
    }
}
