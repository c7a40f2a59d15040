//! Servers and loads as processes: each server pinned to its core, in its own network where that is
//! possible.
//!
//! Invariant: nothing started here outlives its owner; dropping a server ends it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::time::ClockId;
use rustix::process::{Pid, Signal, kill_process};
use wait_timeout::ChildExt as _;

use crate::parse;

/// A server has printed its address within a fraction of this, even under valgrind.
const START: Duration = Duration::from_secs(20);
/// The longest load takes seconds; a client that waits for a lost connection must not block the run
/// for ever.
const LOAD: Duration = Duration::from_secs(90);
/// The time between two looks at something that has no events: the kernel's tables, another
/// process's CPU time.
const LOOK: Duration = Duration::from_millis(5);
/// TIME_WAIT lasts a minute; after twice that another program fills the table.
const ROOM: Duration = Duration::from_secs(120);

/// Where a server runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    /// In a fresh network, of which it and its clients are the only inhabitants.
    Own,
    /// In that of another process.
    Of(u32),
    /// Where we are.
    Ours,
}

impl Network {
    /// Whether a process may have a network of its own here: that takes root, or the capability.
    pub(crate) fn available() -> Self {
        let tried = within(Self::Own, &["true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if tried.is_ok_and(|status| status.success()) { Self::Own } else { Self::Ours }
    }

    /// The words that bring a command there, each ending in an exec, so that the process keeps its
    /// number.
    fn prefix(self) -> Vec<String> {
        match self {
            Self::Own => words(&["unshare", "-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]),
            Self::Of(pid) => words(&["nsenter", "-t", &pid.to_string(), "-n"]),
            Self::Ours => Vec::new(),
        }
    }

    /// Where a client of a server runs that was started here.
    const fn beside(self, server: u32) -> Self {
        match self {
            Self::Own => Self::Of(server),
            Self::Of(pid) => Self::Of(pid),
            Self::Ours => Self::Ours,
        }
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn command(argv: &[String]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null());
    command
}

/// A command where the servers run.
pub(crate) fn within(network: Network, argv: &[&str]) -> Command {
    command(&[network.prefix(), words(argv)].concat())
}

/// On this core only, which its threads inherit; and killed by the kernel if we are.
fn pinned(core: Option<u32>) -> Vec<String> {
    let mut prefix = words(&["setpriv", "--pdeathsig", "KILL"]);
    if let Some(core) = core {
        prefix.extend(words(&["taskset", "-c", &core.to_string()]));
    }
    prefix
}

/// Nothing can wake us for what is waited for here: the kernel's counters send no event, so they
/// are read again.
pub(crate) fn look_again_later() {
    thread::park_timeout(LOOK);
}

/// A server that listens.
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server that prints more must not find its pipe broken.
    _stdout: BufReader<ChildStdout>,
    pub(crate) addr: String,
    network: Network,
}

/// How a server is started.
pub(crate) struct Start<'a> {
    pub(crate) argv: &'a [String],
    /// A counting tool around it, or nothing.
    pub(crate) tool: &'a [String],
    pub(crate) core: Option<u32>,
    pub(crate) network: Network,
    /// What it prints on stderr is kept here.
    pub(crate) log: &'a PathBuf,
}

impl Server {
    /// Starts it and waits for its address.
    pub(crate) fn start(start: &Start) -> Result<Self> {
        let argv =
            [&start.network.prefix(), &pinned(start.core), start.tool, start.argv].map(<[String]>::to_vec).concat();
        let log = fs::OpenOptions::new().create(true).append(true).open(start.log)?;
        let mut child = command(&argv)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", argv[0]))?;
        let stdout = child.stdout.take().context("its stdout is piped")?;
        match first_line(stdout) {
            Ok((line, stdout)) => {
                let network = start.network.beside(child.id());
                let addr = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
                let server = Self { child, _stdout: stdout, addr, network };
                ensure!(!server.addr.is_empty(), "it says {line:?} in place of its address");
                Ok(server)
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// The network for its clients, and for a second server.
    pub(crate) const fn network(&self) -> Network {
        self.network
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds that its threads have been on a core, those that have ended among them.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        cpu_ns(self.pid()).context("the server is gone")
    }

    /// Waits until it does nothing more, so that work after the end of the load is counted too. A
    /// server that is never quite idle, as with a garbage collector, gets a tenth of a second.
    pub(crate) fn settle(&self) -> Result<()> {
        let mut last = self.cpu_ns()?;
        for _ in 0..20 {
            look_again_later();
            let now = self.cpu_ns()?;
            if now == last {
                return Ok(());
            }
            last = now;
        }
        Ok(())
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).context("the server is gone")?;
        parse::resident_bytes(&rollup).context("no Rss in smaps_rollup")
    }

    pub(crate) fn open_descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid())).context("the server is gone")?.count())
    }

    /// Segments sent in its network, by both ends.
    pub(crate) fn segments_sent(&self) -> Result<u64> {
        let snmp = fs::read_to_string(format!("/proc/{}/net/snmp", self.pid())).context("the server is gone")?;
        parse::segments_sent(&snmp).context("no OutSegs in snmp")
    }

    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself: {status}"),
        }
    }

    /// Waits until this many more connections fit into TIME_WAIT: with the table full the kernel
    /// forgets connections early, and a clean close looks like a reset.
    pub(crate) fn wait_for_room(&self, connections: u64) -> Result<()> {
        let limit: u64 = fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets")?.trim().parse()?;
        let from = Instant::now();
        loop {
            let sockstat = fs::read_to_string(format!("/proc/{}/net/sockstat", self.pid()))?;
            let waiting = parse::time_wait(&sockstat).context("no tw in sockstat")?;
            // A load that never fits is started when the table is almost empty.
            if waiting + connections < limit || waiting < limit / 100 {
                return Ok(());
            }
            ensure!(from.elapsed() < ROOM, "{waiting} sockets stay in TIME_WAIT");
            look_again_later();
        }
    }

    /// Signals it to end, and waits for that. A tool around the server passes no signal on, so the
    /// server itself gets it.
    pub(crate) fn stop(mut self) -> Result<()> {
        signal(self.inner().unwrap_or(self.pid()), Signal::TERM);
        ensure!(self.child.wait_timeout(START)?.is_some(), "the server does not end on SIGTERM");
        Ok(())
    }

    /// The server, if a tool runs it as its child.
    fn inner(&self) -> Option<u32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A tool that is killed does not end its child.
        if let Some(inner) = self.inner() {
            signal(inner, Signal::KILL);
        }
        end(&mut self.child);
    }
}

