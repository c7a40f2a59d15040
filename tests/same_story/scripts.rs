//! The scripts with a name: every kind of ending.

use crate::script::Opt::*;
use crate::script::Role::*;
use crate::script::Step::*;
use crate::script::{Opt, Role, Script, Step};

const MIB: usize = 1 << 20;

pub(crate) fn all() -> Vec<Script> {
    let all = [orderly(), half_closed(), early(), resets(), destroyed(), paused(), opening(), large(), timed()];
    all.into_iter().flatten().collect()
}

fn script(name: &str, role: Role, options: &[Opt], steps: &[Step]) -> Script {
    Script { name: name.to_owned(), role, options: options.to_vec(), steps: steps.to_vec(), much: false }
}

fn orderly() -> Vec<Script> {
    vec![
        script("the peer ends first", Serves, &[], &[PeerReads, Settle, PeerFinish, Settle, End, Settle]),
        script("we end first", Serves, &[], &[PeerReads, Settle, End, Settle, PeerFinish, Settle]),
        script("both end between two looks", Serves, &[], &[PeerReads, Settle, PeerFinish, End, Settle]),
        script(
            "a request and an answer",
            Serves,
            &[],
            &[PeerReads, PeerSend(100), Settle, Write(200), Settle, PeerFinish, Settle, End, Settle],
        ),
        script("data and FIN together", Serves, &[], &[PeerSend(10), PeerFinish, Settle, PeerReads, End, Settle]),
        script("data and FIN before we look at all", Serves, &[], &[PeerSend(9), PeerFinish, Settle, End, Settle]),
        script(
            "the peer closes, everything read",
            Serves,
            &[],
            &[Settle, PeerSend(10), PeerClose, Settle, End, Settle],
        ),
        script(
            "the peer closes, then we write",
            Serves,
            &[],
            &[Settle, PeerClose, Settle, Write(5), Settle, Write(5), Settle],
        ),
        script(
            "the peer closes, then we write and end",
            Serves,
            &[],
            &[Settle, PeerClose, Settle, Write(5), End, Settle],
        ),
        script("we dial and end first", Dials, &[], &[Settle, PeerAccepts, PeerReads, End, Settle, PeerFinish, Settle]),
        script("we dial and the peer ends first", Dials, &[], &[Settle, PeerAccepts, PeerFinish, Settle, End, Settle]),
        script(
            "we hand off behind the peer's FIN",
            Serves,
            &[HandOff],
            &[PeerReads, PeerFinish, Settle, Write(5), End, Settle],
        ),
        script(
            "we hand off and finish first",
            Serves,
            &[HandOff],
            &[PeerReads, Settle, End, Settle, PeerFinish, Settle],
        ),
        script("handed off to a peer that has closed", Serves, &[HandOff], &[PeerClose, Settle, Write(5), End, Settle]),
    ]
}

fn half_closed() -> Vec<Script> {
    vec![
        script(
            "an answer after the peer's end",
            Serves,
            &[],
            &[PeerReads, PeerSend(3), PeerFinish, Settle, Write(1000), Settle, Write(1000), Settle, End, Settle],
        ),
        script(
            "an answer after our end",
            Serves,
            &[],
            &[
                PeerReads,
                Settle,
                Write(5),
                End,
                Settle,
                PeerSend(500),
                Settle,
                PeerSend(500),
                Settle,
                PeerFinish,
                Settle,
            ],
        ),
        script(
            "a write behind our end is refused",
            Serves,
            &[],
            &[PeerReads, Settle, End, Settle, Write(5), PeerFinish, Settle],
        ),
        script("no half-close, the peer ends", Serves, &[NoHalfOpen], &[PeerReads, PeerSend(5), PeerFinish, Settle]),
        script(
            "no half-close, an answer from the handler",
            Serves,
            &[NoHalfOpen, AnswerAtEnd(700)],
            &[PeerReads, PeerSend(5), PeerFinish, Settle],
        ),
        script(
            "no half-close, we end",
            Serves,
            &[NoHalfOpen],
            &[PeerReads, Settle, End, Settle, PeerSend(5), PeerFinish, Settle],
        ),
        script(
            "the answer comes with our end",
            Serves,
            &[AnswerAtEnd(7)],
            &[PeerReads, PeerSend(5), PeerFinish, Settle],
        ),
        script(
            "the early notice and then the end",
            Serves,
            &[EarlyNotice],
            &[PeerReads, Settle, PeerSend(5), PeerFinish, Settle, End, Settle],
        ),
    ]
}

