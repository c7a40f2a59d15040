//! What is known of one client: what it has sent, what has arrived, how it ended.

use std::time::{Duration, Instant};

use finale::{ConnectionError, ConnectionErrorKind, Ending, Event, LayerErrorKind, PeerEnd, SocketId};

use crate::answer::{Answer, End};
use crate::answers::Answers;
use crate::tls::TlsSeen;

/// A client of the session. The name stays valid after its connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Client(pub(crate) usize);

/// How far a client has got before its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    /// The server speaks first: its greeting has not arrived.
    Greeting,
    /// The preface was sent, and its answer is not over: it is over after a silence.
    Preface,
    /// The request can be sent.
    Ready,
}

/// What was seen of a client. Times are those of the session's clock.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: SocketId,
    pub(crate) stage: Stage,
    pub(crate) opened: Instant,
    /// The handshake was over.
    pub(crate) connected: Option<Instant>,
    /// The last byte or end of the client was written.
    pub(crate) written: Option<Instant>,
    /// What arrived since the last [`mark`](Seen::mark).
    pub(crate) answer: Answer,
    /// When its first and its last bytes arrived.
    pub(crate) first_byte: Option<Instant>,
    pub(crate) last_byte: Option<Instant>,
    /// Bytes that arrived in all.
    pub(crate) total: u64,
    /// The server's FIN.
    pub(crate) fin: Option<Instant>,
    /// Everything before its FIN was read: a paused client sees the FIN sooner.
    pub(crate) read_to_end: bool,
    /// More was already there when the last bytes were delivered: its FIN came with them.
    pub(crate) fin_with_data: bool,
    pub(crate) reset: Option<Instant>,
    /// The connection was never established, or failed without a reset.
    pub(crate) failed: Option<(Instant, ConnectionErrorKind)>,
    /// The report of the connection, when it is over.
    pub(crate) ending: Option<Ending>,
    /// The end was read: all that arrived before it was, too. A paused client knows of an end
    /// before.
    pub(crate) is_read: bool,
    /// The client's own end: its FIN was sent, or the connection dropped.
    pub(crate) ended: Option<Instant>,
    /// It no longer hears its server.
    pub(crate) is_deaf: bool,
    /// Several answers on this connection, counted: see `Session::split`.
    pub(crate) answers: Option<Answers>,
    /// How many requests were sent on it.
    pub(crate) asked: u32,
    /// The server's FIN had not arrived when the last request was sent.
    pub(crate) was_open: bool,
    /// What the server's kernel had not acknowledged when its FIN was seen.
    pub(crate) unacked_at_fin: Option<u32>,
    /// It speaks TLS. Then the FIN here is the server's close_notify or FIN, whichever came first.
    pub(crate) tls: Option<TlsSeen>,
}

impl Seen {
    pub(crate) fn new(id: SocketId, opened: Instant) -> Self {
        Self {
            id,
            stage: Stage::Connecting,
            opened,
            connected: None,
            written: None,
            answer: Answer::default(),
            first_byte: None,
            last_byte: None,
            total: 0,
            fin: None,
            read_to_end: false,
            fin_with_data: false,
            reset: None,
            failed: None,
            ending: None,
            is_read: false,
            ended: None,
            is_deaf: false,
            answers: None,
            asked: 0,
            was_open: false,
            unacked_at_fin: None,
            tls: None,
        }
    }

    /// What arrives from now on is another answer.
    pub(crate) fn mark(&mut self) {
        (self.answer, self.first_byte, self.last_byte, self.fin_with_data) = (Answer::default(), None, None, false);
    }

