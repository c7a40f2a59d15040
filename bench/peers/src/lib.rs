//! What the servers in Rust share: the command line and the listening socket.
//!
//! Invariant: nothing here runs once a connection is established, so no server is slower or faster
//! for it.

pub mod server;