fn early() -> Vec<Script> {
    vec![
        script(
            "an early answer, the request goes on",
            Serves,
            &[],
            &[
                PeerReads,
                PeerSend(5000),
                Settle,
                Write(70),
                End,
                PeerSend(5000),
                Settle,
                PeerSend(9),
                PeerFinish,
                Settle,
            ],
        ),
        script(
            "an early answer, the request is discarded",
            Serves,
            &[],
            &[PeerReads, PeerSend(5000), Settle, Write(70), End, Discard, PeerSend(5000), Settle, PeerFinish, Settle],
        ),
        script(
            "an early answer to a peer that closes",
            Serves,
            &[],
            &[PeerSend(50), Settle, Write(70), End, Settle, PeerClose, Settle],
        ),
        script(
            "discarded before anything came",
            Serves,
            &[],
            &[Discard, Settle, Discard, PeerSend(99), PeerFinish, Settle, End, Settle],
        ),
    ]
}

fn resets() -> Vec<Script> {
    vec![
        script("reset before we look", Serves, &[], &[PeerReset, Settle]),
        script("data and reset before we look", Serves, &[], &[PeerSend(5), PeerReset, Settle]),
        script("reset while open", Serves, &[], &[Settle, PeerReset, Settle]),
        script("data and reset between two looks", Serves, &[], &[Settle, PeerSend(5), PeerReset, Settle]),
        script(
            "data, FIN and reset between two looks",
            Serves,
            &[],
            &[Settle, PeerSend(5), PeerFinish, PeerReset, Settle],
        ),
        script("reset after the peer's FIN", Serves, &[], &[PeerFinish, Settle, PeerReset, Settle]),
        script("reset after our FIN", Serves, &[], &[Settle, End, Settle, PeerReset, Settle]),
        script("reset together with our end", Serves, &[], &[Settle, PeerReset, End, Settle]),
        script("reset together with our write", Serves, &[], &[Settle, PeerSend(7), PeerReset, Write(5), Settle]),
        script("reset together with our write and end", Serves, &[], &[Settle, PeerReset, Write(5), End, Settle]),
        script("FIN, reset, and our write together", Serves, &[], &[Settle, PeerFinish, PeerReset, Write(5), Settle]),
        script("reset when both have finished", Serves, &[], &[Settle, End, PeerFinish, Settle, PeerReset, Settle]),
        script("reset for unread input", Serves, &[], &[Settle, Write(50), Settle, PeerClose, Settle]),
        script(
            "FIN, then reset for unread input",
            Serves,
            &[],
            &[Settle, Write(50), Settle, PeerFinish, Settle, PeerClose, Settle],
        ),
        script(
            "reset for unread input after our FIN",
            Serves,
            &[],
            &[Settle, Write(50), End, Settle, PeerClose, Settle],
        ),
        script(
            "FIN, reset for unread input, our end",
            Serves,
            &[],
            &[Settle, Write(50), PeerFinish, Settle, PeerClose, End, Settle],
        ),
        script("the early notice of a reset", Serves, &[EarlyNotice], &[Settle, PeerSend(5), PeerReset, Settle]),
        script("we dial and are reset", Dials, &[], &[Settle, PeerAccepts, PeerReset, Settle]),
    ]
}

fn destroyed() -> Vec<Script> {
    vec![
        script("destroyed while open", Serves, &[], &[PeerReads, Settle, Destroy, Settle]),
        script(
            "destroyed with bytes unread",
            Serves,
            &[Paused],
            &[PeerReads, Settle, PeerSend(5), Settle, Destroy, Settle],
        ),
        script("destroyed with bytes queued", Serves, &[], &[PeerReads, Settle, Write(500), Destroy, Settle]),
        script("destroyed after the peer's FIN", Serves, &[], &[PeerReads, PeerFinish, Settle, Destroy, Settle]),
        script("destroyed after our FIN", Serves, &[], &[PeerReads, Settle, End, Settle, Destroy, Settle]),
        script("destroyed with the peer's reset", Serves, &[], &[Settle, PeerReset, Destroy, Settle]),
        script("destroyed before it was connected", Dials, &[], &[Destroy, Settle]),
        script("destroyed as soon as it was connected", Dials, &[], &[Settle, PeerAccepts, PeerReads, Destroy, Settle]),
    ]
}

