use super::*;

#[test]
fn the_texts_of_each_c_library_have_their_cause() {
    let texts = [
        // glibc
        ("Name or service not known", LookupErrorKind::NotFound),
        ("Temporary failure in name resolution", LookupErrorKind::TryAgain),
        ("No address associated with hostname", LookupErrorKind::NoAddress),
        ("Non-recoverable failure in name resolution", LookupErrorKind::Failed),
        // musl
        ("Name does not resolve", LookupErrorKind::NotFound),
        ("Try again", LookupErrorKind::TryAgain),
        ("Name has no usable address", LookupErrorKind::NoAddress),
        ("Non-recoverable error", LookupErrorKind::Failed),
        // macOS
        ("nodename nor servname provided, or not known", LookupErrorKind::NotFound),
    ];
    for (text, kind) in texts {
        let error = io::Error::other(format!("failed to lookup address information: {text}"));
        assert_eq!(cause(&error), kind, "{text}");
    }
}
