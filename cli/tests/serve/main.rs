//! `finale serve`: its services, signals and restarts.

#[path = "../common/mod.rs"]
mod common;
mod harness;
mod log;
mod manager;
mod proxy_protocol;
mod restart;
mod services;
mod socket_files;
mod stopping;
mod terminal;
mod tls;
