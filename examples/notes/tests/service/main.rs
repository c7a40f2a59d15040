//! The service as its clients and its operator see it. All of it runs on real sockets and files.

mod api;
mod durable;
mod events;
mod harness;
mod limits;
mod probed;
mod restart;
mod tls;
