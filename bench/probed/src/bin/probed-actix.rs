//! actix-web with its defaults: 5 s for a request's head and between requests, and two workers.

use std::time::Duration;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpServer};

async fn hello(_body: Bytes) -> &'static str {
    "hello\n"
}

async fn slow() -> &'static str {
    actix_web::rt::time::sleep(Duration::from_millis(1_500)).await;
    "slow\n"
}

async fn big() -> Vec<u8> {
    vec![b'x'; 16 * 1024 * 1024]
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let app = || {
        App::new()
            .app_data(web::PayloadConfig::new(64 * 1024))
            .route("/", web::get().to(hello))
            .route("/", web::put().to(hello))
            .route("/slow", web::get().to(slow))
            .route("/big", web::get().to(big))
    };
    HttpServer::new(app).workers(2).bind(("127.0.0.1", port))?.run().await
}
