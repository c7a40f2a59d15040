//! What our kernel says of the connection along a path.

use finale::lifecycle::{Input, State};

/// The states of RFC 9293 that the kernel can be in, if a FIN arrives at the input of the path that
/// reports it, and not before.
#[derive(Debug, Clone)]
pub(super) struct Kernel(Vec<&'static str>);

impl Kernel {
    /// All that it can be in, in this state of the socket.
    pub(super) fn in_state(state: State) -> Self {
        Self(state.rfc9293().to_vec())
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.0
    }

    /// After this input. A FIN of ours may be acknowledged at any time.
    pub(super) fn after(&self, input: Input) -> Self {
        let mut names = Vec::new();
        for name in self.0.iter().flat_map(|name| after(name, input)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Self(names)
    }
}

fn after(name: &'static str, input: Input) -> Vec<&'static str> {
    match (input, name) {
        (Input::Resolved | Input::NextAddress, _) => vec!["SYN-SENT"],
        (Input::Accepted | Input::Established, _) => vec!["ESTABLISHED"],
        (Input::PeerEnded | Input::Fin, "ESTABLISHED") => vec!["CLOSE-WAIT"],
        (Input::PeerEnded | Input::Fin, "FIN-WAIT-1") => vec!["CLOSING", "TIME-WAIT"],
        (Input::PeerEnded | Input::Fin, "FIN-WAIT-2") => vec!["TIME-WAIT"],
        (Input::FinSent, "ESTABLISHED") => vec!["FIN-WAIT-1", "FIN-WAIT-2"],
        (Input::FinSent | Input::LeftToKernel, "CLOSE-WAIT") => vec!["LAST-ACK"],
        (Input::Acknowledged, "LAST-ACK") => vec!["CLOSED"],
        (Input::Acknowledged, _) => vec!["TIME-WAIT"],
        (
            Input::Reset
            | Input::Expired
            | Input::ErrorSeen
            | Input::DestroyCalled
            | Input::ConnectFailed
            | Input::LookupFailed,
            _,
        ) => vec!["CLOSED"],
        _ => vec![name],
    }
}
