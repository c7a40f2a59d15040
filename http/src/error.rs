//! Why a request is refused.

use std::fmt;

/// Why a request is refused, after which its connection ends: where the next one begins is not
/// known.
///
/// ```
/// let mut parser = finale_http::Parser::default();
/// parser.push(b"GET / HTTP/1.1\r\n\r\n");
/// let error = parser.next().unwrap_err();
/// assert_eq!((error, error.status()), (finale_http::RequestError::Syntax, 400));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestError {
    /// It is not HTTP, or two readers could understand it differently.
    Syntax,
    /// Its version is not 1.0 or 1.1.
    Version,
    /// Its first line is too long.
    TargetTooLong,
    /// Its head or its trailers are too long.
    HeadTooLong,
    /// Its body is longer than the limit.
    BodyTooLong,
    /// Its body has an encoding that is not known here.
    Encoding,
}

impl RequestError {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Syntax => 400,
            Self::BodyTooLong => 413,
            Self::TargetTooLong => 414,
            Self::HeadTooLong => 431,
            Self::Encoding => 501,
            Self::Version => 505,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "this is not HTTP/1.1, or could be read in two ways",
            Self::BodyTooLong => "the body is too long",
            Self::TargetTooLong => "the first line is too long",
            Self::HeadTooLong => "the head is too long",
            Self::Encoding => "the only known transfer encoding is chunked",
            Self::Version => "the known versions are HTTP/1.0 and HTTP/1.1",
        })
    }
}

impl std::error::Error for RequestError {}

impl From<httparse::Error> for RequestError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::HeadTooLong,
            httparse::Error::Version => Self::Version,
            _ => Self::Syntax,
        }
    }
}
