//! The examples: what each does when it runs, and its protocol against every ending at every byte in
//! the simulated network and with real clients. Also the pages that show them.

#[path = "../../examples/proxy/balance.rs"]
mod balance;
#[path = "../../examples/beside_tokio/bridge.rs"]
mod bridge;
#[path = "../../examples/explain/explain.rs"]
#[allow(dead_code, reason = "the tests need a part of it")]
mod explain;
#[path = "../../examples/proxy/header.rs"]
mod header;
#[path = "../../examples/proxy/health.rs"]
mod health;
#[path = "../../examples/lines/server.rs"]
mod lines;
#[path = "../../examples/common/log.rs"]
#[allow(dead_code, reason = "the tests need a part of it")]
mod log;
#[path = "../../examples/pool/client.rs"]
mod pooled;
#[path = "../../examples/stop/server.rs"]
#[allow(dead_code, reason = "the tests need a part of it")]
mod primes;
#[path = "../../examples/request/client.rs"]
mod retries;
#[path = "../../examples/chat/room.rs"]
mod room;
#[path = "../../examples/http/server.rs"]
mod server;
#[path = "../../examples/socks5/proxy.rs"]
mod tunnels;

mod book;
mod chat;
mod clients;
mod http;
mod http_requests;
mod operations;
mod pages;
mod program;
mod programs;
mod proxy;
mod random_proxy;
mod servers;
mod socks5;
mod tokio_programs;
