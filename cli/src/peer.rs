//! `finale peer`: the other program in `finale lesson crash`, played by a child process.
//!
//! It uses blocking std sockets, not finale: what is shown must come from the kernel alone.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use clap::ValueEnum;

use crate::trouble::Trouble;

/// What the peer does once it has said [`Part::words`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Ends.
    Ends,
    /// Waits for its fate.
    Waits,
    /// Lets a question arrive, does not read it, and waits for its fate.
    LeavesUnread,
}

/// The line on stdout that says: I am ready for my fate.
pub(crate) const READY: &str = "ready";

impl Part {
    /// The words; all parts but the first are interrupted before they can say the rest.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Ends => "one and two, that is all",
            Self::Waits | Self::LeavesUnread => "one and",
        }
    }
}

/// Plays the part.
pub(crate) fn run(part: Part, addr: SocketAddr) -> Result<(), Trouble> {
    // A stopped process could not notice that the lesson was interrupted; its kernel does.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| Trouble::io("bind the peer's life to the lesson's", errno.into()))?;
    let mut stream = TcpStream::connect(addr).map_err(|source| Trouble::io("connect the peer", source))?;
    play(part, &mut stream).map_err(|source| Trouble::io("play the peer", source))
}

fn play(part: Part, stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(part.words().as_bytes())?;
    match part {
        Part::Ends => return Ok(()),
        Part::Waits => {}
        Part::LeavesUnread => {
            stream.peek(&mut [0])?;
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    // Returns only if the lesson went away without a word.
    io::stdin().lock().read(&mut [0]).map(|_count| ())
}
