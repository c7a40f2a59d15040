//! `finale lesson crash`: what a socket tells of a peer that ends, is killed, or freezes (the
//! lesson's challenge 1).
//!
//! Invariant: the output is the same in every run. Nothing waits for a time; each step waits for an
//! event of the socket or for a line of the child, and a fate strikes only when both have come.

use std::io::{self, BufRead as _, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use finale::{Event, KeepAlive, ListenOptions, Reactor, Socket, Waker};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::peer::{Part, READY};
use crate::trouble::Trouble;

/// One way for a connection to lose its peer.
struct Scene {
    title: &'static str,
    part: Part,
    fate: Fate,
    moral: &'static str,
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
        moral: "\
`end` is the peer's FIN: it has said all that it wanted to say. We ended too, its
kernel acknowledged that, and `close` reports a clean ending without an error.",
    },
    Scene {
        title: "2. The peer is killed (SIGKILL) with nothing unread",
        part: Part::Waits,
        fate: Fate::Killed,
        moral: "\
The same events, to the letter, though the program died in mid-sentence. When a
process dies its kernel closes its sockets, and that sends the same FIN. So `end`
is no proof of health: a protocol needs its own mark for a whole message, as a
length before it or a last line. Here \"that is all\" never came.",
    },
    Scene {
        title: "3. The peer is killed (SIGKILL) with our question unread",
        part: Part::LeavesUnread,
        fate: Fate::Killed,
        moral: "\
This time no `end`. Bytes that we had sent died unread with the program, and its
kernel says so with a reset (RST): `error`, and `close` right behind it. What is
lost is certain here; in scene 2 nobody could tell. `end` says that the peer sends
no more, `error` + `close` that the connection was cut.",
    },
    Scene {
        title: "4. The peer freezes (SIGSTOP)",
        part: Part::Waits,
        fate: Fate::Stopped,
        moral: "\
Neither `end` nor `error`: nothing at all. The frozen program's kernel goes on
acknowledging our question and our keep-alive probes (one a second), for keep-alive
finds a lost machine, not a stuck program. Only our own idle timer noticed. It
closes nothing by itself; we chose to destroy the socket, which sends a reset.",
    },
];

/// Before the strike, so that there are bytes that the peer never reads.
const QUESTION: &[u8] = b"and what comes after two?";
/// The first probe after 1 s, dead when one goes unanswered for another: without an answer, 2 s
/// would be the end.
const KEEP_ALIVE: KeepAlive = KeepAlive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 1 };
/// Longer than those 2 s, so that keep-alive had its chance.
const IDLE: Duration = Duration::from_secs(3);
/// A scene that has not ended by then never will.
const CURTAIN: Duration = Duration::from_secs(60);

/// Plays all scenes.
pub(crate) fn run() -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    print(&mut out, "What does a socket tell when its peer goes away? The peer is a child process.\n")?;
    for scene in &SCENES {
        print(&mut out, &format!("\n=== {} ===\n\n", scene.title))?;
        play(scene, &mut out)?;
        print(&mut out, &format!("\n{}\n", scene.moral))?;
    }
    Ok(())
}

/// One scene, from the listener to `close`.
fn play(scene: &Scene, out: &mut impl Write) -> Result<(), Trouble> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default().keep_alive(KEEP_ALIVE))?;
    let mut peer = Peer::start(scene.part, listener.addr, reactor.waker())?;
    let curtain = Instant::now() + CURTAIN;
    let mut speaker = None;
    while let Some((mut socket, event)) = reactor.next_before(curtain)? {
        tell(&event, out)?;
        match event {
            Event::Connection if scene.part == Part::LeavesUnread => ask(&mut socket, out)?,
            Event::Data(_) => speaker = Some(socket.id()),
            Event::Woken => peer.listen()?,
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            Event::Close(_) => return Ok(()),
            _ => {}
        }
        if peer.is_ready
            && let Some(mut socket) = speaker.and_then(|id| reactor.socket(id))
        {
            peer.is_ready = false;
            strike(scene.fate, &mut peer, &mut socket, out)?;
        }
    }
    Err(Trouble::Scene("this scene of the lesson did not come to its end; is the machine overloaded?"))
}

