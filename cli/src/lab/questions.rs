//! The 24 questions as a page of the book: what is asked, the runs that answer it, and the answer.

use std::fmt::Write as _;

use super::scenarios::{self, Guided, Scenario};
use crate::errors::Error;
use crate::trace::{self, Script};

const HEAD: &str = "\
# Twenty-four questions

What people ask most about the end of a connection. Each is a guided run of `finale lab`, which asks
what you expect before it shows the result: open it, and choose the question. The rows of a run are
printed by `finale trace` with its script.

This page is written by `finale lab --questions`.
";

const WIDTH: usize = 100;

/// The page.
pub(super) fn markdown() -> Result<String, Error> {
    let mut out = HEAD.to_owned();
    let all = scenarios::all()?;
    let questions = all.iter().filter(|scenario| scenario.group == "question");
    for (scenario, number) in questions.zip(1..) {
        question(&mut out, scenario, number)?;
    }
    Ok(out)
}

fn question(out: &mut String, scenario: &Scenario, number: u32) -> Result<(), Error> {
    let _ = write!(out, "\n## {number}. {}\n\n{}\n", scenario.title, scenario.text.trim());
    let _ = writeln!(out, "\n{}\n", textwrap::fill(&format!("**{}**", scenario.ask.trim()), WIDTH));
    for choice in &scenario.choices {
        item(out, &format!("{choice}."));
    }
    for guided in &scenario.run {
        run(out, guided)?;
    }
    let right = format!("**The answer: {}.**", scenario.choices[scenario.answer]);
    let _ = write!(out, "\n{}\n", textwrap::fill(&right, WIDTH));
    let _ = writeln!(out, "\n{}", scenario.explain.trim());
    if !scenario.ss.is_empty() {
        let _ = write!(out, "\n```console\n{}\n```\n", scenario.ss.join("\n"));
    }
    let source = format!("Source: {}.", scenario.source.trim().trim_end_matches('.'));
    let _ = writeln!(out, "\n{}", textwrap::fill(&source, WIDTH));
    Ok(())
}

/// An item of a list, in lines of the width of a page.
fn item(out: &mut String, text: &str) {
    let options = textwrap::Options::new(WIDTH).initial_indent("- ").subsequent_indent("  ");
    let _ = writeln!(out, "{}", textwrap::fill(&text.replace('\n', " "), options));
}

/// The script of a run, what to look at, and how both sides have ended.
fn run(out: &mut String, run: &Guided) -> Result<(), Error> {
    let script = Script::parse(&run.script)?;
    let ladder = trace::simulated(&script)?;
    if !run.label.is_empty() {
        let _ = write!(out, "\n*{}*\n", run.label);
    }
    let _ = write!(out, "\n```console\n{}\n```\n\n", script.to_string().replace("; ", ";\n"));
    for watch in &run.watch {
        let step = ladder.steps.get(watch.step - 1).map_or("", |step| &step.text);
        item(out, &format!("`{step}`: {}", watch.text.trim()));
    }
    for end in &ladder.sides {
        let ending = end.ending.as_deref().unwrap_or("not over");
        item(out, &format!("At the end, the {}: {ending}.", end.side.name()));
    }
    Ok(())
}
