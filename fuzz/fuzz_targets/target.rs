//! Arbitrary text as a target: never a panic, and accepted text has the right meaning.

#![no_main]

use std::net::SocketAddr;

use finale::{AddressError, Error, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let target = Target::try_from(text);
    assert_eq!(target, Target::try_from(text.to_owned()));
    match (&target, text.parse::<SocketAddr>()) {
        (Ok(Target::Addr(addr)), Ok(expected)) => assert_eq!(*addr, expected),
        (_, Ok(expected)) => panic!("{text:?} is {expected}, and was taken for {target:?}"),
        (Ok(Target::Name { host, port }), Err(_)) => {
            assert!(!host.is_empty() && text.starts_with(&**host), "{text:?} was taken for {target:?}");
            let (_, written) = text.rsplit_once(':').expect("a port follows a colon");
            assert_eq!(written.parse(), Ok(*port));
        }
        (Ok(Target::Addr(addr)), Err(_)) => {
            assert!(addr.is_ipv6() && text.contains('%'), "{text:?} was taken for {addr:?}");
        }
        (Ok(Target::Unix(_)), Err(_)) => assert!(text.starts_with("unix:"), "{text:?} was taken for {target:?}"),
        (Ok(other), Err(_)) => panic!("{text:?} was taken for {other:?}"),
        (Err(Error::InvalidAddress(AddressError::NotAnAddress)), Err(_)) => panic!("{text:?} is no listener's"),
        (Err(Error::InvalidAddress(_)), Err(_)) => {}
        (Err(error), Err(_)) => panic!("{text:?}: {error:?}"),
    }
    let Ok(target) = target else { return };
    let printed = target.to_string();
    assert_eq!(Target::try_from(printed.as_str()), Ok(target), "{text:?} prints as {printed:?}");
});
