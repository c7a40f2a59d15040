//! `finale states`: the table that runs.

use crate::common::run;
use finale::lifecycle::{Format, State, print};

#[test]
fn states_prints_the_table_that_runs_in_each_format() {
    let formats = [("text", Format::Text), ("mermaid", Format::Mermaid), ("dot", Format::Dot)];
    for (name, format) in formats {
        let outcome = run(&["states", "--format", name]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{name}");
        assert_eq!(outcome.stdout, print(format), "{name}");
    }
    assert_eq!(run(&["states"]).stdout, print(Format::Text));
}

/// The text has one line per transition, so the two forms can be compared.
#[test]
fn states_as_json_has_every_state_with_the_transitions_of_the_text() {
    let outcome = run(&["states", "--json"]);
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (Some(0), 1), "{outcome:?}");
    let states: Vec<serde_json::Value> = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    let names: Vec<_> = states.iter().map(|state| state["state"].as_str().expect("a name")).collect();
    assert_eq!(names, State::ALL.iter().map(|state| state.name()).collect::<Vec<_>>());
    let transitions = states.iter().flat_map(|state| state["transitions"].as_array().expect("a list"));
    let lines: Vec<String> = transitions
        .map(|to| {
            format!("  {:<14} -> {:<13}", to["input"].as_str().expect("text"), to["next"].as_str().expect("text"))
        })
        .collect();
    let text = print(Format::Text);
    let arrows: Vec<_> = text.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(lines.len(), arrows.len());
    assert!(lines.iter().zip(&arrows).all(|(line, arrow)| arrow.starts_with(line.trim_end())), "{lines:?}\n{text}");
    run(&["states", "--json", "--format", "dot"]).refused_with(2, "can't be used with");
}