    /// Notes an event of the connection. `more`: something else had arrived when it was delivered.
    pub(crate) fn note(&mut self, now: Instant, event: Event<'_>, more: bool) {
        self.is_read |= matches!(event, Event::End | Event::Error(_) | Event::Close(_));
        match event {
            Event::Ready => self.connected = Some(now),
            Event::Data(bytes) => {
                self.answer.add(bytes);
                if let Some(answers) = &mut self.answers {
                    answers.add(bytes);
                }
                self.total += bytes.len() as u64;
                self.first_byte.get_or_insert(now);
                (self.last_byte, self.fin_with_data) = (Some(now), more);
            }
            Event::PeerEnded(PeerEnd::Fin) => {
                self.fin.get_or_insert(now);
            }
            Event::End => {
                self.fin.get_or_insert(now);
                self.read_to_end = true;
            }
            Event::PeerEnded(PeerEnd::Reset) => {
                self.reset.get_or_insert(now);
            }
            Event::Error(ConnectionError { kind: ConnectionErrorKind::Reset, .. }) if self.connected.is_some() => {
                self.reset.get_or_insert(now);
            }
            Event::Error(error) => self.failed = Some((now, error.kind)),
            Event::Close(ending) => self.ending = Some(ending.clone()),
            _ => {}
        }
    }

    /// Notes an event of the TCP connection under TLS: what the server's kernel and ours do.
    pub(crate) fn note_tcp(&mut self, now: Instant, event: &Event<'_>) {
        match event {
            Event::PeerEnded(_) | Event::End | Event::Close(_) => self.note(now, *event, false),
            Event::Error(error) if error.kind == ConnectionErrorKind::Reset => self.note(now, *event, false),
            _ => {}
        }
    }

    /// Notes an event of the TLS stream. What is of TCP was noted before.
    pub(crate) fn note_tls(&mut self, now: Instant, event: Event<'_>, more: bool) {
        match event {
            Event::Ready | Event::Data(_) => self.note(now, event, more),
            Event::End => {
                self.fin.get_or_insert(now);
                self.tls.iter_mut().for_each(|tls| tls.close_notify = Some(now));
            }
            // The end that it had instead was noted.
            Event::Error(error) if error.kind == ConnectionErrorKind::Layer(LayerErrorKind::Truncated) => {}
            Event::Error(error) if self.reset.is_none() => {
                self.failed = Some((now, error.kind));
                self.tls.iter_mut().for_each(|tls| tls.failure = Some(error.to_string()));
            }
            _ => {}
        }
    }

    /// The server's FIN came without its close_notify: the client can't distinguish that from a cut.
    pub(crate) fn is_truncated(&self) -> bool {
        let is_open = |tls: &TlsSeen| tls.close_notify.is_none();
        self.connected.is_some() && self.read_to_end && self.reset.is_none() && self.tls.as_ref().is_some_and(is_open)
    }

    /// Its connection is no longer the reactor's.
    pub(crate) const fn is_over(&self) -> bool {
        self.ending.is_some()
    }

    /// Nothing can be sent any more.
    pub(crate) const fn is_dead(&self) -> bool {
        self.reset.is_some() || self.failed.is_some() || self.ending.is_some()
    }

    /// Nothing more can arrive.
    pub(crate) const fn has_ended(&self) -> bool {
        self.fin.is_some() || self.reset.is_some() || self.failed.is_some() || self.ending.is_some()
    }

    pub(crate) const fn end(&self) -> End {
        match (self.connected, self.reset, self.fin) {
            (None, ..) => End::Refused,
            (_, Some(_), _) => End::Reset,
            (_, None, Some(_)) => End::Fin,
            (_, None, None) => End::Open,
        }
    }

    /// When the server has ended, by FIN or reset, whichever came first.
    pub(crate) fn ended_by_server(&self) -> Option<Instant> {
        [self.fin, self.reset].into_iter().flatten().min()
    }

    /// From the last byte that the client wrote to the last that arrived.
    pub(crate) fn time(&self) -> Option<Duration> {
        Some(self.last_byte?.saturating_duration_since(self.written?))
    }
}

/// Whether a connection failed because this machine lacks something, and has met no server.
pub(crate) const fn is_own(kind: ConnectionErrorKind) -> bool {
    matches!(kind, ConnectionErrorKind::OutOfResources | ConnectionErrorKind::NoLocalAddress)
}
