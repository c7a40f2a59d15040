//! TLS on several event loops: servers with one protocol, a load that compares what they cost, and
//! peers that end a TLS stream in every way, for programs that report how it ended.

pub mod config;
pub mod cost;
pub mod endings;
mod prose;
pub mod server;
pub mod service;
