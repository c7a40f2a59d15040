use super::*;

#[test]
fn a_process_that_sigpipe_would_end_is_recognized() {
    let status = |blocked, ignored, caught| {
        format!("Threads:\t1\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\nCapInh:\t00\n")
    };
    let (none, pipe, others) = ("0000000000000000", "0000000000001000", "ffffffffffffefff");
    assert!(!survives_sigpipe(&status(none, none, none)));
    assert!(!survives_sigpipe(&status(others, others, others)));
    assert!(!survives_sigpipe(&status(pipe, none, none)), "it would wait until it is unblocked");
    assert!(survives_sigpipe(&status(none, pipe, none)));
    assert!(survives_sigpipe(&status(none, none, pipe)));
    assert!(!survives_sigpipe(""), "without /proc nothing is known");
    assert!(is_safe_from_sigpipe(), "as in each program whose main is in Rust");
}

#[test]
fn a_pipe_takes_what_has_arrived_and_gives_it_to_another_socket() {
    use std::io::{Read as _, Write as _};
    let pair = || std::os::unix::net::UnixStream::pair().expect("descriptors");
    let ((mut from, source), (sink, mut to)) = (pair(), pair());
    source.set_nonblocking(true).expect("open");
    let (mut pipes, mut pipe) = (Pipes::default(), None);
    assert_eq!(pipes.fill(&source, &mut pipe, 100).expect("not an error"), 0, "nothing has arrived");
    from.write_all(b"some bytes").expect("there is room");
    assert_eq!(pipes.fill(&source, &mut pipe, 100).expect("they have arrived"), 10);
    let mut pipe = pipe.expect("it was opened");
    assert_eq!(empty(&mut pipe, &sink, 4, false).expect("there is room"), 4);
    assert_eq!((pipe.len(), pipe.read_all().expect("the rest")), (6, b" bytes".to_vec()));
    let mut got = [0; 4];
    to.read_exact(&mut got).expect("sent");
    assert_eq!(&got, b"some");
    drop(from);
    assert_eq!(pipes.fill(&source, &mut Some(pipe), 100).expect("not an error"), 0, "the end");
}

#[test]
fn a_source_that_refuses_has_not_failed() {
    let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("memory");
    let (mut pipes, mut pipe) = (Pipes::default(), None);
    assert_eq!(pipes.fill(&unconnected, &mut pipe, 100).expect("ENOTCONN is no error"), 0);
    let directory = std::fs::File::open("/").expect("Linux has it");
    assert_eq!(pipes.fill(&directory, &mut pipe, 100).expect("EINVAL is no error"), 0);
    assert!(pipe.is_some_and(|pipe| pipe.is_empty()));
}

#[test]
fn a_sink_without_room_would_block_and_the_pipe_keeps_its_bytes() {
    use std::io::Write as _;
    let pair = || std::os::unix::net::UnixStream::pair().expect("descriptors");
    let ((mut from, source), (mut sink, _to)) = (pair(), pair());
    sink.set_nonblocking(true).expect("open");
    from.write_all(b"some bytes").expect("there is room");
    let (mut pipes, mut pipe) = (Pipes::default(), None);
    assert_eq!(pipes.fill(&source, &mut pipe, 100).expect("they have arrived"), 10);
    while sink.write(&[0; 4096]).is_ok() {}
    let mut pipe = pipe.expect("it was opened");
    let refused = empty(&mut pipe, &sink, 10, false).map_err(|error| error.kind());
    assert_eq!((refused, pipe.len()), (Err(io::ErrorKind::WouldBlock), 10));
}

#[test]
fn no_more_pipes_are_opened_than_a_reactor_may_have() {
    // Other tests have pipes, too.
    let mut pipes = Pipes { most_open: Some(usize::MAX), ..Pipes::default() };
    let open: Vec<KernelPipe> = std::iter::from_fn(|| pipes.open()).collect();
    assert_eq!(open.len(), MOST);
    drop(open);
    assert!(pipes.open().is_some());
    pipes.most_open = Some(0);
    assert!(pipes.open().is_none());
    let mut pipes = Pipes::default();
    drop(pipes.open());
    assert_eq!(pipes.most_open, Some(most_open(getrlimit(Resource::Nofile).current)), "it was checked");
}

#[test]
fn a_process_with_few_descriptors_has_few_pipes() {
    let expected = [(Some(20), 0), (Some(64), 2), (Some(1024), 32), (None, usize::MAX)];
    expected.iter().for_each(|&(limit, pipes)| assert_eq!(most_open(limit), pipes, "{limit:?}"));
}
