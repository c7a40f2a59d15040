//! `finale connect`, `finale bench` and `finale lab`.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod connect;
mod interrupted;
mod lab;
mod terminal;
