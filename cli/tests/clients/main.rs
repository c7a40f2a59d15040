//! `finale connect`, `finale bench`, `finale probe` and `finale lab`.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod connect;
mod interrupted;
mod lab;
mod probe;
mod terminal;
mod tls;
