//! Servers that lose answers.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use finale_probe::Verdict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::correct::{ANSWER, linger, read_head};
use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "ends-at-fin",
        about: "takes the client's FIN for its departure, and drops the answer that it works on",
        found_by: &[("half-close", Verdict::Fail)],
        run: |listener| each(&listener, |client| ends_at_fin(client, Duration::from_millis(200))),
        probed: |options| options.expect_half_close = true,
    },
    Server {
        name: "policy-ends-at-fin",
        about: "the same as a stated policy: it never answers a client that has ended",
        found_by: &[("half-close", Verdict::Warn)],
        // Longer: on a busy machine a FIN that follows 1 ms later can take 20 ms.
        run: |listener| each(&listener, |client| ends_at_fin(client, Duration::from_millis(250))),
        probed: |_| {},
    },
    Server {
        name: "races-with-fin",
        about: "the same, but its answer usually wins against a FIN that comes 1 ms later",
        found_by: &[("half-close", Verdict::Fail)],
        run: |listener| each(&listener, |client| ends_at_fin(client, Duration::from_micros(300))),
        probed: |_| {},
    },
];

/// Works for a while, and looks meanwhile whether the client has ended.
fn ends_at_fin(mut client: TcpStream, work: Duration) {
    if read_head(&mut client).is_none() {
        return;
    }
    let work = Timespec::try_from(work).expect("it is short");
    let mut looked = [PollFd::new(&client, PollFlags::RDHUP)];
    if poll(&mut looked, Some(&work)).is_ok_and(|gone| gone > 0) {
        return;
    }
    let _ = client.write_all(ANSWER);
    linger(client);
}
