//! An embeddable TCP reactor that gets the *ending* of a connection right.

pub mod lifecycle;
pub mod net;

mod error;
mod event;
mod id;
mod options;
mod reactor;
mod socket;
mod socket_map;
mod table;
mod target;
mod wheel;

pub use error::{Attempt, BadAddress, BadOption, Cause, Error, Failure, LookupCause, OsError, Timer};
pub use event::{Ending, Event, First, How};
pub use id::{ListenerId, SocketId, TimerId};
pub use options::{Close, Connect, KeepAlive, Listen};
pub use reactor::{Listener, Reactor, Remote, SocketInfo, Sockets};
pub use socket::{Queue, Socket};
pub use socket_map::SocketMap;
pub use target::Target;
