use std::net::IpAddr;

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
        ("", AddressError::NoPort),
        ("localhost", AddressError::NoPort),
        ("localhost:", AddressError::NoPort),
        ("::1", AddressError::NoPort),
        ("1:2::3:4", AddressError::NoPort),
        ("not-hex::80", AddressError::NoPort),
        ("http://10.0.0.7:80", AddressError::NoPort),
        ("http://localhost", AddressError::NoPort),
        ("localhost:http", AddressError::InvalidPort),
        ("localhost:65536", AddressError::InvalidPort),
        ("localhost:-1", AddressError::InvalidPort),
        (":80", AddressError::NoHost),
    ] {
        assert_eq!(Target::try_from(text), Err(Error::InvalidAddress(bad)), "{text}");
    }
    assert!(AddressError::NoPort.to_string().contains("or is a URL"), "a URL may have a port");
}

#[test]
fn a_pair_of_text_and_port_is_an_address_if_the_text_is_one() {
    let ip = IpAddr::from([10, 0, 0, 7]);
    let addr = SocketAddr::new(ip, 9);
    assert_eq!(Target::try_from(("10.0.0.7", 9)), Ok(Target::Addr(addr)));
    assert_eq!(Target::from((ip, 9)), Target::Addr(addr));
    assert_eq!(Target::from(addr), Target::Addr(addr));
    for ip in ["::1", "[::1]"] {
        assert_eq!(Target::try_from((ip, 9)).map(|target| target.to_string()), Ok("[::1]:9".to_owned()));
    }
    assert_eq!(Target::try_from(("host", 9)), Ok(name("host", 9)));
    assert_eq!(Target::try_from(("", 9)), Err(Error::InvalidAddress(AddressError::NoHost)));
}

#[test]
fn an_ipv6_address_has_its_interface_by_number_or_by_name() {
    let scoped =
        |index| Ok(Target::Addr(SocketAddrV6::new("fe80::1".parse().expect("an address"), 80, 0, index).into()));
    assert_eq!(Target::try_from("[fe80::1%7]:80"), scoped(7));
    assert_eq!(Target::try_from(("fe80::1%7", 80)), scoped(7));
    let Ok(index) = std::fs::read_to_string("/sys/class/net/lo/ifindex") else {
        println!("skipped: no interface named lo here");
        return;
    };
    let lo = index.trim().parse().expect("a number");
    assert_eq!(Target::try_from("[fe80::1%lo]:80"), scoped(lo));
    for host in ["fe80::1%lo", "[fe80::1%lo]"] {
        assert_eq!(Target::try_from((host, 80)), scoped(lo), "{host}");
    }
    let global = Target::try_from("[2001:db8::1%lo]:80").map(|target| target.to_string());
    assert_eq!(global, Ok(format!("[2001:db8::1%{lo}]:80")), "not only a link-local one");
}

#[test]
fn an_interface_that_does_not_exist_is_refused_at_once() {
    for host in ["fe80::1%no-such-if", "fe80::1%", "fe80::1%99999999999", "fe80::1%+1", "fe80::1%l\0o"] {
        for refused in [Target::try_from((host, 80)), Target::try_from(format!("[{host}]:80"))] {
            assert_eq!(refused, Err(Error::InvalidAddress(AddressError::NoInterface)), "{host:?}");
        }
    }
    assert_eq!(Target::try_from("host%lo:80"), Ok(name("host%lo", 80)), "a name is the resolver's");
}

#[test]
fn only_an_ipv6_address_can_be_in_brackets() {
    for host in ["[host]", "[]", "[10.0.0.7]", "[fe80::zz]", "[host%lo]"] {
        let refused = [Target::try_from((host, 80)), Target::try_from(format!("{host}:80"))];
        assert_eq!(refused, [(); 2].map(|()| Err(Error::InvalidAddress(AddressError::NotIpv6))), "{host}");
    }
    assert_eq!(Target::try_from("[::1]"), Err(Error::InvalidAddress(AddressError::NoPort)));
    for half in ["[::1:80", "::1]:80", "a]:80"] {
        Target::try_from(half).expect_err(half);
    }
}

#[test]
fn a_name_that_no_unix_domain_socket_can_have_is_refused_at_once() {
    let long = "x".repeat(108);
    for (path, why) in [
        ("", AddressError::NoPath),
        (&long, AddressError::InvalidPath),
        ("/tmp/a\0b", AddressError::InvalidPath),
        ("\0a", AddressError::InvalidPath),
    ] {
        let refused = [Target::try_from(format!("unix:{path}")), Target::try_from(UnixAddr::path(path))];
        assert_eq!(refused, [(); 2].map(|()| Err(Error::InvalidAddress(why))), "{path:?}");
    }
    assert_eq!(Target::try_from("unix:@"), Err(Error::InvalidAddress(AddressError::NoPath)));
    assert_eq!(Target::try_from(format!("unix:@{long}")), Err(Error::InvalidAddress(AddressError::InvalidPath)));
    let (longest, zero) = (UnixAddr::path("x".repeat(107)), UnixAddr::abstract_name("a\0b"));
    for good in [longest, zero] {
        assert_eq!(Target::try_from(good.clone()), Ok(Target::Unix(good)));
    }
}

#[test]
fn a_unix_domain_address_is_printed_as_the_text_that_names_it() {
    for addr in [UnixAddr::path("/a"), UnixAddr::path("a"), UnixAddr::path("./@a"), UnixAddr::abstract_name("a")] {
        assert_eq!(Target::try_from(addr.to_string()), Ok(Target::Unix(addr)));
    }
    assert_eq!(UnixAddr::path("@a").to_string(), "unix:./@a", "a file, and not an abstract name");
}

#[test]
fn only_an_address_needs_no_resolver() {
    let addr = SocketAddr::from(([127, 0, 0, 1], 9));
    assert_eq!(Target::from(addr).addr(), Some(addr));
    assert_eq!(name("localhost", 9).addr(), None);
}

#[test]
fn an_address_without_brackets_and_a_port_with_a_sign_are_no_targets() {
    let bad = [
        ("localhost:+80", AddressError::InvalidPort),
        ("127.0.0.1:+80", AddressError::InvalidPort),
        ("::4:4:+3461", AddressError::NoPort),
        ("::4:4:03461", AddressError::NoPort),
        ("1:2:3:4:5:6:7:8:80", AddressError::NoPort),
    ];
    for (text, why) in bad {
        assert_eq!(Target::try_from(text), Err(Error::InvalidAddress(why)), "{text:?}");
    }
}

#[test]
fn a_bound_ip_address_passes_through() {
    let addr = SocketAddr::from(([127, 0, 0, 1], 7000));
    let bound = BoundAddr::from(addr);
    assert_eq!((bound.ip(), bound.port()), (Some(addr), Some(7000)));
    assert!(bound == addr);
    assert_eq!(bound.to_string(), "127.0.0.1:7000");
    assert_eq!(Target::try_from(bound), Ok(Target::Addr(addr)));
    assert_eq!(bound.to_socket_addrs().expect("an address").collect::<Vec<_>>(), [addr]);
}

#[test]
fn a_bound_unix_domain_socket_has_no_address() {
    let bound = BoundAddr::Unix;
    assert_eq!((bound.ip(), bound.port()), (None, None));
    assert!(bound != SocketAddr::from(([127, 0, 0, 1], 7000)));
    assert_eq!(bound.to_string(), "a Unix domain socket");
    assert_eq!(Target::try_from(bound), Err(Error::InvalidAddress(AddressError::NoPath)));
    assert!(bound.to_socket_addrs().is_err());
}
