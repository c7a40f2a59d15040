//! axum::serve with its graceful shutdown, and its default limit on a body, lowered.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

async fn hello(_body: Bytes) -> &'static str {
    "hello\n"
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    "slow\n"
}

async fn big() -> Vec<u8> {
    vec![b'x'; 16 * 1024 * 1024]
}

async fn stop() {
    if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        term.recv().await;
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let routes = Router::new().route("/", get(hello).put(hello)).route("/slow", get(slow)).route("/big", get(big));
    axum::serve(listener, routes.layer(DefaultBodyLimit::max(64 * 1024))).with_graceful_shutdown(stop()).await
}
