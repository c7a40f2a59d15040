//! A running example, and a real client if there is one.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

/// A running example; it ends with the test.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    /// What it prints.
    pub(crate) out: Option<BufReader<PipeReader>>,
}

/// An example of this build.
pub(crate) fn command(name: &str) -> Command {
    let tests = std::env::current_exe().expect("a path");
    Command::new(tests.ancestors().nth(2).expect("target/PROFILE").join("examples").join(name))
}

/// Runs an example to its end.
pub(crate) fn output(name: &str, args: &[impl AsRef<OsStr>], input: &str) -> Output {
    let mut command = command(name);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; build it: cargo build --examples"));
    // A program that reads no input may have ended.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// An example that may have this many descriptors.
pub(crate) fn with_descriptors(count: usize, name: &str, args: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\"")]);
    shell.arg(command(name).get_program()).args(args);
    shell
}

/// What a successful run prints.
pub(crate) fn printed(name: &str, args: &[&str], input: &str) -> String {
    let output = output(name, args, input);
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Program {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        Self::start_with_a_pipe(name, args).0
    }

    /// Returns also the end of the pipe to which it prints.
    pub(crate) fn start_with_a_pipe(name: &str, args: &[&str]) -> (Self, PipeWriter) {
        let mut command = command(name);
        command.args(args);
        Self::spawn(name, command)
    }

    /// It may have this many descriptors.
    pub(crate) fn start_with_descriptors(count: usize, name: &str, args: &[&str]) -> Self {
        Self::spawn(name, with_descriptors(count, name, args)).0
    }

    fn spawn(name: &str, mut command: Command) -> (Self, PipeWriter) {
        let (out, pipe) = std::io::pipe().expect("descriptors");
        let ours = pipe.try_clone().expect("descriptors");
        let spawned = command.stdin(Stdio::null()).stdout(pipe).spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{name}: {error}; build it: cargo build --examples"));
        // It holds an end of the pipe.
        drop(command);
        let mut out = BufReader::new(out);
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("no address in {line:?}"));
        (Self { child, out: Some(out), addr }, ours)
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        // The limit ends a test that would hang, and measures nothing.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream
    }

    /// Sends a request, finishes, and reads the answer to its end.
    pub(crate) fn exchange(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = self.connect();
        stream.write_all(request)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader().read_line(&mut line).expect("a line");
        line
    }

    pub(crate) fn reader(&mut self) -> &mut BufReader<PipeReader> {
        self.out.as_mut().expect("it is read")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client's output. Prints a line if it is not installed.
pub(crate) fn client(program: &str, args: &[&str]) -> Option<std::process::Output> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no {program} here");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}
