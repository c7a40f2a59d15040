//! `finale serve --proxy-protocol`: the header that a balancer sends before a client's bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::common::patient;
use crate::harness::{LINE, Server};

const CLIENT: &str = "192.0.2.7:4000";

fn line() -> Vec<u8> {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n".to_vec()
}

/// Version 2, command PROXY, TCP over IPv4.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 7, 192, 0, 2, 1]);
    header.extend([4000_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat());
    header
}

fn start(args: &[&str]) -> Server {
    Server::start(env!("CARGO_BIN_EXE_finale"), &[&["-v", "--proxy-protocol"], args].concat())
}

#[track_caller]
fn connect(server: &Server) -> TcpStream {
    let client = patient(TcpStream::connect(server.addr).expect("it listens"));
    client.set_nodelay(true).expect("it can be set");
    client
}

#[track_caller]
fn expect_answer(mut client: TcpStream) {
    client.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
}

#[test]
fn the_client_is_known_by_the_header_of_either_version_however_it_is_cut() {
    let mut server = start(&[]);
    for header in [line(), binary()] {
        for piece in [1, 7, header.len()] {
            let mut client = connect(&server);
            header.chunks(piece).for_each(|piece| client.write_all(piece).expect("connected"));
            client.write_all(b"question").expect("connected");
            expect_answer(client);
            let line = server.line();
            assert!(line.contains(CLIENT) && line.contains("clean"), "{line}");
        }
    }
}

/// `--after 5` counts the client's bytes.
#[test]
fn the_header_is_no_part_of_the_request() {
    let server = start(&["--after", "5"]);
    for header in [line(), binary()] {
        let mut client = connect(&server);
        client.write_all(&[&header, &b"hell"[..]].concat()).expect("connected");
        client.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(client.read(&mut [0]).expect("no reset"), 0, "no answer");
        let mut client = connect(&server);
        client.write_all(&[&header, &b"hello"[..]].concat()).expect("connected");
        expect_answer(client);
    }
    let server = start(&["--after", "0"]);
    let mut client = connect(&server);
    client.write_all(&line()).expect("connected");
    expect_answer(client);
}

#[test]
fn a_connection_without_a_header_is_reset_and_the_warning_names_it() {
    let mut server = start(&[]);
    for (bytes, finishes) in [(&b"GET / HTTP/1.1\r\n"[..], false), (b"PROXY TCP4 192.0", true)] {
        let mut client = connect(&server);
        let addr = client.local_addr().expect("connected").to_string();
        client.write_all(bytes).expect("connected");
        if finishes {
            client.shutdown(Shutdown::Write).expect("connected");
        }
        let error = client.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let line = server.line_with(&addr);
        assert!(line.contains("PROXY header") || line.contains("destroyed"), "{line}");
    }
}

#[test]
fn a_header_that_never_comes_is_a_warning_and_a_reset_too() {
    let mut server = start(&["--idle-timeout", "100ms"]);
    let mut client = connect(&server);
    let addr = client.local_addr().expect("connected").to_string();
    client.write_all(b"PROXY TCP4 ").expect("connected");
    assert_eq!(client.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    let line = server.line_with(&addr);
    assert!(line.contains("WARN") && line.contains("without a PROXY header"), "{line}");
    let line = server.line_with(&addr);
    assert!(line.contains("no PROXY header"), "{line}");
}

/// A balancer asks in this way whether the port is open.
#[test]
fn a_client_that_finishes_without_a_byte_gets_a_fin_and_no_warning() {
    let mut server = start(&[]);
    let mut client = connect(&server);
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.read(&mut [0]).expect("no reset"), 0);
    let line = server.line();
    assert!(line.contains("clean") && !line.contains("WARN"), "{line}");
}
