//! `finale lesson crash`: what a program learns of a peer that ends, is killed, or freezes (the
//! lesson's challenge 1).
//!
//! Invariant: the output is the same in every run. No step waits for a time: each waits for an
//! event of the socket or for a line of the child, and the peer is killed or stopped when both have
//! come.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use finale::{BoundAddr, Event, KeepAlive, ListenOptions, Socket, Waker};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::page::{heading, learned, line, paragraph};
use super::peer::{Part, READY};
use crate::errors::Error;
use crate::trace::{Ladder, Side};
use crate::values;

/// Challenge 1: what a socket reports of a peer that ends, is killed, or freezes
///
/// The peer is a child process. The page is the same in every run. It takes about 5 seconds.
#[derive(Debug, clap::Args)]
pub(super) struct CrashOptions {
    /// Print the ladder of each scene on stderr, after the scene: the system calls, states and events
    /// of our side, and what its kernel says. The peer is another process
    #[arg(long)]
    trace: bool,
}

/// One way in which a connection loses its peer.
struct Scene {
    title: &'static str,
    part: Part,
    fate: Fate,
    explanation: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends by itself.
    Own,
    /// SIGKILL.
    Killed,
    /// SIGSTOP.
    Stopped,
}

const SCENES: [Scene; 4] = [
    Scene {
        title: "1. The peer ends",
        part: Part::Ends,
        fate: Fate::Own,
        explanation: "`end` is the peer's FIN: the peer sends no more. We ended too, its kernel acknowledged that, \
                      and `close` reports a clean ending without an error.",
    },
    Scene {
        title: "2. The peer is killed (SIGKILL) with nothing unread",
        part: Part::Waits,
        fate: Fate::Killed,
        explanation: "The events are exactly the same, although the program died in the middle of a sentence. When a \
                      process dies its kernel closes its sockets, and that sends the same FIN. So `end` does not \
                      prove that the message is complete: a protocol needs a mark of its own, such as a length \
                      before the message or a last line. Here \"that is all\" never arrived.",
    },
    Scene {
        title: "3. The peer is killed (SIGKILL) with our question unread",
        part: Part::LeavesUnread,
        fate: Fate::Killed,
        explanation: "This time there is no `end`. Bytes that we had sent were unread when the program died, and its \
                      kernel reports that with a reset (RST): `error`, and `close` directly after it. Here we know \
                      that something was lost. In scene 2 we could not know.",
    },
    Scene {
        title: "4. The peer freezes (SIGSTOP)",
        part: Part::Waits,
        fate: Fate::Stopped,
        explanation: "There is neither `end` nor `error`. The kernel of the frozen program still acknowledges our \
                      question and our keep-alive probes (one per second), because keep-alive detects a lost \
                      machine and not a stuck program. Only our own idle timeout detects it. It does not close the \
                      connection. We chose to destroy the socket, which sends a reset.",
    },
];

impl Fate {
    /// What we do for it, in a ladder.
    const fn text(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Killed => Some("we kill the peer"),
            Self::Stopped => Some("we stop the peer"),
        }
    }
}

/// Bytes that the peer never reads.
const QUESTION: &[u8] = b"and what comes after two?";
/// The first probe is sent after 1 s, and the peer is dead if it is not acknowledged after another:
/// without an acknowledgement the connection ends after 2 s.
const KEEP_ALIVE: KeepAlive = KeepAlive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 1 };
/// Longer than these 2 s, so that keep-alive could end the connection.
const IDLE: Duration = Duration::from_secs(3);
/// A scene that has not ended by then hangs.
const SCENE_LIMIT: Duration = Duration::from_secs(60);

/// Runs all scenes.
pub(super) fn run(options: &CrashOptions) -> Result<(), Error> {
    paragraph("What does a program learn when its peer goes away? The peer is a child process.")?;
    for scene in &SCENES {
        heading(scene.title)?;
        play(scene, options.trace)?;
        paragraph("")?;
        paragraph(scene.explanation)?;
    }
    learned(&[
        "`end` means that the peer sends no more. It does not mean that the message is complete: let the protocol \
         mark where a message ends.",
        "`error` and then `close` mean that the connection was cut and that something may be lost.",
        "A peer that freezes is silent. Only an idle timeout or a deadline of your own ends such a connection.",
    ])
}

