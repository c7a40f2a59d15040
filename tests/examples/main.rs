//! The protocols of the examples, against every ending at every byte in the simulated network, and with real clients.

#[path = "../../examples/proxy/balance.rs"]
mod balance;
#[path = "../../examples/http/request.rs"]
mod request;
#[path = "../../examples/chat/room.rs"]
mod room;
#[path = "../../examples/http/server.rs"]
mod server;
#[path = "../../examples/tls/session.rs"]
#[allow(dead_code, reason = "the tests drive a part of it")]
mod session;

mod chat;
mod http;
mod program;
mod programs;
mod random_proxy;
mod tls;
