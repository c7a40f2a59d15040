//! Requests and answers of HTTP/1.1 (RFC 9112) as bytes in and bytes out: what servers on the
//! reactor finale share. No sockets and no clock.
//!
//! Invariant: bytes are judged in their order, and each decision depends only on the bytes before
//! it. So a request means the same however it was cut into pieces.
//!
//! ```
//! use finale_http::{Answer, Parser, Part};
//! let mut parser = Parser::default();
//! // A request in two pieces, and the begin of the next one.
//! parser.push(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Le");
//! assert_eq!(parser.next(), Ok(None));
//! parser.push(b"ngth: 5\r\n\r\nhelloGET / HT");
//! let Ok(Some(Part::Head(head))) = parser.next() else { panic!("the head is complete") };
//! let Ok(Some(Part::Body(body))) = parser.next() else { panic!("the body is complete") };
//! let mut answer = Answer::new(200).length(body.len() as u64).connection(&head, false).into_bytes();
//! answer.extend(body);
//! assert_eq!(answer, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
//! assert!(!parser.is_between_requests());
//! ```

mod answer;
mod body;
mod date;
mod error;
mod head;
mod parser;

pub use answer::{Answer, CONTINUE, LAST_CHUNK, chunk, reason};
pub use date::date;
pub use error::RequestError;
pub use head::{BodyLength, Head};
pub use parser::{Limits, Parser, Part};
