//! `finale connect` and `finale bench`.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod connect;
mod interrupted;
mod terminal;
