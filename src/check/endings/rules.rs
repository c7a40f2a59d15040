//! Checks a case against the rules, and against the conversation without a cut.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::trial::{Setup, panic_message};
use super::{Case, CaseResult, Cut, Endings, Peer, Program};
use crate::check::{Rule, Violation, must};
use crate::event::{Bytes, Ending};

impl Endings {
    /// The conversation without a cut, as each peer sees it. It says how many bytes there are.
    pub(super) fn uncut<P: Program>(&self, make: &impl Fn() -> P) -> Result<Vec<CaseResult>, (Setup, Violation)> {
        assert!(!self.peers.is_empty(), "Endings needs a peer: add a client or a server");
        for (number, Peer { script, .. }) in self.peers.iter().enumerate() {
            assert!(
                script.finishes(),
                "the script of peer {number} (\"{script}\") does not finish, so its connection can't end cleanly: \
                 add `.finish()`"
            );
        }
        let peers = 0..self.peers.len() as u8;
        let setups =
            peers.map(|peer| Setup { case: Case { peer, ..Case::UNCUT }, bytes: self.bytes(&[]), is_punctual: false });
        setups.map(|setup| self.uncut_for(setup, make).map_err(|violation| (setup, violation))).collect()
    }

    fn uncut_for<P: Program>(&self, setup: Setup, make: &impl Fn() -> P) -> Result<CaseResult, Violation> {
        let whole = self.trial(setup, make, None)?;
        let Some(ending) = &whole.ending else {
            let what = self.peers[usize::from(setup.case.peer)].role;
            return Err(Violation::new(Rule::Progress, format!("no connection was established with {what}")));
        };
        for ((wrong, received), peer) in whole.wrong.iter().zip(&whole.received_by).zip(&self.peers) {
            must(wrong.is_none(), Rule::Progress, || {
                let (wrong, hint) = (wrong.clone().unwrap_or_default(), hint_for(peer, received));
                format!("{wrong}, with {} received{hint}{}", quote(received), idle_hint(&whole))
            })?;
        }
        must(ending.is_clean(), Rule::Progress, || format!("it does not end cleanly: \"{ending}\""))?;
        whole.at_rest.clone().map_err(|wrong| Violation::new(Rule::Own, wrong))?;
        Ok(whole)
    }

    /// Runs a case and checks it. Returns with a violation the run that showed it.
    pub(super) fn check_case<P: Program>(
        &self,
        case: Case,
        wholes: &[CaseResult],
        make: &impl Fn() -> P,
    ) -> Result<(), (Setup, Violation)> {
        let whole = &wholes[usize::from(case.peer)];
        let check = |setup: Setup| {
            let found = self.trial(setup, make, None).map_err(|violation| (false, violation))?;
            let checked = self
                .check_answer(&found, whole, setup, make)
                .and_then(|()| self.check_isolation(&found, whole))
                .and_then(|()| self.check_own(&found));
            checked.map_err(|violation| (found.timed_out, violation))
        };
        let mut setup = Setup { case, bytes: self.bytes(wholes), is_punctual: false };
        let mut checked = check(setup);
        if matches!(checked, Err((true, _))) && case.conditions > 1 {
            // Late packets and readiness may use up a limit of the program. What is wrong without
            // them is wrong.
            setup.is_punctual = true;
            checked = check(setup);
        }
        checked.map_err(|(_, mut violation)| {
            if matches!(violation.rule, Rule::SameAnswer | Rule::Isolation) {
                violation.what.push_str(&idle_hint(whole));
            }
            (setup, violation)
        })
    }

    /// Checks the rules of the program and of the test.
    fn check_own(&self, found: &CaseResult) -> Result<(), Violation> {
        found.at_rest.clone().map_err(|wrong| Violation::new(Rule::Own, wrong))?;
        let held = catch_unwind(AssertUnwindSafe(|| self.holds.iter().try_for_each(|holds| holds(found))));
        held.unwrap_or_else(|panic| Err(format!("what must hold panicked: {}", panic_message(&*panic))))
            .map_err(|wrong| Violation::new(Rule::Own, wrong))
    }