fn strike(fate: Fate, peer: &mut Peer, socket: &mut Socket<'_>, out: &mut impl Write) -> Result<(), Trouble> {
    peer.is_struck = true;
    match fate {
        Fate::Own => Ok(()),
        Fate::Killed => {
            print(out, "  (we kill the peer)\n")?;
            peer.child.kill().map_err(|source| Trouble::io("kill the peer", source))
        }
        Fate::Stopped => {
            print(out, "  (we stop the peer)\n")?;
            peer.stop().map_err(|source| Trouble::io("stop the peer", source))?;
            ask(socket, out)?;
            socket.set_idle_timeout(IDLE);
            Ok(())
        }
    }
}

fn ask(socket: &mut Socket<'_>, out: &mut impl Write) -> Result<(), Trouble> {
    print(out, "  (we send a question)\n")?;
    socket.write(QUESTION)?;
    Ok(())
}

fn tell(event: &Event<'_>, out: &mut impl Write) -> Result<(), Trouble> {
    let line = match event {
        Event::Connection => "connection".to_owned(),
        Event::Data(bytes) => format!("data: \"{}\"", String::from_utf8_lossy(bytes)),
        Event::Timeout => format!("timeout: no byte moved for {}", humantime::format_duration(IDLE)),
        Event::End => "end".to_owned(),
        Event::Error(failure) => format!("error: {failure}"),
        Event::Close(ending) => format!("close: {ending}"),
        _ => return Ok(()),
    };
    print(out, &format!("  {line}\n"))
}

/// As it happens: who watches shall see the pause before a timeout.
fn print(out: &mut impl Write, text: &str) -> Result<(), Trouble> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::Stdout)
}

/// The child process. Invariant: it is killed and reaped when this is dropped, on every path,
/// stopped or not.
struct Peer {
    child: Child,
    words: Receiver<Word>,
    is_ready: bool,
    is_struck: bool,
}

/// What is heard from the child's stdout.
enum Word {
    Ready,
    Gone,
}

impl Peer {
    fn start(part: Part, addr: SocketAddr, remote: Waker) -> Result<Self, Trouble> {
        let spawned = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .arg("peer")
                .arg(clap_name(part))
                .arg(addr.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        });
        let mut child = spawned.map_err(|source| Trouble::io("start the peer", source))?;
        let (sender, words) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || overhear(stdout, &sender, &remote));
        }
        Ok(Self { child, words, is_ready: false, is_struck: false })
    }

    /// Takes in what the child said. A death that was not our doing spoils the scene.
    fn listen(&mut self) -> Result<(), Trouble> {
        for word in self.words.try_iter() {
            match word {
                Word::Ready => self.is_ready = true,
                Word::Gone => {
                    let status = self.child.wait().map_err(|source| Trouble::io("wait for the peer", source))?;
                    if !self.is_struck && !status.success() {
                        return Err(Trouble::Scene("the peer of this scene failed; it said why on stderr"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Stops the child and waits until it stands.
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
        // SIGKILL needs no SIGCONT first. Both fail only if the child is gone and reaped, which is
        // what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part as the command line spells it.
fn clap_name(part: Part) -> String {
    clap::ValueEnum::to_possible_value(&part).map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Passes the child's lines on, and its going.
fn overhear(stdout: ChildStdout, words: &Sender<Word>, remote: &Waker) {
    let ready = BufReader::new(stdout).lines().map_while(Result::ok).filter(|line| line == READY);
    for word in ready.map(|_line| Word::Ready).chain([Word::Gone]) {
        if words.send(word).is_err() || remote.wake().is_err() {
            return;
        }
    }
}