fn paused() -> Vec<Script> {
    vec![
        script(
            "paused, and resumed",
            Serves,
            &[Paused],
            &[Settle, PeerSend(9), Settle, Resume, Settle, PeerFinish, Settle, End, Settle],
        ),
        script(
            "paused, the peer ends",
            Serves,
            &[Paused],
            &[Settle, PeerSend(9), PeerFinish, Settle, Resume, Settle, End, Settle],
        ),
        script("paused, the peer resets", Serves, &[Paused], &[Settle, PeerReset, Settle]),
        script(
            "paused with data, the peer resets",
            Serves,
            &[Paused],
            &[Settle, PeerSend(9), PeerReset, Settle, Resume, Settle],
        ),
        script(
            "paused with FIN, the peer resets",
            Serves,
            &[Paused],
            &[Settle, PeerFinish, PeerReset, Settle, Resume, Settle],
        ),
        script(
            "paused, noticed, resumed",
            Serves,
            &[Paused, EarlyNotice],
            &[Settle, PeerFinish, Settle, Resume, Settle, End, Settle],
        ),
        script(
            "paused, and we end over data",
            Serves,
            &[Paused],
            &[PeerSend(9), Settle, End, Settle, Resume, PeerFinish, Settle],
        ),
        script("paused, and we end over a FIN", Serves, &[Paused], &[PeerFinish, Settle, End, Settle, Resume, Settle]),
        script(
            "paused, and we write into a reset",
            Serves,
            &[Paused],
            &[Settle, PeerSend(9), PeerReset, Write(9), Settle, Resume, Settle],
        ),
    ]
}

fn opening() -> Vec<Script> {
    vec![
        script("refused", DialsNobody, &[], &[Settle]),
        script("refused, with bytes and an end waiting", DialsNobody, &[], &[Write(9), End, Settle]),
        script(
            "written and ended before connected",
            Dials,
            &[],
            &[Write(9), End, Settle, PeerAccepts, PeerReads, Settle, PeerFinish, Settle],
        ),
        script("the listener closes before it accepts", Dials, &[], &[Settle, PeerUnlistens, Settle]),
        script(
            "our listener closes after it accepted",
            Serves,
            &[],
            &[PeerReads, Settle, Unlisten, PeerFinish, Settle, End, Settle],
        ),
        script("our listener closes before it accepts", Serves, &[], &[PeerReads, Unlisten, Settle]),
        script("a full queue, and the time runs out", DialsFull, &[ConnectWithin(150)], &[Settle, Wait(200)]),
        script(
            "a full queue, and room in time",
            DialsFull,
            &[],
            &[Settle, PeerAccepts, Wait(1100), PeerAccepts, PeerReads, End, Settle, PeerFinish, Settle],
        ),
    ]
}

fn large() -> Vec<Script> {
    vec![
        script(
            "a head, a large body that is given away, and a tail",
            Serves,
            &[],
            &[PeerReads, Settle, Write(70), Give(4 * MIB), Write(9), Give(MIB), End, PeerFinish, Settle],
        ),
        script("a large answer", Serves, &[], &[PeerReads, Settle, Write(4 * MIB), End, PeerFinish, Settle]),
        script(
            "a large answer, small buffers",
            Serves,
            &[SmallBuffers],
            &[PeerReads, Settle, Write(MIB / 2), End, PeerFinish, Settle],
        ),
        script(
            "a large request, small buffers",
            Serves,
            &[SmallBuffers],
            &[PeerReads, Settle, PeerSend(MIB / 2), PeerFinish, Settle, End, Settle],
        ),
        script(
            "both large, small buffers",
            Serves,
            &[SmallBuffers],
            &[PeerReads, Settle, Write(MIB / 4), PeerSend(MIB / 4), Settle, End, PeerFinish, Settle],
        ),
        script(
            "a large answer waits for its reader",
            Serves,
            &[],
            &[Settle, Write(8 * MIB), PeerReads, Settle, PeerFinish, Settle, End, Settle],
        ),
        script(
            "a large answer is handed off",
            Serves,
            &[HandOff],
            &[PeerReads, PeerFinish, Settle, Write(MIB), End, Settle],
        ),
        script(
            "a large request into the bin",
            Serves,
            &[],
            &[PeerReads, PeerSend(MIB), Settle, Write(9), End, Discard, Settle, PeerSend(MIB), PeerFinish, Settle],
        ),
        script(
            "we dial and send much",
            Dials,
            &[],
            &[Settle, PeerAccepts, PeerReads, Write(2 * MIB), End, Settle, PeerFinish, Settle],
        ),
    ]
}

fn timed() -> Vec<Script> {
    vec![
        script(
            "a silence is told once",
            Serves,
            &[Idle(100)],
            &[Settle, Wait(350), PeerSend(5), Settle, Wait(150), PeerFinish, Settle, End, Settle],
        ),
        script(
            "half-closed by the peer for too long",
            Serves,
            &[HalfClosed(150)],
            &[PeerReads, PeerFinish, Settle, Wait(200)],
        ),
        script(
            "half-closed by us for too long",
            Serves,
            &[HalfClosed(150)],
            &[PeerReads, Settle, End, Settle, Wait(200)],
        ),
        script(
            "discarded, and the peer does not finish",
            Serves,
            &[Linger(150)],
            &[PeerReads, Settle, End, Discard, Settle, Wait(200)],
        ),
        script(
            "nobody reads the last bytes",
            Serves,
            &[Linger(150), SmallBuffers],
            &[Settle, Write(4 * MIB), End, Wait(400)],
        ),
    ]
}
