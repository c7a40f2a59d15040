//! The server name that a client has asked for (RFC 6066 section 3).
//!
//! rustls gives it to the code that chooses a certificate, and has no call for it afterwards in the
//! interface that this crate uses. That code is called in the same thread, during the call that
//! processes the client's first message.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    static LAST: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Chooses the certificate that `0` chooses, and notes the name.
#[derive(Debug)]
pub(crate) struct NotesName(pub(crate) Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for NotesName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        LAST.set(hello.server_name().map(Box::from));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// The name of the message that was processed last, if it had one.
pub(crate) fn take() -> Option<Box<str>> {
    LAST.take()
}
