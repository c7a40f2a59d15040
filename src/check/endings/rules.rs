//! Whether a case kept the rules, compared with the undisturbed conversation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Case, Cut, Endings, Found, Place, Program, said};
use crate::check::{Rule, Violation, must};
use crate::event::Ending;
use crate::sim::script::count;

impl Endings {
    /// The undisturbed conversation, as each peer sees it: how many bytes there are to cut at.
    pub(super) fn undisturbed<P: Program>(&self, make: &impl Fn() -> P) -> Result<Vec<Found>, (Case, Violation)> {
        assert!(!self.peers.is_empty(), "Endings needs a peer: add a client or a server");
        let peers = 0..self.peers.len() as u8;
        let cases = peers.map(|peer| Case { peer, ..Case::UNDISTURBED });
        cases.map(|case| self.undisturbed_for(case, make).map_err(|violation| (case, violation))).collect()
    }

    fn undisturbed_for<P: Program>(&self, case: Case, make: &impl Fn() -> P) -> Result<Found, Violation> {
        let whole = self.trial(case, make, None)?;
        let Some(ending) = &whole.ending else {
            return Err(Violation::new(Rule::Progress, "no connection was established"));
        };
        for wrong in &whole.wrong {
            must(wrong.is_none(), Rule::Progress, || {
                let wrong = wrong.clone().unwrap_or_default();
                format!("{wrong}, with {} received: \"{ending}\"", quote(&whole.received))
            })?;
        }
        must(ending.is_clean(), Rule::Progress, || format!("it does not end in good order: \"{ending}\""))?;
        Ok(whole)
    }

    pub(super) fn judge<P: Program>(
        &self,
        case: Case,
        wholes: &[Found],
        make: &impl Fn() -> P,
    ) -> Result<(), Violation> {
        let whole = &wholes[usize::from(case.peer)];
        let found = self.trial(case, make, None)?;
        let judged = self.same_answer(&found, whole, make).and_then(|()| self.isolation(&found, whole));
        if judged.is_err() && found.timed_out && !whole.timed_out && case.conditions > 1 {
            // Late packets and late readiness may use up a limit of the program. What is left is
            // wrong without them too.
            let punctual = self.trial_without_delays(case, make)?;
            self.same_answer(&punctual, whole, make).and_then(|()| self.isolation(&punctual, whole))?;
        } else {
            judged?;
        }
        let Some(holds) = &self.holds else { return Ok(()) };
        let held = catch_unwind(AssertUnwindSafe(|| holds(&found)));
        held.unwrap_or_else(|panic| Err(format!("what must hold panicked: {}", said(&*panic))))
            .map_err(|wrong| Violation::new(Rule::Own, wrong))
    }

    fn same_answer<P: Program>(&self, found: &Found, whole: &Found, make: &impl Fn() -> P) -> Result<(), Violation> {
        let case = found.case;
        let sent_all = case.cut == Cut::Fin && case.place == Place::Sent(whole.sent.len() as u64);
        let same = |bytes: &[u8], other: &[u8]| self.is_stateful || bytes == other;
        if case.is_harmless() || sent_all {
            must(same(&found.received, &whole.received), Rule::SameAnswer, || {
                format!("the peer received {}, and undisturbed {}", quote(&found.received), quote(&whole.received))
            })?;
            let is_clean = found.ending.as_ref().is_some_and(Ending::is_clean);
            // A peer that finishes early and reads on sees our end; one that closes by itself may
            // not.
            let same_end = found.peer_got_end == whole.peer_got_end || (sent_all && found.peer_got_end);
            must(is_clean && same_end, Rule::SameAnswer, || {
                format!("it ended differently: {}; and undisturbed: {}", report_of(found), report_of(whole))
            })
        } else if case.cut == Cut::Fin && case.conditions > 0 && !self.is_stateful {
            let calm = self.trial(Case { conditions: 0, ..case }, make, None)?;
            // A client may give up a server that has finished, in the middle of its request.
            let gives_up = !self.peers[usize::from(case.peer)].is_client();
            let (one, other) = (&found.received, &calm.received);
            let same = one == other || (gives_up && (one.starts_with(other) || other.starts_with(one)));
            must(same, Rule::SameAnswer, || {
                let (found, calm) = (quote(&found.received), quote(&calm.received));
                format!("the same bytes got {found}, and without network conditions {calm}")
            })
        } else {
            Ok(())
        }
    }

    /// Neither the clients that were connected at the same time, nor one that came later, noticed.
    fn isolation(&self, found: &Found, whole: &Found) -> Result<(), Violation> {
        let cut = usize::from(found.case.peer);
        let others = self.peers.iter().enumerate().filter(|(number, peer)| *number != cut && peer.is_client());
        let concerns_others = found.case.is_harmless() || self.peers[cut].is_client();
        for (number, _) in others.filter(|_| concerns_others) {
            let wrong = &found.wrong[number];
            must(wrong.is_none(), Rule::Isolation, || {
                format!("peer {number}, which was not cut: {}", wrong.clone().unwrap_or_default())
            })?;
            let (received, undisturbed) = (&found.received_by[number], &whole.received_by[number]);
            must(self.is_stateful || received == undisturbed, Rule::Isolation, || {
                let (received, undisturbed) = (quote(received), quote(undisturbed));
                format!("peer {number}, which was not cut, received {received}, and undisturbed {undisturbed}")
            })?;
        }
        must(found.second_wrong.is_none(), Rule::Isolation, || found.second_wrong.clone().unwrap_or_default())?;
        let (Some(second), Some(first)) = (&found.second, self.client_to_repeat(found.case)) else { return Ok(()) };
        let undisturbed = &whole.received_by[first];
        must(self.is_stateful || second == undisturbed, Rule::Isolation, || {
            let (received, undisturbed) = (quote(second), quote(undisturbed));
            format!("a second peer received {received}, and the first undisturbed {undisturbed}")
        })
    }
}

fn report_of(found: &Found) -> String {
    let end = if found.peer_got_end { "the peer received our FIN" } else { "the peer received no FIN" };
    found.ending.as_ref().map_or_else(|| "no connection".to_owned(), |ending| format!("\"{ending}\", and {end}"))
}

/// Bytes for a message: as text, and not too many.
fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{} \"{text}{more}\"", count(bytes.len() as u64))
}
