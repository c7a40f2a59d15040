//! Records as text, one line each.

use std::fmt;

use super::{Call, KernelView, Record, What};
use crate::event::Bytes;

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.connection)?;
        if let Some(socket) = self.socket {
            write!(f, " {socket}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, peer, error: Some(error), .. } => {
                f.write_str(call.name())?;
                if let Some(peer) = peer {
                    write!(f, " {peer}")?;
                }
                write!(f, ": {error}")
            }
            Self::Call { call, peer: Some(peer), .. } => write!(f, "{} {peer}", call.name()),
            Self::Call { call, bytes, .. } => match call {
                Call::Recv if *bytes == 0 => f.write_str("recv 0: the peer's FIN"),
                Call::Recv | Call::Send => write!(f, "{} {}", call.name(), Bytes(*bytes)),
                Call::Shutdown => f.write_str("shutdown(SHUT_WR)"),
                Call::Reset => f.write_str("close with SO_LINGER 0"),
                Call::Lookup | Call::Connect | Call::Accept | Call::Close | Call::TakeError => f.write_str(call.name()),
            },
            Self::Step { from, input, to, events } => {
                write!(f, "{input}")?;
                if from != to {
                    write!(f, ": {from} -> {to}")?;
                }
                for (at, event) in events.iter().enumerate() {
                    let before = if at == 0 { ", event " } else { " " };
                    write!(f, "{before}{}", event.name())?;
                }
                Ok(())
            }
            Self::Kernel(KernelView { state, unread, unacked }) => {
                write!(f, "kernel: {state}")?;
                for (bytes, name) in [(unread, "unread"), (unacked, "unacked")] {
                    if *bytes > 0 {
                        write!(f, ", {bytes} {name}")?;
                    }
                }
                Ok(())
            }
            Self::Note(text) => f.write_str(text),
        }
    }
}
