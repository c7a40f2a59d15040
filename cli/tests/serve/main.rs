//! `finale serve`: its services, signals and restarts.

#[path = "../common/mod.rs"]
mod common;
mod restart;
mod services;
