//! What was negotiated in a handshake, and what the peer's certificate says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use finale_tls::Handshake;
use finale_tls::rustls::{CipherSuite, ProtocolVersion};
use serde::Serialize;
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// How many names of a certificate a line has.
const NAMES: usize = 3;

/// What was negotiated. The names are stable: programs read them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Negotiated {
    version: String,
    cipher_suite: String,
    alpn: Option<String>,
    resumed: bool,
    /// Whether the certificate was checked.
    verified: bool,
    certificate: Option<Certificate>,
}

/// The peer's certificate, as far as it can be read.
#[derive(Debug, Clone, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    /// Names and addresses for which it is valid.
    names: Vec<String>,
    not_before: String,
    not_after: String,
    #[serde(skip)]
    expires: SystemTime,
}

impl Negotiated {
    pub(crate) fn of(handshake: Handshake<'_>, verified: bool) -> Self {
        let first = handshake.peer_certificates().and_then(<[_]>::first);
        Self {
            version: handshake.version().map_or_else(String::new, version),
            cipher_suite: handshake.cipher_suite().map_or_else(String::new, cipher_suite),
            alpn: handshake.alpn().map(|name| String::from_utf8_lossy(name).into_owned()),
            resumed: handshake.is_resumed(),
            verified,
            certificate: first.and_then(|certificate| Certificate::read(certificate)),
        }
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, now: SystemTime) -> fmt::Result {
        write!(f, "{}, {}", self.version, self.cipher_suite)?;
        if let Some(alpn) = &self.alpn {
            write!(f, ", ALPN {alpn}")?;
        }
        if self.resumed {
            f.write_str(", resumed")?;
        }
        match &self.certificate {
            Some(certificate) => certificate.print(f, now)?,
            None => f.write_str("; a certificate that can't be read")?,
        }
        f.write_str(if self.verified { "" } else { "; NOT VERIFIED" })
    }
}

/// One line.
impl fmt::Display for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, SystemTime::now())
    }
}

impl Certificate {
    fn read(der: &[u8]) -> Option<Self> {
        let tbs = X509::from_der(der).ok()?.tbs_certificate;
        let names = tbs.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
        let validity = &tbs.validity;
        let at = |time: &x509_cert::time::Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
        let date = |time| humantime::format_rfc3339_seconds(at(time)).to_string();
        Some(Self {
            subject: tbs.subject.to_string(),
            issuer: tbs.issuer.to_string(),
            names: names.iter().filter_map(name).collect(),
            not_before: date(&validity.not_before),
            not_after: date(&validity.not_after),
            expires: at(&validity.not_after),
        })
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, now: SystemTime) -> fmt::Result {
        let names = if self.names.is_empty() { std::slice::from_ref(&self.subject) } else { &self.names[..] };
        write!(f, "; certificate for {}", names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", "))?;
        if let Some(more) = names.len().checked_sub(NAMES).filter(|more| *more > 0) {
            write!(f, " and {more} more")?;
        }
        let date = self.not_after.split('T').next().unwrap_or_default();
        match self.expires.duration_since(now) {
            Ok(left) => write!(f, ", valid until {date} ({} left)", days(left)),
            Err(past) => write!(f, ", EXPIRED on {date} ({} ago)", days(past.duration())),
        }
    }
}

fn days(time: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match time.as_secs() / DAY {
        0 => format!("{} h", time.as_secs() / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// A name for which a certificate can be checked.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
            let v6 = <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::from(Ipv6Addr::from(octets)));
            v4.or(v6).ok().map(|addr| addr.to_string())
        }
        _ => None,
    }
}

fn version(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The name of the registry. rustls has the version in those of TLS 1.3, too.
fn cipher_suite(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        Certificate::read(signed.der()).expect("it is one")
    }

    fn line(certificate: Certificate, now: SystemTime) -> String {
        struct At(Negotiated, SystemTime);
        impl fmt::Display for At {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.print(f, self.1)
            }
        }
        let negotiated = Negotiated {
            version: "TLS 1.3".to_owned(),
            cipher_suite: cipher_suite(CipherSuite::TLS13_AES_128_GCM_SHA256),
            alpn: Some("h2".to_owned()),
            resumed: true,
            verified: false,
            certificate: Some(certificate),
        };
        At(negotiated, now).to_string()
    }

    #[test]
    fn a_line_has_what_was_negotiated_and_how_long_the_certificate_is_valid() {
        let expires = certificate(&["a.example"]).expires;
        let begin = "TLS 1.3, TLS_AES_128_GCM_SHA256, ALPN h2, resumed; certificate for a.example, ";
        for (now, end) in [
            (expires - 90 * DAY, "valid until 2026-04-01 (90 days left)"),
            (expires - DAY, "valid until 2026-04-01 (1 day left)"),
            (expires - DAY / 2, "valid until 2026-04-01 (12 h left)"),
            (expires + 2 * DAY, "EXPIRED on 2026-04-01 (2 days ago)"),
        ] {
            assert_eq!(line(certificate(&["a.example"]), now), format!("{begin}{end}; NOT VERIFIED"));
        }
    }

    #[test]
    fn names_are_those_that_are_checked_and_only_some_are_on_the_line() {
        let many = certificate(&["a.example", "10.0.0.1", "::1", "b.example", "c.example"]);
        assert_eq!(many.names, ["a.example", "10.0.0.1", "::1", "b.example", "c.example"]);
        assert!(
            line(many, SystemTime::UNIX_EPOCH).contains("certificate for a.example, 10.0.0.1, ::1 and 2 more, valid")
        );
        let none = certificate(&[]);
        assert!(line(none, SystemTime::UNIX_EPOCH).contains("certificate for CN=rcgen self signed cert, valid until"));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert!(Certificate::read(b"").is_none() && Certificate::read(&[0x30, 0x03, 2, 1, 0]).is_none());
    }
}
