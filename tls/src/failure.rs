//! Why a TLS stream failed, with a reason in words that help.
//!
//! Invariant: a stream without the peer's close_notify is never complete (RFC 8446 section 6.1).

use std::fmt;

use finale::{ConnectionError, ConnectionErrorKind, LayerErrorKind, OsError};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a TLS stream failed: [`TlsSocket::failure`](crate::TlsSocket::failure), in
/// [`Event::Error`](finale::Event::Error) and [`Event::Close`](finale::Event::Close). The
/// [`ConnectionError`] of these events says the same in words.
///
/// ```
/// use finale_tls::{TlsFailure, TlsSocket};
/// fn was_cut(socket: &TlsSocket<'_>) -> bool {
///     matches!(socket.failure(), Some(TlsFailure::Truncated { .. }))
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The stream was not complete: after the handshake the connection ended without close_notify.
    Truncated {
        /// Bytes of plaintext that had arrived.
        after_bytes: u64,
        /// Whether a record was incomplete.
        in_record: bool,
        /// `None` for a FIN, otherwise the failure of the connection, such as a reset.
        cause: Option<ConnectionError>,
    },
    /// The connection ended in the handshake.
    Interrupted {
        /// `None` for a FIN, otherwise the failure of the connection, such as a reset.
        cause: Option<ConnectionError>,
    },
    /// The handshake was not done within [`Tls::set_handshake_timeout`](crate::Tls::set_handshake_timeout).
    HandshakeTimeout,
    /// The peer sent this alert (RFC 8446 section 6.2).
    PeerAlert {
        /// Which one.
        description: AlertDescription,
        /// Whether it came before the handshake was done.
        in_handshake: bool,
    },
    /// We can't continue, and have sent an alert with the reason.
    Local {
        /// What rustls found.
        error: Error,
        /// Whether that was before the handshake was done.
        in_handshake: bool,
    },
    /// The listener was stopped, and the handshake was not done within the grace.
    Stopped,
    /// The connection failed before its handshake, after the peer's close_notify, or by a limit.
    Connection(ConnectionError),
    /// The peer began a record and did not complete it within 60 s.
    SlowRecord,
    /// The peer sent nothing but empty records, key updates or other messages without data, or a
    /// message that had to be answered while our queue was full, as an attempt to renegotiate.
    Flood,
}

impl TlsFailure {
    /// From an error of rustls.
    pub(crate) fn of(error: Error, in_handshake: bool) -> Self {
        match error {
            Error::AlertReceived(description) => Self::PeerAlert { description, in_handshake },
            error => Self::Local { error, in_handshake },
        }
    }

    /// Whether the socket is destroyed with it: this peer gets no more time.
    pub(crate) const fn destroys(&self) -> bool {
        matches!(self, Self::HandshakeTimeout | Self::SlowRecord | Self::Flood)
    }

    /// The same as an error of a connection.
    pub(crate) fn to_error(&self) -> ConnectionError {
        let (kind, detail) = match self {
            Self::Connection(error) => return error.clone(),
            Self::Truncated { after_bytes, in_record, cause } => {
                let place = if *in_record { ", in the middle of a record" } else { "" };
                let how = how(cause.as_ref());
                (LayerErrorKind::Truncated, format!("{how} without close_notify, after {after_bytes} bytes{place}"))
            }
            Self::Interrupted { cause } => {
                (LayerErrorKind::Handshake, format!("{} before it was done", how(cause.as_ref())))
            }
            Self::HandshakeTimeout => (LayerErrorKind::HandshakeTimeout, "the peer was silent or slow".to_owned()),
            Self::Stopped => (LayerErrorKind::Handshake, "the listener was stopped before it was done".to_owned()),
            Self::PeerAlert { description, in_handshake } => {
                (kind(*in_handshake), format!("the peer sent the alert {}", alert(*description)))
            }
            Self::Local { error, in_handshake } => (kind(*in_handshake), explain(error)),
            Self::SlowRecord => (LayerErrorKind::Protocol, "a record was not complete within 60 s".to_owned()),
            Self::Flood => {
                let what =
                    "too many records in a row without data, or one that had to be answered while the queue was full";
                (LayerErrorKind::Protocol, what.to_owned())
            }
        };
        let mut error = ConnectionError::of_layer(kind, detail);
        error.os = self.os();
        error
    }

    fn os(&self) -> Option<OsError> {
        match self {
            Self::Truncated { cause, .. } | Self::Interrupted { cause } => cause.as_ref().and_then(|cause| cause.os),
            Self::Connection(error) => error.os,
            Self::HandshakeTimeout
            | Self::Stopped
            | Self::PeerAlert { .. }
            | Self::Local { .. }
            | Self::SlowRecord
            | Self::Flood => None,
        }
    }
}

/// The failure in words, as [`ConnectionError`] has them.
impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_error().fmt(f)
    }
}

const fn kind(in_handshake: bool) -> LayerErrorKind {
    if in_handshake { LayerErrorKind::Handshake } else { LayerErrorKind::Protocol }
}