    fn check_answer<P: Program>(
        &self,
        found: &CaseResult,
        whole: &CaseResult,
        setup: Setup,
        make: &impl Fn() -> P,
    ) -> Result<(), Violation> {
        let case = found.case;
        let peer = &self.peers[usize::from(case.peer)];
        // A client may finish before the answer, or in the middle of it. A program may give up a
        // server that finishes before it has received everything.
        let (sends, receives) = case.script(&peer.script, Duration::ZERO).bytes_each_way();
        let sent_all = case.cut == Cut::Fin
            && sends == whole.sent.len() as u64
            && (peer.is_client() || receives >= whole.received.len() as u64);
        let same = |bytes: &[u8], other: &[u8]| self.is_stateful || bytes == other;
        if case.is_harmless() || sent_all {
            must(same(&found.received, &whole.received), Rule::SameAnswer, || {
                format!("the peer received {}, and without a cut {}", quote(&found.received), quote(&whole.received))
            })?;
            let is_clean = found.ending.as_ref().is_some_and(Ending::is_clean);
            // A peer that finishes early and reads on receives our FIN. One that closes by itself
            // may not.
            let same_end = found.peer_got_end == whole.peer_got_end
                || (sent_all && found.peer_got_end)
                || (!sent_all && peer.script.closes());
            must(is_clean && same_end, Rule::SameAnswer, || {
                format!(
                    "the connection ended differently: {}; and without a cut: {}",
                    report_of(found),
                    report_of(whole)
                )
            })
        } else if case.cut == Cut::Fin && case.conditions > 0 && !self.is_stateful {
            let calm = self.trial(Setup { case: Case { conditions: 0, ..case }, ..setup }, make, None)?;
            // A client may give up a server that finishes in the middle of its request.
            let gives_up = !peer.is_client();
            let (one, other) = (&found.received, &calm.received);
            let same = one == other || (gives_up && (one.starts_with(other) || other.starts_with(one)));
            must(same, Rule::SameAnswer, || {
                let (found, other) = (quote(&found.received), quote(&calm.received));
                format!("the same bytes got {found}, and without network conditions {other}")
            })
        } else {
            Ok(())
        }
    }

    /// Checks the clients that were connected at the same time, and the one that came later.
    fn check_isolation(&self, found: &CaseResult, whole: &CaseResult) -> Result<(), Violation> {
        let cut = usize::from(found.case.peer);
        let others = self.peers.iter().enumerate().filter(|(number, peer)| *number != cut && peer.is_client());
        let concerns_others = found.case.is_harmless() || self.peers[cut].is_client();
        for (number, _) in others.filter(|_| concerns_others) {
            let wrong = &found.wrong[number];
            must(wrong.is_none(), Rule::Isolation, || {
                format!("peer {number}, which was not cut: {}", wrong.clone().unwrap_or_default())
            })?;
            let (received, uncut) = (&found.received_by[number], &whole.received_by[number]);
            must(self.is_stateful || received == uncut, Rule::Isolation, || {
                let (received, uncut) = (quote(received), quote(uncut));
                format!(
                    "peer {number}, which was not cut, received {received}, and without a cut {uncut}; if that \
                     depends on the other peers on purpose, see `Endings::stateful`"
                )
            })?;
        }
        let uncut = self.client_to_repeat(found.case).map(|first| &whole.received_by[first]);
        let compared = found.second.as_ref().zip(uncut);
        let differs = compared.is_some_and(|(second, uncut)| second != uncut);
        let memory = if differs { MEMORY } else { "" };
        let hint = if found.outlived { SHARED } else { memory };
        must(found.second_wrong.is_none(), Rule::Isolation, || {
            format!("{}{hint}", found.second_wrong.clone().unwrap_or_default())
        })?;
        let Some((second, uncut)) = compared else { return Ok(()) };
        must(self.is_stateful || !differs, Rule::Isolation, || {
            let (received, uncut) = (quote(second), quote(uncut));
            format!("a second peer received {received}, and the first one without a cut {uncut}{hint}")
        })
    }
}

/// What a second client may have met if the connection that is cut outlived the first one.
const SHARED: &str = "; it came while the connection that is cut was open, as a pool keeps it (see `Endings::server`)";

/// Why a second client may get another answer, and rightly so.
const MEMORY: &str =
    "; if the program remembers on purpose, see `Program::forget`, `Endings::stateful` and `no_second_client`";

/// A conversation that needs an idle timeout is seldom the one that was meant: the timeout's answer
/// has taken the place of bytes that the script waits for.
fn idle_hint(whole: &CaseResult) -> String {
    whole.idle_at.map_or_else(String::new, |at| {
        format!("; without a cut an idle timeout expired after {at:.1?}: each side waited for the other")
    })
}

/// Why a server may have received more than one exchange.
fn hint_for(peer: &Peer, received: &[u8]) -> String {
    let (_, expected) = peer.script.bytes_each_way();
    if peer.is_client() || received.len() as u64 <= expected {
        return String::new();
    }
    let expected = Bytes(expected);
    format!(
        "; its script receives {expected}: a pool serves the second client over the connection of the first one (see `Endings::server`)"
    )
}

fn report_of(found: &CaseResult) -> String {
    let end = if found.peer_got_end { "the peer received our FIN" } else { "the peer received no FIN" };
    found.ending.as_ref().map_or_else(|| "no connection".to_owned(), |ending| format!("\"{ending}\", and {end}"))
}

/// The beginning of the bytes as text, for a message.
fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{} \"{text}{more}\"", Bytes(bytes.len() as u64))
}