/// The process's own CPU clock: the sum over its threads, those that have ended among them.
fn cpu_ns(pid: u32) -> nix::Result<u64> {
    let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid.cast_signed()))?;
    Ok(Duration::from(clock.now()?).as_nanos() as u64)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // An error means that it has ended already.
        let _ = kill_process(pid, signal);
    }
}

/// Ends a process that may have ended: an error means just that.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads the first line on a thread, so that the wait for a silent server can end.
fn first_line(stdout: ChildStdout) -> Result<(String, BufReader<ChildStdout>)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        // The receiver is gone if the line came too late.
        let _ = sender.send(read.map(|_| (line, stdout)));
    });
    let (line, stdout) = receiver.recv_timeout(START).context("it says nothing")??;
    ensure!(!line.is_empty(), "it ended before it listened");
    Ok((line, stdout))
}

/// The output of a load, and how long it took: by its own clock if it prints that, so that its
/// start does not count.
pub(crate) struct Done {
    pub(crate) wall_ns: u64,
    pub(crate) stdout: String,
}

/// Runs a load to its end.
///
/// # Errors
/// It did not end, or it reported a failure.
pub(crate) fn load(argv: &[String], core: Option<u32>, network: Network) -> Result<Done> {
    let argv = [network.prefix(), pinned(core), argv.to_vec()].concat();
    let from = Instant::now();
    let mut child = command(&argv)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", argv[0]))?;
    let Some(status) = child.wait_timeout(LOAD)? else {
        end(&mut child);
        bail!("the load did not end within {} s", LOAD.as_secs());
    };
    let wall_ns = from.elapsed().as_nanos() as u64;
    // A page or a JSON object: it fits into the pipe, so it need not be read before the end.
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().context("piped")?.read_to_string(&mut stdout)?;
    child.stderr.take().context("piped")?.read_to_string(&mut stderr)?;
    if !status.success() {
        let said = [&stderr, &stdout].into_iter().find_map(|text| text.trim().lines().last()).unwrap_or_default();
        bail!("{status}: {said}");
    }
    Ok(Done { wall_ns: parse::took_ns(&stdout).unwrap_or(wall_ns), stdout })
}

