//! hyper as its guide shows it: one task per connection, no timer, stops at once.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if Limited::new(request.into_body(), 64 * 1024).collect().await.is_err() {
        let mut refused = Response::new(Full::from("too large\n"));
        *refused.status_mut() = hyper::StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(refused);
    }
    let body = match path.as_str() {
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Bytes::from("slow\n")
        }
        "/big" => Bytes::from(vec![b'x'; 16 * 1024 * 1024]),
        _ => Bytes::from("hello\n"),
    };
    Ok(Response::new(Full::new(body)))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            let io = hyper_util::rt::TokioIo::new(client);
            let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            if let Err(error) = served {
                eprintln!("{error}");
            }
        });
    }
}
