//! SIGHUP: restarting `serve` without refusing a client. The new process gets copies of the
//! listening sockets, and the old one stops when the new one serves.
//!
//! Invariant: at every moment some process accepts, or will. Until then connections wait in the
//! queue of the shared sockets. If the new process does not start, nothing has changed.

use std::path::PathBuf;
use std::thread::JoinHandle;

use finale::Reactor;
use rustix::process::{Pid, Signal, kill_process};

use super::manager::Manager;
use super::sockets::Sockets;
use super::successor::{Reserve, Successor, own_path};
use super::terminal::Terminal;
use crate::output::{self, count};
use crate::tls::Served;

/// Restarts on request.
pub(super) struct Restart {
    /// The program to start, or why there is none.
    program: Result<PathBuf, String>,
    sockets: Sockets,
    tls: Option<Served>,
    /// `None` if there were not enough descriptors.
    reserve: Option<Reserve>,
    pub(super) successor: Option<Successor>,
    /// Another restart was requested since the new process was started. It may have read the old
    /// program, or the old certificate.
    again: bool,
    /// The end of a new process that was stopped.
    ending: Option<JoinHandle<()>>,
    quiet: bool,
}

/// Whether a new process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restarted {
    Yes,
    No,
}

impl Restart {
    pub(super) fn new(
        sockets: Sockets,
        tls: Option<Served>,
        manager: &Manager,
        terminal: &Terminal,
        quiet: bool,
    ) -> Self {
        let program =
            own_path().and_then(|path| refusal(manager, terminal).map_or(Ok(path), |why| Err(why.to_owned())));
        let reserve = Reserve::new(&sockets).ok();
        Self { program, sockets, tls, reserve, successor: None, again: false, ending: None, quiet }
    }

    /// This process serves. Reports it to its predecessor, and returns whether there is one.
    pub(super) fn take_over(&mut self) -> bool {
        self.sockets.take_over()
    }

    /// Whether that process has ended this one, and is the service still.
    pub(super) fn is_taken_back(&self) -> bool {
        self.sockets.are_taken_back()
    }

    /// Reads the certificate again and starts the new process: at once, or if one is starting
    /// already, when that serves or has failed. The certificate is that of this process, too: the
    /// new one may be refused, or fail.
    pub(super) fn begin(&mut self, control: &Reactor, manager: &Manager) {
        if self.successor.is_some() {
            self.again = true;
            return self.say("restarting already: the new process has not reported yet, and another one follows it");
        }
        // Each of these ends with READY=1, also if it fails.
        manager.reloading();
        match self.reload().and_then(|()| self.start(control)) {
            Ok(successor) => self.successor = Some(successor),
            Err(why) => Self::refuse(manager, &why),
        }
    }

    fn reload(&self) -> Result<(), String> {
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.reload().map_err(|error| format!("{error}; the certificate stays the one before"))?;
        self.say(&format!("read {} again, for the next handshakes", tls.certificate().display()));
        Ok(())
    }

    fn start(&mut self, control: &Reactor) -> Result<Successor, String> {
        let program = self.program.clone()?;
        self.say(&format!("restarting: starting {}", program.display()));
        let reserve = self.reserve.take().map_or_else(|| Reserve::new(&self.sockets), Ok);
        let started = reserve.and_then(|reserve| Successor::start(&program, &self.sockets, reserve, control.waker()));
        started.map_err(|error| error.to_string())
    }

    fn refuse(manager: &Manager, why: &str) {
        manager.ready();
        output::error(format_args!("not restarted, this process continues to serve: {why}"));
    }

    /// Whether the new process serves by now. `live` counts the connections of this process.
    pub(super) fn check(&mut self, control: &Reactor, manager: &Manager, live: usize) -> Restarted {
        let Some(outcome) = self.successor.as_ref().and_then(Successor::outcome) else { return Restarted::No };
        self.successor = None;
        match outcome {
            Ok(pid) => {
                let live = count(live as u64, "connection");
                self.say(&format!("process {pid} serves; {live} left to this process"));
                self.pass_on(manager, pid)
            }
            Err(why) => {
                Self::refuse(manager, &why);
                self.reserve = Reserve::new(&self.sockets).ok();
                if std::mem::take(&mut self.again) {
                    self.begin(control, manager);
                }
                Restarted::No
            }
        }
    }

    /// The server stops. If the new process serves already it stays; if it is still starting it
    /// stops, too.
    pub(super) fn give_up(&mut self, manager: &Manager) -> Restarted {
        if let Some(successor) = self.successor.take() {
            match successor.stop() {
                Ok(ending) => self.ending = Some(ending),
                Err(pid) => {
                    self.say(&format!("process {pid} serves"));
                    return self.pass_on(manager, pid);
                }
            }
            self.say("not restarted: this process was stopped, and stops the new one, too");
        }
        Restarted::No
    }

    /// No listening socket is left to this process, nor a new process that has not started.
    pub(super) fn finish(&mut self) {
        self.sockets.close();
        if let Some(ending) = self.ending.take() {
            // A thread that has panicked has printed that.
            let _ = ending.join();
        }
    }

    /// Closes the listening sockets and removes the socket file, if no other process has them.
    pub(super) fn close(&mut self) {
        self.reserve = None;
        self.sockets.close();
    }

    fn pass_on(&mut self, manager: &Manager, pid: u32) -> Restarted {
        manager.passed_on(pid);
        self.sockets.detach();
        if std::mem::take(&mut self.again) {
            // It watches for signals, since it serves; and we have not waited for its end.
            let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::HUP));
        }
        Restarted::Yes
    }

    /// A line about a restart that goes well.
    fn say(&self, line: &str) {
        if !self.quiet {
            output::say(format_args!("{}: {line}", output::name()));
        }
    }
}

/// Why the end of this process would be the end of the service, whatever process follows it.
fn refusal(manager: &Manager, terminal: &Terminal) -> Option<&'static str> {
    let pid = std::process::id();
    if pid == 1 {
        return Some("this process is number 1, and its container ends with it; start a new container");
    }
    if terminal.ends_with_us() {
        return Some("its terminal is closed when this process ends; start the server with setsid, or from a shell");
    }
    // systemd sets it to the main process of a service (systemd.exec(5)).
    let is_main = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|main| main == pid.to_string());
    (is_main && !manager.is_present())
        .then_some("systemd takes the end of this process for the end of the service; write Type=notify in the unit")
}
