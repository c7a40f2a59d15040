//! One case: a program, and a peer that behaves in one way.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use finale_load::pinned::wrong;
use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;

use super::behaviour::{Behaviour, Certificate, HALVES, REQUEST, Sent};
use super::peer::{Peer, Seen};
use super::program::{Place, Program, Voice, scripts};

/// A program that needs more than this to end once its connection has ended is killed. Servers do
/// so that continue with the next connection.
const AFTER: Duration = Duration::from_secs(8);
/// A program that needs more than this to start has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// What was observed.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// What the program has said about the end.
    pub(super) words: String,
    /// How much of what its peer has sent it printed.
    pub(super) delivered: Sent,
    /// What the peer has received, and how the program has ended its direction.
    pub(super) seen: Seen,
}

/// The folders of the certificates.
pub(super) struct Folders<'a>(pub(super) &'a Path);

impl Folders<'_> {
    pub(super) fn of(&self, certificate: Certificate) -> std::path::PathBuf {
        self.0.join(format!("{certificate:?}"))
    }

    /// What a client trusts.
    fn trusted(&self, certificate: Certificate) -> std::path::PathBuf {
        self.of(if certificate == Certificate::Unknown { Certificate::Trusted } else { certificate })
    }
}

/// A client, and a peer that is its server.
pub(super) fn with_client(behaviour: &Behaviour, program: &Program, folders: &Folders<'_>) -> io::Result<Outcome> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let me = std::env::current_exe()?;
    let place = Place {
        port: listener.local_addr()?.port(),
        folder: &folders.trusted(behaviour.certificate),
        half_close: behaviour.half_close,
        me: &me,
        scripts: &scripts(),
    };
    let config = Arc::new(crate::config::server(&folders.of(behaviour.certificate))?);
    let mut running = Running::start((program.command)(&place), program.feeds)?;
    if let Some(input) = &mut running.input {
        input.write_all(REQUEST)?;
    }
    if behaviour.half_close {
        running.input = None;
    }
    SockRef::from(&listener).set_read_timeout(Some(LIMIT))?;
    let (stream, _) = listener.accept()?;
    let mut peer = Peer::server(stream, &config)?;
    let seen = play(behaviour, &mut peer);
    running.end(program.voice, seen)
}

/// A server, and a peer that is its client.
pub(super) fn with_server(behaviour: &Behaviour, program: &Program, folders: &Folders<'_>) -> io::Result<Outcome> {
    let folder = folders.of(Certificate::Trusted);
    let me = std::env::current_exe()?;
    let place = Place { port: 0, folder: &folder, half_close: false, me: &me, scripts: &scripts() };
    let config = Arc::new(crate::config::client(&folder)?);
    // Input that does not end, so that a server that reads it does not end either.
    let running = Running::start((program.command)(&place), true)?;
    let addr = running.listening()?;
    let mut peer = Peer::client(TcpStream::connect(addr)?, &config)?;
    let seen = play(behaviour, &mut peer);
    running.end(program.voice, seen)
}

/// The peer keeps what is open until the program has ended or was killed.
fn play(behaviour: &Behaviour, peer: &mut Peer) -> Seen {
    // A program that ends early makes the rest impossible, which is a result as well.
    let _ = (behaviour.play)(peer);
    peer.finish(behaviour.patience)
}

/// A program that was started.
struct Running {
    pid: Pid,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    ended: mpsc::Receiver<io::Result<Option<i32>>>,
}

impl Running {
    fn start(words: Vec<String>, feeds: bool) -> io::Result<Self> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if feeds { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|error| wrong(format!("{}: {error}", words[0])))?;
        let (to_lines, lines) = mpsc::channel();
        let outputs: [Box<dyn io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        let readers = outputs.map(|output| {
            let to_lines = to_lines.clone();
            thread::spawn(move || read_lines(output, &to_lines))
        });
        let (pid, input) = (Pid::from_child(&child), child.stdin.take());
        let (to_ended, ended) = mpsc::channel();
        thread::spawn(move || {
            let code = wait(&mut child);
            for reader in readers {
                let _ = reader.join();
            }
            // The receiver is gone if the case has failed.
            let _ = to_ended.send(code);
        });
        Ok(Self { pid, input, lines, ended })
    }

    /// The address that a server prints.
    fn listening(&self) -> io::Result<SocketAddr> {
        loop {
            let line = self.lines.recv_timeout(LIMIT).map_err(|_| wrong("no address was printed".to_owned()))?;
            let addr = line.strip_prefix("listening on ").or(line.strip_prefix("ACCEPT "));
            if let Some(port) = addr.and_then(|addr| addr.rsplit(':').next()?.trim().parse().ok()) {
                return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
            }
        }
    }

    /// Waits for its end, and reads what it has printed.
    fn end(self, voice: Voice, seen: Seen) -> io::Result<Outcome> {
        let mut code = if seen.waits { None } else { self.ended.recv_timeout(AFTER).ok() };
        if code.is_none() {
            // It may have ended just now.
            let _ = kill_process(self.pid, Signal::KILL);
            code = self.ended.recv_timeout(LIMIT).ok();
        }
        let code = code.ok_or_else(|| wrong("a program can't be killed".to_owned()))??;
        let lines: Vec<String> = self.lines.try_iter().collect();
        Ok(Outcome { words: said(&lines, voice, code), delivered: delivered(&lines.join("\n")), seen })
    }
}

fn wait(child: &mut Child) -> io::Result<Option<i32>> {
    Ok(child.wait()?.code())
}

fn read_lines(output: Box<dyn io::Read + Send>, to_lines: &mpsc::Sender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if to_lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
            // Nothing is reported any more, and the program must not block.
            let _ = output.read_to_end(&mut line);
            return;
        }
        line.clear();
    }
}

/// What a program says about the end, without what differs from run to run.
fn said(lines: &[String], voice: Voice, code: Option<i32>) -> String {
    match voice {
        Voice::Report => {
            let report = lines.iter().rev().find_map(|line| line.strip_prefix("report: "));
            report.map_or_else(|| format!("nothing{}", exit(code)), str::to_owned)
        }
        Voice::Lines(words) => {
            let lines = lines.iter().filter(|line| words.iter().any(|word| line.contains(word)));
            let lines: Vec<_> = lines.map(|line| without_address(line)).collect();
            format!("{}{}", if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }, exit(code))
        }
    }
}

fn exit(code: Option<i32>) -> String {
    code.map_or_else(String::new, |code| format!("; exit code {code}"))
}

/// OpenSSL begins an error with the number of the thread, and ends it with a line of its sources.
fn without_address(line: &str) -> String {
    match line.split_once(":error:") {
        Some((thread, rest)) if thread.chars().all(|digit| digit.is_ascii_hexdigit()) => {
            let parts: Vec<_> = rest.split(':').filter(|part| !part.is_empty() && !part.contains(".c")).collect();
            let parts: Vec<_> = parts.iter().filter(|part| part.parse::<u32>().is_err()).copied().collect();
            format!("error:{}", parts.join(":"))
        }
        _ => line.to_owned(),
    }
}

fn delivered(output: &str) -> Sent {
    let [first, second] = HALVES.map(|half| output.contains(half.trim_end()));
    match (first, second) {
        (true, true) => Sent::Whole,
        (true, false) => Sent::Half,
        (false, _) => Sent::Nothing,
    }
}