/// One scene, from the listener to `close`.
fn play(scene: &Scene, is_traced: bool) -> Result<(), Error> {
    let recorder = super::recorder(is_traced);
    let mut reactor = recorder.reactor()?;
    let begun = reactor.now();
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default().keep_alive(KEEP_ALIVE))?;
    let mut peer = Peer::start(scene.part, listener.addr, reactor.waker())?;
    let limit = Instant::now() + SCENE_LIMIT;
    let mut speaker = None;
    while let Some((mut socket, event)) = reactor.next_before(limit)? {
        print_event(&event)?;
        match event {
            Event::Connection if scene.part == Part::LeavesUnread => ask(&mut socket)?,
            Event::Data(_) => speaker = Some(socket.id()),
            Event::Woken => peer.take_reports()?,
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            Event::Close(ending) => {
                if is_traced {
                    super::say(&Ladder::of_one_side(Side::Server, scene.title, &recorder.records(), begun, ending));
                }
                return Ok(());
            }
            _ => {}
        }
        if peer.is_ready
            && let Some(mut socket) = speaker.and_then(|id| reactor.socket(id))
        {
            peer.is_ready = false;
            if let Some(text) = scene.fate.text() {
                recorder.note(socket.now(), 0, text);
            }
            strike(scene.fate, &mut peer, &mut socket)?;
        }
    }
    Err(Error::Scene("this scene of the lesson has not ended after a minute; is the machine overloaded?"))
}

fn strike(fate: Fate, peer: &mut Peer, socket: &mut Socket<'_>) -> Result<(), Error> {
    peer.is_struck = true;
    match fate {
        Fate::Own => Ok(()),
        Fate::Killed => {
            line("  ", "(we kill the peer)")?;
            peer.child.kill().map_err(|source| Error::io("kill the peer", source))
        }
        Fate::Stopped => {
            line("  ", "(we stop the peer)")?;
            peer.stop().map_err(|source| Error::io("stop the peer", source))?;
            ask(socket)?;
            socket.set_idle_timeout(Some(IDLE));
            Ok(())
        }
    }
}

fn ask(socket: &mut Socket<'_>) -> Result<(), Error> {
    line("  ", "(we send a question)")?;
    socket.write(QUESTION)?;
    Ok(())
}

fn print_event(event: &Event<'_>) -> Result<(), Error> {
    let text = match event {
        Event::Connection => "connection".to_owned(),
        Event::Data(bytes) => format!("data: \"{}\"", String::from_utf8_lossy(bytes)),
        Event::Timeout => format!("timeout: no byte moved for {}", humantime::format_duration(IDLE)),
        Event::End => "end".to_owned(),
        Event::Error(failure) => format!("error: {failure}"),
        Event::Close(ending) => format!("close: {ending}"),
        _ => return Ok(()),
    };
    line("  ", &text)
}

/// The child process. Invariant: it is killed and reaped when this is dropped, on every path, even
/// if it is stopped.
struct Peer {
    child: Child,
    reports: Receiver<Report>,
    is_ready: bool,
    is_struck: bool,
}

/// What the child's stdout reports.
enum Report {
    Ready,
    Closed,
}

impl Peer {
    fn start(part: Part, addr: BoundAddr, remote: Waker) -> Result<Self, Error> {
        let spawned = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .arg("peer")
                .arg(values::name(part))
                .arg(addr.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        });
        let mut child = spawned.map_err(|source| Error::io("start the peer", source))?;
        let (sender, reports) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || forward(stdout, &sender, &remote));
        }
        Ok(Self { child, reports, is_ready: false, is_struck: false })
    }

    /// Takes the reports of the child. If it has failed by itself, so does the scene.
    fn take_reports(&mut self) -> Result<(), Error> {
        for report in self.reports.try_iter() {
            match report {
                Report::Ready => self.is_ready = true,
                Report::Closed => {
                    let status = self.child.wait().map_err(|source| Error::io("wait for the peer", source))?;
                    if !self.is_struck && !status.success() {
                        return Err(Error::Scene("the peer of this scene failed; its reason is on stderr"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Stops the child and waits until it is stopped.
    fn stop(&self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        kill_process(pid, Signal::STOP)?;
        waitpid(Some(pid), WaitOptions::UNTRACED)?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SIGKILL needs no SIGCONT first. Both calls fail only if the child is reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Forwards that the child is ready, and that its stdout was closed.
fn forward(stdout: ChildStdout, reports: &Sender<Report>, remote: &Waker) {
    let ready = BufReader::new(stdout).lines().map_while(Result::ok).filter(|line| line == READY);
    for report in ready.map(|_line| Report::Ready).chain([Report::Closed]) {
        if reports.send(report).is_err() || remote.wake().is_err() {
            return;
        }
    }
}
