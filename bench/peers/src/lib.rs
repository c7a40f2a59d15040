//! What the servers in Rust share: the command line and the listening socket.
//!
//! Invariant: nothing here runs once a connection is established, so it makes no server slower or
//! faster.

pub mod server;
