//! What is done to the server from outside: a signal, a shell command, a function.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{self, Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::{env, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::options::Stop;

/// Something that was begun, and is not over.
pub(crate) enum Control {
    /// A process that got a signal.
    Signalled(Pid),
    Shell(Shell),
    Call(JoinHandle<()>),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Running,
    Done,
    /// It did what it did without success: its words.
    Failed(String),
}

/// A shell command with all that it has started.
pub(crate) struct Shell {
    child: Child,
    /// A file without a name: a server that the command starts may keep it. A pipe would break.
    stderr: File,
}

/// Bytes of the words of a command that are reported.
const WORDS: usize = 400;

impl Control {
    /// Begins to stop the server.
    pub(crate) fn stop(stop: &Stop) -> Result<Self, String> {
        match stop {
            // To kill(2) these are groups of processes, or all of them.
            Stop::Pid(pid) if *pid <= 0 => Err(format!("no process has the number {pid}")),
            Stop::Pid(pid) => {
                let pid = Pid::from_raw(*pid);
                kill(pid, Signal::SIGTERM).map_err(|error| format!("SIGTERM to process {pid}: {error}"))?;
                Ok(Self::Signalled(pid))
            }
            Stop::Command(command) => Self::shell(command),
            Stop::Call(call) => {
                let call = call.clone();
                Ok(Self::Call(thread::spawn(move || (call.0)())))
            }
        }
    }

    /// Begins a shell command.
    pub(crate) fn shell(command: &str) -> Result<Self, String> {
        Shell::begin(command).map(Self::Shell).map_err(|error| format!("the command can't be started: {error}"))
    }

    /// Looks how far it is.
    pub(crate) fn step(&mut self) -> Step {
        match self {
            Self::Signalled(pid) if is_gone(*pid) => Step::Done,
            Self::Call(thread) if thread.is_finished() => Step::Done,
            Self::Signalled(_) | Self::Call(_) => Step::Running,
            Self::Shell(shell) => shell.step(),
        }
    }
}

/// A shell command that takes too long, or that an interrupted probe does not await, is ended with
/// all that it has started in its process group.
impl Drop for Shell {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Ok(group) = i32::try_from(self.child.id())
        {
            // It may end meanwhile; then there is nothing to kill.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

impl Shell {
    fn begin(command: &str) -> io::Result<Self> {
        let name = format!("finale-probe-{}-{:?}", process::id(), thread::current().id());
        let path = env::temp_dir().join(name);
        let stderr = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        let mut shell = Command::new("sh");
        // Not our stdout: the report is written there.
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
        Ok(Self { child: shell.process_group(0).spawn()?, stderr })
    }

    fn step(&mut self) -> Step {
        match self.child.try_wait() {
            Ok(None) => Step::Running,
            Ok(Some(status)) if status.success() => Step::Done,
            Ok(Some(status)) => Step::Failed(format!("the command failed ({status}){}", self.words())),
            Err(error) => Step::Failed(format!("the command can't be awaited: {error}")),
        }
    }

    /// What it has written to its standard error.
    fn words(&self) -> String {
        let mut words = [0; WORDS];
        let length = self.stderr.read_at(&mut words, 0).unwrap_or(0);
        let words = String::from_utf8_lossy(&words[..length]);
        let words = words.trim();
        if words.is_empty() { String::new() } else { format!(": {}", words.replace('\n', "; ")) }
    }
}

/// Whether a process has ended. Its parent may not have noticed that.
fn is_gone(pid: Pid) -> bool {
    if kill(pid, None) == Err(Errno::ESRCH) {
        return true;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of its program, in parentheses, can contain anything.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::{Control, Step};

    fn end_of(command: &str) -> Step {
        let mut control = Control::shell(command).expect("there is a shell");
        loop {
            match control.step() {
                Step::Running => thread::yield_now(),
                step => return step,
            }
        }
    }

    #[test]
    fn a_command_that_fails_gives_its_exit_code_and_its_words() {
        assert_eq!(end_of("true; echo fine >&2"), Step::Done);
        let Step::Failed(reason) = end_of("echo no such unit >&2; exit 3") else { panic!("it succeeded") };
        assert_eq!(reason, "the command failed (exit status: 3): no such unit");
    }

    #[test]
    fn a_command_that_is_no_longer_awaited_is_killed() {
        let Control::Shell(shell) = Control::shell("sleep 600 & sleep 600").expect("there is a shell") else {
            panic!("it is a shell command")
        };
        let pid = Pid::from_raw(i32::try_from(shell.child.id()).expect("the number of a process"));
        assert_eq!(Control::Shell(shell).step(), Step::Running);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }
}
