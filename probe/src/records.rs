//! What was recorded of a client: its ladder.

use finale::trace::{Record, What};

use crate::client::Client;
use crate::session::Session;

impl Session {
    /// What was recorded of the client, with its notes: for the ladder.
    pub(crate) fn records(&self, client: Client) -> Vec<Record> {
        let Some(connection) = self.connection(client) else { return Vec::new() };
        let socket = self.seen(client).id;
        // A note has no socket.
        let is_own = |record: &Record| match record.what {
            What::Note(_) => record.connection == connection,
            _ => record.socket == Some(socket),
        };
        self.engine.recorder().records().into_iter().filter(is_own).collect()
    }

    /// Adds a line to the client's ladder.
    pub(crate) fn note(&self, client: Client, text: &str) {
        if let Some(connection) = self.connection(client) {
            self.engine.recorder().note(self.now(), connection, text);
        }
    }

    /// The recorder's number of the client's connection. `None`: nothing was recorded yet.
    fn connection(&self, client: Client) -> Option<u64> {
        let records = self.engine.recorder().records_of(self.seen(client).id);
        records.last().map(|record| record.connection)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crate::engine::Real;
    use crate::options::Options;
    use crate::session::{Open, Session};

    #[test]
    fn a_note_is_in_the_ladder_of_its_client_and_in_no_other() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = server.local_addr().expect("it is bound");
        let mut session = Session::new(Box::new(Real::new().expect("a reactor")), addr, Options::new("hello"));
        let [noted, other] = [(); 2].map(|()| session.open(&Open::default()).expect("it connects"));
        session.note(noted, "something is done");
        let lines = |client| session.records(client).iter().map(ToString::to_string).collect::<Vec<_>>();
        let has_note = |client| lines(client).iter().any(|line| line.ends_with("something is done"));
        assert!(lines(noted).len() > 1 && has_note(noted), "{:#?}", lines(noted));
        assert!(lines(other).len() > 1 && !has_note(other), "{:#?}", lines(other));
    }
}