fn how(cause: Option<&ConnectionError>) -> String {
    match cause {
        None => "a FIN of the peer".to_owned(),
        Some(error) if error.kind == ConnectionErrorKind::Reset => "a reset by the peer".to_owned(),
        Some(error) => format!("a failure of the connection ({error})"),
    }
}

/// The name of an alert in the RFC, and what to do about it.
fn alert(description: AlertDescription) -> String {
    let (name, advice) = match description {
        AlertDescription::HandshakeFailure => ("handshake_failure", "we have no cipher suite, group or key in common"),
        AlertDescription::BadCertificate => ("bad_certificate", "it does not accept our certificate"),
        AlertDescription::CertificateExpired => ("certificate_expired", "our certificate has expired: renew it"),
        AlertDescription::CertificateUnknown => ("certificate_unknown", "it does not accept our certificate"),
        AlertDescription::UnknownCA => ("unknown_ca", "it does not trust the issuer of our certificate"),
        AlertDescription::CertificateRequired => ("certificate_required", "it wants a certificate of ours"),
        AlertDescription::ProtocolVersion => ("protocol_version", "we have no version of TLS in common"),
        AlertDescription::NoApplicationProtocol => {
            ("no_application_protocol", "it knows none of the protocols that we offer (ALPN)")
        }
        AlertDescription::UnrecognisedName => ("unrecognized_name", "it has no certificate for this server name"),
        AlertDescription::UserCanceled => ("user_canceled", "it gave up"),
        AlertDescription::InternalError => ("internal_error", "it failed by itself"),
        AlertDescription::DecryptError => ("decrypt_error", "it could not verify what we signed"),
        AlertDescription::BadRecordMac => ("bad_record_mac", "what arrived there was changed on the way"),
        AlertDescription::UnexpectedMessage => ("unexpected_message", "it did not expect what we sent"),
        other => return format!("{other:?}"),
    };
    format!("{name}: {advice}")
}

/// The words of rustls, and what to do about them where they don't say it.
fn explain(error: &Error) -> String {
    let advice = match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the peer's certificate has expired: it must be renewed there, or our clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the peer's certificate is not valid yet: our clock or the peer's is wrong"
            }
            CertificateError::UnknownIssuer => {
                "the issuer of the peer's certificate is not among the roots that we trust"
            }
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                "a signature of the peer is not of the kind of its key; probably the issuer of its certificate has the \
                 name of a root that we trust, and another key"
            }
            CertificateError::BadSignature => {
                "the issuer of the peer's certificate has the name of a root that we trust, and another key"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the peer's certificate is for another name than the one that we connect to"
            }
            // rustls has no variant for it.
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the peer's certificate is that of an issuer (CA:TRUE, as openssl req -x509 makes them): the peer \
                 needs one of its own (-addext basicConstraints=critical,CA:FALSE)"
            }
            _ => return format!("the peer's certificate is not valid: {}", words(error)),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the peer does not speak TLS here"
        }
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon) => {
            "we have no cipher suite or group in common with the peer"
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => "we have no version of TLS in common with the peer",
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => "the peer's handshake is too long",
        Error::NoApplicationProtocol => "we have no application protocol (ALPN) in common with the peer",
        Error::DecryptError => "a record was changed on the way, or is not the peer's (bad_record_mac)",
        _ => return words(error),
    };
    format!("{advice} ({})", words(error))
}

/// What rustls says, without the fields that some errors have: they are for programs.
fn words(error: &impl fmt::Display) -> String {
    let mut words = error.to_string();
    words.truncate(words.find(" {").unwrap_or(words.len()));
    words
}

/// Why [`Tls::connect`](crate::Tls::connect) could not begin.
///
/// ```
/// use finale::{ConnectOptions, Reactor};
/// use finale_tls::{ConnectError, Tls};
/// let (mut reactor, config) = (Reactor::new()?, finale_tls::trust_any_server());
/// let name = "localhost".try_into()?;
/// let begun = Tls::new().connect(&mut reactor.context(), "no port", ConnectOptions::default(), &config, name);
/// assert!(matches!(begun, Err(ConnectError::Socket(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectError {
    /// The address or an option can't be used.
    Socket(finale::Error),
    /// No connection can be made with this configuration.
    Config(Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Config(error) => write!(f, "the TLS configuration can't be used: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(error) => Some(error),
            Self::Config(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error};

    use super::explain;

    #[test]
    fn the_fields_of_an_error_are_not_printed() {
        let (signature_algorithm_id, public_key_algorithm_id) = (vec![6, 8], vec![6, 9]);
        let known = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: signature_algorithm_id.clone(),
            public_key_algorithm_id,
        };
        let supported_algorithms = Vec::new();
        let other =
            CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, supported_algorithms };
        for (error, begin) in [(known, "a signature of the peer"), (other, "the peer's certificate is not valid: Uns")]
        {
            let text = explain(&Error::InvalidCertificate(error));
            assert!(text.starts_with(begin) && !text.contains(['{', '[']), "{text}");
        }
    }
}
