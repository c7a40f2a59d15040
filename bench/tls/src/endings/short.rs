//! The short words of a cell, from what a program has said.

use super::behaviour::{ANSWER, Behaviour, Sent};
use super::case::Outcome;

/// What is looked for in a program's words (in lower case), in this order, and what it means.
const MEANINGS: &[(&[&str], &str)] = &[
    (&["timed out"], "timed out"),
    (&["internal error", "internal_error", "internalerror"], "their alert"),
    (
        &[
            "hostname",
            "name mismatch",
            "altname",
            "alternative certificate subject name",
            "does not match",
            "not valid for name",
            "owner does not match",
        ],
        "wrong name",
    ),
    (&["expired", "has expired"], "expired"),
    (&["self-signed", "self signed", "unknownissuer", "unable to get local issuer", "not trusted"], "not trusted"),
    (
        &["bad record mac", "bad_record_mac", "decryption failed", "decrypt", "decryption has failed"],
        "a damaged record",
    ),
    (
        &[
            "truncated",
            "fin of the peer before",
            "interrupted",
            "unexpected eof",
            "unexpectedeof",
            "eof occurred",
            "without sending tls close_notify",
            "properly terminated",
            "before secure tls connection was established",
            "aborted",
            "incompleteread",
            "bytes remaining",
            "without closing",
            "eof",
        ],
        "truncated",
    ),
    (
        &[
            "econnreset",
            "reset by peer",
            "reset by the peer",
            "errno=104",
            "errno 104",
            "connectionreset",
            "hang up",
            "pull function",
        ],
        "reset",
    ),
];

/// The cell.
pub(super) fn cell(behaviour: &Behaviour, outcome: &Outcome) -> String {
    // What happens to a later answer is in the table of the words.
    let words = outcome.words.split(", then ").next().unwrap_or_default();
    let words = words.to_lowercase().replace("haderror: ", "");
    let meaning = MEANINGS.iter().find(|(signs, _)| signs.iter().any(|sign| words.contains(sign)));
    let ended = behaviour.sent != Sent::Nothing && words.starts_with("end, ");
    let mut cell = match meaning {
        Some((_, meaning)) if ended => format!("clean end, then **{meaning}**"),
        Some((_, meaning)) => format!("**{meaning}**"),
        None if words.contains("error") => "**error**".to_owned(),
        None if outcome.seen.waits => "waits".to_owned(),
        None if words == "nothing" => "says nothing".to_owned(),
        None => "clean end".to_owned(),
    };
    if meaning.is_some() && outcome.seen.waits {
        cell.push_str(", waits");
    }
    match (behaviour.sent, outcome.delivered) {
        (Sent::Whole, Sent::Half) | (Sent::Half | Sent::Whole, Sent::Nothing) => cell.push_str(", data lost"),
        (Sent::Half, Sent::Whole) => cell.push_str(", all data"),
        _ => {}
    }
    if outcome.seen.received.ends_with(ANSWER.as_bytes()) {
        cell.push_str(", answers");
    }
    cell
}
