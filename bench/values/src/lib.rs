//! The protocol of the two stores, as in Redis but shorter. A client sends `SET NAME BYTES\n` and
//! the value, and receives `OK\n`. It sends `GET NAME\n`, and receives `BYTES\n` and the value.

/// A longer line is refused.
pub const LINE_BYTES: usize = 256;
/// A larger value is refused.
pub const VALUE_BYTES: usize = 16 << 20;

/// A line of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The value of this many bytes follows.
    Set { name: &'a [u8], bytes: usize },
    /// Asks for a value.
    Get { name: &'a [u8] },
}

impl<'a> Command<'a> {
    /// From a line without its newline; `None` if it is not a command.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let command = match (words.next()?, words.next()?) {
            (b"GET", name) => Self::Get { name },
            (b"SET", name) => {
                let bytes = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
                (bytes <= VALUE_BYTES).then_some(Self::Set { name, bytes })?
            }
            _ => return None,
        };
        words.next().is_none().then_some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_as_a_whole_or_not_at_all() {
        assert_eq!(Command::parse(b"SET a 3"), Some(Command::Set { name: b"a", bytes: 3 }));
        assert_eq!(Command::parse(b"GET a"), Some(Command::Get { name: b"a" }));
        for wrong in ["", "GET", "GET a b", "SET a", "SET a -1", "SET a 16777217", "SET a 3 4", "PUT a 3"] {
            assert_eq!(Command::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
