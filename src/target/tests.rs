use super::*;

fn name(host: &str, port: u16) -> Target {
    Target::Name { host: host.into(), port }
}

#[test]
fn a_text_is_an_address_or_a_name_with_its_port() {
    let address = |text: &str| Target::Addr(text.parse().expect("an address"));
    for (text, target) in [
        ("127.0.0.1:80", address("127.0.0.1:80")),
        ("[::1]:0", address("[::1]:0")),
        ("example.org:65535", name("example.org", 65535)),
        ("-:1", name("-", 1)),
    ] {
        assert_eq!(Target::try_from(text), Ok(target.clone()), "{text}");
        assert_eq!(Target::try_from(text.to_owned()), Ok(target.clone()));
        assert_eq!(Target::try_from(&text.to_owned()), Ok(target.clone()));
        assert_eq!(target.to_string(), text, "and is written as it was read");
    }
}

#[test]
fn a_text_that_is_no_target_says_what_is_missing() {
    for (text, bad) in [
        ("", BadAddress::NoPort),
        ("localhost", BadAddress::NoPort),
        ("localhost:", BadAddress::NoPort),
        ("::1", BadAddress::NoPort),
        ("1:2::3:4", BadAddress::NoPort),
        ("not-hex::80", BadAddress::NoPort),
        ("localhost:http", BadAddress::BadPort),
        ("localhost:65536", BadAddress::BadPort),
        ("localhost:-1", BadAddress::BadPort),
        (":80", BadAddress::NoHost),
    ] {
        assert_eq!(Target::try_from(text), Err(Error::BadAddress(bad)), "{text}");
    }
}

#[test]
fn a_pair_of_text_and_port_is_an_address_if_the_text_is_one() {
    let ip = IpAddr::from([10, 0, 0, 7]);
    let addr = SocketAddr::new(ip, 9);
    assert_eq!(Target::from(("10.0.0.7", 9)), Target::Addr(addr));
    assert_eq!(Target::from((ip, 9)), Target::Addr(addr));
    assert_eq!(Target::from(addr), Target::Addr(addr));
    assert_eq!(Target::from(("::1", 9)).to_string(), "[::1]:9");
    assert_eq!(Target::from(("host", 9)), name("host", 9));
}

#[test]
fn only_an_address_needs_no_resolver() {
    let addr = SocketAddr::from(([127, 0, 0, 1], 9));
    assert_eq!(Target::from(addr).addr(), Ok(addr));
    assert_eq!(name("localhost", 9).addr(), Err(Error::BadAddress(BadAddress::NotAnIp)));
}

#[test]
fn an_address_without_brackets_and_a_port_with_a_sign_are_no_targets() {
    let bad = [
        ("localhost:+80", BadAddress::BadPort),
        ("127.0.0.1:+80", BadAddress::BadPort),
        ("::4:4:+3461", BadAddress::NoPort),
        ("::4:4:03461", BadAddress::NoPort),
        ("1:2:3:4:5:6:7:8:80", BadAddress::NoPort),
    ];
    for (text, why) in bad {
        assert_eq!(Target::try_from(text), Err(Error::BadAddress(why)), "{text:?}");
    }
}
