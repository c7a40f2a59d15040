//! A path through the table.

use std::fmt::Write as _;

use finale::lifecycle::{Cell, Input, State, step};
use serde::Serialize;

use super::kernel::Kernel;
use super::named;
use crate::errors::Error;

/// One step of a path. The names are stable: programs read them.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    state: &'static str,
    input: &'static str,
    /// The state after it: the same one if the input was deferred or ignored.
    next: &'static str,
    emits: Vec<&'static str>,
    /// `goes`, `deferred` or `ignored`.
    result: &'static str,
    /// The states of RFC 9293 that our kernel can then be in.
    kernel: Vec<&'static str>,
    #[serde(skip)]
    kernel_before: Vec<&'static str>,
}

/// Follows these inputs.
///
/// # Errors
/// Where the path leaves the table, with what is possible there.
pub(super) fn walk(inputs: &str) -> Result<Vec<Step>, Error> {
    let mut words = inputs.split([',', ' ', '\n']).map(str::trim).filter(|word| !word.is_empty()).peekable();
    let first = words.peek().and_then(|word| named(State::ALL, word, |state| state.name()));
    if first.is_some() {
        words.next();
    }
    let mut state = first.unwrap_or(State::Created);
    let (mut steps, mut kernel) = (Vec::new(), Kernel::in_state(state));
    for (word, number) in words.zip(1..) {
        let leaves = |why: &str| {
            let possible = possible(state);
            Error::usage(format!("--walk: step {number}: {why} {state}; possible there: {possible}"))
        };
        let input = named(Input::ALL, word, |input| input.name())
            .ok_or_else(|| leaves(&format!("{word:?} is no input, in")))?;
        let (next, emits, result) = match step(state, input) {
            Cell::Go(next, emits) => (next, emits, "goes"),
            Cell::Deferred => (state, &[][..], "deferred"),
            Cell::Ignored => (state, &[][..], "ignored"),
            Cell::Impossible => return Err(leaves(&format!("{input} can't happen in"))),
        };
        let emits = emits.iter().map(|event| event.name()).collect();
        let kernel_before = kernel.names().to_vec();
        if result == "goes" {
            kernel = kernel.after(input);
        }
        let (from, kernel) = (state.name(), kernel.names().to_vec());
        steps.push(Step { state: from, input: input.name(), next: next.name(), emits, result, kernel, kernel_before });
        state = next;
    }
    if steps.is_empty() {
        return Err(Error::usage(format!("--walk: no input; possible in {state}: {}", possible(state))));
    }
    Ok(steps)
}

fn possible(state: State) -> String {
    let possible = Input::ALL.iter().filter(|input| step(state, **input) != Cell::Impossible);
    let names: Vec<_> = possible.map(|input| input.name()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What the kernel says, where the path determines it, or leaves two possibilities.
fn said(kernel: &[&str]) -> String {
    if kernel.len() <= 2 { kernel.join(" or ") } else { String::new() }
}

/// The path, a line for each step: the socket's state, and what the kernel says then.
pub(super) fn text(steps: &[Step]) -> String {
    let mut out = String::new();
    for (at, Step { state, input, next, emits, result, kernel, kernel_before }) in steps.iter().enumerate() {
        if at == 0 {
            let _ = writeln!(out, "{}", format!("{state:<33}  {}", said(kernel_before)).trim_end());
        }
        let line = match *result {
            "deferred" => format!("  {input:<14} is taken up later"),
            "ignored" => format!("  {input:<14} is ignored"),
            _ => {
                let kernel = said(kernel);
                let emits = if emits.is_empty() { String::new() } else { format!("emits {}", emits.join(" ")) };
                format!("  {input:<14} -> {next:<13}  {kernel:<24}  {emits}")
            }
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}
