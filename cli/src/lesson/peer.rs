//! `finale peer`: the other program in `finale lesson crash`, a child process.
//!
//! It uses blocking sockets of the standard library and not finale: what the lesson shows must come
//! from the kernel.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use clap::ValueEnum;

use crate::errors::Error;

/// The other program in `lesson crash`
#[derive(Debug, clap::Args)]
pub(crate) struct PeerOptions {
    /// What to do
    #[arg(value_enum)]
    part: Part,
    /// The address of the lesson
    addr: SocketAddr,
}

/// What the peer does after it has sent [`Part::words`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// End
    Ends,
    /// Wait until the lesson acts
    Waits,
    /// Let a question arrive, leave it unread, and wait until the lesson acts
    LeavesUnread,
}

/// The line on stdout when the peer has reached its waiting point.
pub(super) const READY: &str = "ready";

impl Part {
    /// What it sends. Except for the first, each is interrupted before it can send the rest.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Ends => "one and two, that is all",
            Self::Waits | Self::LeavesUnread => "one and",
        }
    }
}

/// Plays the part.
pub(crate) fn run(options: &PeerOptions) -> Result<(), Error> {
    let PeerOptions { part, addr } = *options;
    // A stopped process can't notice the end of the lesson. The kernel can.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| Error::io("end the peer together with the lesson", errno.into()))?;
    let mut stream = TcpStream::connect(addr).map_err(|source| Error::io("connect to the lesson", source))?;
    play(part, &mut stream).map_err(|source| Error::io("talk to the lesson", source))
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
    // Returns only if the lesson has ended early.
    io::stdin().lock().read(&mut [0]).map(|_count| ())
}