/// Connections that are open and silent until this is dropped.
pub(crate) struct Idle {
    child: Child,
    /// The load holds its connections until its stdin ends.
    stdin: Option<ChildStdin>,
}

impl Idle {
    /// Opens them, and waits until the server has accepted them all.
    pub(crate) fn hold(argv: &[String], core: Option<u32>, server: &Server, count: u64) -> Result<Self> {
        let before = server.open_descriptors()?;
        let argv = [server.network().prefix(), pinned(core), argv.to_vec()].concat();
        let mut child = command(&argv).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("piped")?;
        let idle = Self { stdin: child.stdin.take(), child };
        let (line, _) = first_line(stdout)?;
        ensure!(line.trim() == format!("holding {count}"), "the idle load says {line:?}");
        let from = Instant::now();
        while server.open_descriptors()? < before + count as usize {
            ensure!(from.elapsed() < START, "the server does not accept all {count} idle connections");
            look_again_later();
        }
        server.settle()?;
        Ok(idle)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if !matches!(self.child.wait_timeout(START), Ok(Some(_))) {
            end(&mut self.child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_that_has_ended_still_counts() {
        const WORK: Duration = Duration::from_millis(150);
        let before = cpu_ns(std::process::id()).unwrap();
        let work = || while Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap()) < WORK {};
        thread::spawn(work).join().unwrap();
        let counted = cpu_ns(std::process::id()).unwrap() - before;
        assert!(counted >= WORK.as_nanos() as u64, "{counted} ns of {WORK:?}");
    }

    #[test]
    fn a_load_that_fails_is_told_in_its_own_words() {
        let argv = words(&["sh", "-c", "echo 7 connections, 2 failed; exit 1"]);
        let error = load(&argv, None, Network::Ours).err().unwrap().to_string();
        assert!(error.contains("exit status: 1") && error.contains("2 failed"), "{error}");
    }

    #[test]
    fn a_server_is_known_by_its_first_line_and_ends_when_asked() {
        let log = std::env::temp_dir().join(format!("compare-test-{}.log", std::process::id()));
        let argv = words(&["sh", "-c", "echo listening on 127.0.0.1:9; exec cat /dev/zero >/dev/null"]);
        let start = Start { argv: &argv, tool: &[], core: None, network: Network::Ours, log: &log };
        let mut server = Server::start(&start).unwrap();
        assert_eq!(server.addr, "127.0.0.1:9");
        server.ensure_alive().unwrap();
        assert!(server.resident_bytes().unwrap() > 0);
        server.stop().unwrap();
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_server_that_ends_or_says_something_else_is_no_server() {
        let log = std::env::temp_dir().join(format!("compare-test-{}-2.log", std::process::id()));
        for script in ["exit 3", "echo hello; exec cat /dev/zero >/dev/null"] {
            let argv = words(&["sh", "-c", script]);
            let start = Start { argv: &argv, tool: &[], core: None, network: Network::Ours, log: &log };
            assert!(Server::start(&start).is_err(), "{script}");
        }
        fs::remove_file(log).unwrap();
    }
}
