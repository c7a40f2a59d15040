//! The running service, and a small client of HTTP/1.1.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, PipeReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use finale_tls::rustls::pki_types::ServerName;
use finale_tls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustix::process::{Pid, Signal, kill_process};

/// It ends a test that would hang, and measures nothing.
const GUARD: Duration = Duration::from_secs(60);

/// A new folder for a database.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it can be created");
    folder
}

/// Where a service listens.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) addr: SocketAddr,
    /// How clients trust it, with TLS.
    pub(crate) config: Option<Arc<ClientConfig>>,
}

/// A running service. It ends with the test, and so do the processes that have replaced it.
pub(crate) struct Notes {
    pub(crate) child: Child,
    pub(crate) at: Address,
    lines: Receiver<String>,
    /// The process that serves now.
    pid: u32,
}

impl Notes {
    /// A new service in a folder of its own.
    pub(crate) fn new(name: &str) -> Self {
        Self::start(&folder(name), &[])
    }

    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let (out, pipe) = std::io::pipe().expect("descriptors");
        let mut command = Command::new(env!("CARGO_BIN_EXE_notes"));
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.arg("--data").arg(folder.join("notes.db")).args(args);
        let child = command.stdin(Stdio::null()).stdout(pipe).spawn().expect("it starts");
        // It holds an end of the pipe.
        drop(command);
        let lines = lines(out);
        let first = lines.recv_timeout(GUARD).expect("it listens");
        let url = first.split_once(" listening on ").expect("an address").1;
        let (scheme, addr) = url.split_once("://").expect("an address");
        let config = (scheme == "https").then(finale_tls::trust_any_server);
        let at = Address { addr: addr.parse().expect("an address"), config };
        Self { pid: child.id(), child, at, lines }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.at)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid, signal);
    }

    /// Waits for a line with these words, and returns it.
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(GUARD).unwrap_or_else(|error| panic!("no line has {words:?}: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Starts the next process, and waits until it serves. Returns the one that it has replaced.
    pub(crate) fn restart(&mut self) -> u32 {
        let old = self.pid;
        self.signal(Signal::USR2);
        let line = self.wait_for_line(" serves");
        let words = line.split_once("process ").and_then(|(_, rest)| rest.split_once(' '));
        self.pid = words.and_then(|(pid, _)| pid.parse().ok()).expect("a number");
        old
    }

    /// Waits for the end of the process that was started first.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// SIGKILL to the process that serves: it can do nothing more.
    pub(crate) fn kill(self) {
        signal_to(self.pid, Signal::KILL);
        // The last end of its output is closed when it is gone.
        while self.lines.recv().is_ok() {}
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.client().get("/metrics").text();
        let row = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        row.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        if self.pid != self.child.id() {
            signal_to(self.pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal_to(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // A process that has ended needs no signal.
    let _ = kill_process(pid, signal);
}

/// What it prints, line by line. It is read at all times, so that the service never loses a line.
fn lines(out: PipeReader) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<Stream>,
}

/// A stream with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            // A FIN without close_notify is an error.
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(at: &Address) -> Self {
        Self::try_connect(at).expect("it listens")
    }

    pub(crate) fn try_connect(at: &Address) -> std::io::Result<Self> {
        let stream = TcpStream::connect(at.addr)?;
        stream.set_read_timeout(Some(GUARD))?;
        let stream = match &at.config {
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let connection = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
                Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
            None => Stream::Plain(stream),
        };
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("it reads");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    pub(crate) fn finish(&mut self) {
        let stream = match self.stream.get_mut() {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("it reads");
                &mut stream.sock
            }
        };
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(request("GET", path, "", ""));
        self.answer()
    }

    /// A request with a note as its body.
    pub(crate) fn note(&mut self, method: &str, path: &str, title: &str) -> Answer {
        self.send(note(method, path, title));
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    /// The next answer, or why there is none.
    pub(crate) fn try_answer(&mut self) -> std::io::Result<Answer> {
        let mut answer = self.head()?;
        let length = answer.headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    pub(crate) fn head(&mut self) -> std::io::Result<Answer> {
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {first:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Ok(Answer { status, headers, body: Vec::new() })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Reads until the FIN. A reset is an error.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("a FIN, and no reset");
        rest
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The id of the note that was created.
    pub(crate) fn id(&self) -> i64 {
        self.json()["id"].as_i64().unwrap_or_else(|| panic!("no id: {self:?}"))
    }
}

/// A request as text. A body has its length.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n{body}")
}

pub(crate) fn note(method: &str, path: &str, title: &str) -> String {
    let body = serde_json::json!({ "title": title, "body": "text" }).to_string();
    request(method, path, "Content-Type: application/json\r\n", &body)
}
