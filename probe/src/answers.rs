//! Several answers on one connection: where one is over and the next begins.

use crate::answer::{Framing, Http, Length};

/// Counts the answers that arrive on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    framing: Framing,
    /// The status that polite clients get.
    expected: Option<u16>,
    part: Part,
    /// Bytes that are not understood yet: the beginning of a head, a line of chunks, the last bytes
    /// before an end.
    pending: Vec<u8>,
    /// Something of the present answer has arrived.
    is_inside: bool,
    /// The status of the present answer.
    status: Option<u16>,
    /// Complete answers.
    pub(crate) count: u32,
    /// The last of them with another status than the expected one.
    pub(crate) other: Option<u16>,
    /// An answer has announced the end of the connection.
    pub(crate) closes: bool,
    /// How long an idle connection is kept, in seconds, as an answer says.
    pub(crate) keeps: Option<u64>,
    /// The requests are with HEAD: no answer has a body.
    pub(crate) is_to_head: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self::new(Framing::Http, None)
    }
}

/// The part of an answer that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The head of a response, or the beginning of another answer.
    Head,
    /// This many bytes until the answer is over.
    Body(u64),
    /// The line with the length of a chunk.
    ChunkLine,
    /// This many bytes until the next such line.
    Chunk(u64),
    /// After the last chunk: lines until an empty one.
    Trailer,
    /// The rest can't be split.
    Unknown,
}

/// A longer head or line is none.
const LONGEST: usize = 64 * 1024;

impl Answers {
    pub(crate) const fn new(framing: Framing, expected: Option<u16>) -> Self {
        Self {
            framing,
            expected,
            part: Part::Head,
            pending: Vec::new(),
            is_inside: false,
            status: None,
            count: 0,
            other: None,
            closes: false,
            keeps: None,
            is_to_head: false,
        }
    }

    /// A part of an answer has arrived, and not the rest.
    pub(crate) const fn is_inside(&self) -> bool {
        self.is_inside
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.part != Part::Unknown {
            self.pending.extend_from_slice(bytes);
        }
        self.is_inside |= !bytes.is_empty();
        while self.step() {}
        if self.pending.len() > LONGEST {
            (self.part, self.pending) = (Part::Unknown, Vec::new());
        }
    }

    /// Takes the next part, if it is complete.
    fn step(&mut self) -> bool {
        match self.part {
            Part::Head if self.pending.is_empty() => false,
            Part::Head => self.begin(),
            Part::Body(bytes) => {
                let left = self.skip(bytes);
                self.part = Part::Body(left);
                if left == 0 {
                    self.complete();
                }
                left == 0
            }
            Part::Chunk(bytes) => {
                let left = self.skip(bytes);
                self.part = if left == 0 { Part::ChunkLine } else { Part::Chunk(left) };
                left == 0
            }
            Part::ChunkLine => match httparse::parse_chunk_size(&self.pending) {
                Ok(httparse::Status::Complete((line, size))) => {
                    self.pending.drain(..line);
                    // Its bytes have a line end.
                    self.part = if size == 0 { Part::Trailer } else { Part::Chunk(size.saturating_add(2)) };
                    true
                }
                Ok(httparse::Status::Partial) => false,
                Err(_) => self.give_up(),
            },
            Part::Trailer => {
                let Some(line) = find(&self.pending, b"\r\n") else { return false };
                self.pending.drain(..line + 2);
                if line == 0 {
                    self.complete();
                }
                true
            }
            Part::Unknown => false,
        }
    }

    /// The beginning of an answer.
    fn begin(&mut self) -> bool {
        match &self.framing {
            Framing::Bytes(bytes) => {
                self.part = Part::Body((*bytes).max(1));
                true
            }
            Framing::Until(end) => {
                let Some(at) = find(&self.pending, end) else {
                    // The end may have begun with the last bytes.
                    self.pending.drain(..(self.pending.len() + 1).saturating_sub(end.len().max(1)));
                    return false;
                };
                self.pending.drain(..at + end.len());
                self.complete();
                true
            }
            Framing::End => self.give_up(),
            Framing::Auto | Framing::Http => {
                let Some(http) = Http::parse(&self.pending, self.is_to_head) else { return false };
                self.pending.drain(..http.head);
                self.closes |= http.closes;
                self.keeps = self.keeps.or(http.keeps);
                self.status = Some(http.status);
                self.part = match http.length {
                    Length::Bytes(bytes) => Part::Body(bytes - http.head as u64),
                    Length::Chunks => Part::ChunkLine,
                    Length::End => return self.give_up(),
                };
                true
            }
        }
    }

    fn complete(&mut self) {
        self.count += 1;
        if self.status != self.expected && self.status.is_some() {
            self.other = self.status;
        }
        (self.part, self.status, self.is_inside) = (Part::Head, None, !self.pending.is_empty());
    }

    fn give_up(&mut self) -> bool {
        (self.part, self.pending) = (Part::Unknown, Vec::new());
        false
    }

    /// Drops up to this many bytes, and returns how many are left to drop.
    fn skip(&mut self, bytes: u64) -> u64 {
        let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.pending.len());
        self.pending.drain(..here);
        bytes - here as u64
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    (!what.is_empty()).then(|| bytes.windows(what.len()).position(|window| window == what)).flatten()
}

#[cfg(test)]
mod tests {
    use super::{Answers, LONGEST};
    use crate::answer::Framing;

    /// However the bytes are cut, the same answers are counted.
    fn counted(framing: &Framing, bytes: &[u8]) -> Answers {
        let mut all = (1..=bytes.len()).map(|size| {
            let mut answers = Answers::new(framing.clone(), Some(200));
            bytes.chunks(size).for_each(|chunk| answers.add(chunk));
            answers
        });
        let first = all.next().expect("there are bytes");
        for other in all {
            assert_eq!((first.count, first.other, first.is_inside()), (other.count, other.other, other.is_inside()));
        }
        first
    }

    #[test]
    fn answers_of_http_are_counted_by_length_and_by_chunks() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\n\
            HTTP/1.1 204 None\r\nConnection: close\r\nKeep-Alive: max=9, timeout=5\r\n\r\nHTTP/1.1 200";
        let answers = counted(&Framing::Http, bytes);
        assert_eq!((answers.count, answers.other, answers.is_inside()), (3, Some(204), true));
        assert!(answers.closes);
        assert_eq!(answers.keeps, Some(5));
    }

    #[test]
    fn other_answers_are_counted_by_their_bytes_or_their_last_ones() {
        assert_eq!(counted(&Framing::Bytes(3), b"abcabcab").count, 2);
        let lines = counted(&Framing::Until(b"\r\n".to_vec()), b"+OK\r\n+OK\r\n");
        assert_eq!((lines.count, lines.other, lines.is_inside()), (2, None, false));
        let mut long = Answers::new(Framing::Until(b"\r\n".to_vec()), None);
        long.add(&vec![b'x'; LONGEST]);
        for bytes in [b"yy\r", b"\nz\r"] {
            assert_eq!((long.count, long.is_inside()), (0, true));
            long.add(bytes);
        }
        assert_eq!((long.count, long.is_inside()), (1, true));
    }

    #[test]
    fn an_answer_that_ends_with_the_connection_is_never_complete() {
        let answers = counted(&Framing::Http, b"HTTP/1.1 200 OK\r\n\r\nabc");
        assert_eq!((answers.count, answers.is_inside()), (0, true));
        assert_eq!(counted(&Framing::Http, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n").count, 0);
    }
}
