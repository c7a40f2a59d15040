//! What the servers and the load have in common: the answer's bytes, the command line, and the listening socket.
//!
//! Invariant: nothing here runs once a connection is there, so no server is slower or faster for it.

pub mod answer;
pub mod load;
pub mod server;
