//! `finale states`: the table that runs.

use crate::common::run;
use finale::lifecycle::{Format, Input, State, View, print};

#[test]
fn states_prints_the_table_that_runs_in_each_format() {
    let formats = [("text", Format::Text), ("mermaid", Format::Mermaid), ("dot", Format::Dot)];
    for (name, format) in formats {
        let outcome = run(&["states", "--format", name]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{name}");
        assert_eq!(outcome.stdout, print(format, View::All), "{name}");
    }
    assert_eq!(run(&["states"]).stdout, print(Format::Text, View::All));
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
    let text = print(Format::Text, View::All);
    let arrows: Vec<_> = text.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(lines.len(), arrows.len());
    assert!(lines.iter().zip(&arrows).all(|(line, arrow)| arrow.starts_with(line.trim_end())), "{lines:?}\n{text}");
    run(&["states", "--json", "--format", "dot"]).refused_with(2, "can't be used with");
}

#[test]
fn the_picture_of_the_documentation_is_the_one_that_is_printed() {
    let picture = include_str!("../../../docs/lifecycle.svg");
    assert!(
        run(&["states", "--format", "svg"]).stdout == picture,
        "replace docs/lifecycle.svg by the output of: finale states --format svg"
    );
    assert!(!picture.contains("\n\n"), "an empty line would end it in Markdown");
    assert!(State::ALL.iter().all(|state| picture.contains(&format!("data-name=\"{state}\""))));
    assert!(Input::ALL.iter().all(|input| picture.contains(input.name())));
    let page = run(&["states", "--format", "html"]).stdout;
    assert!(page.contains(picture) && page.starts_with("<!doctype html>"));
    assert!(
        !page.contains("http://") || page.matches("http").count() == page.matches("http://www.w3.org/2000/svg").count()
    );
}

#[test]
fn a_view_prints_one_side_in_each_format() {
    for format in ["text", "svg", "html", "json", "mermaid", "dot"] {
        let side = |view: &str| run(&["states", "--format", format, "--view", view]).stdout;
        let has = |text: &str| ["Accepted", "Established", "LookupFailed"].map(|input| text.contains(input));
        assert_eq!(has(&side("all")), [true; 3], "{format}");
        assert_eq!(has(&side("client")), [false, true, true], "{format}");
        assert_eq!(has(&side("server")), [true, false, false], "{format}");
    }
}

#[test]
fn one_state_is_printed_with_its_meaning_and_limits_however_its_name_is_written() {
    let text = run(&["states", "PeerFinished"]).stdout;
    for words in [
        "The peer's FIN was read; we still send, until the program calls end.",
        "CLOSE-WAIT",
        "half_closed_timeout",
        "EndCalled",
        "Ignores",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for name in ["peer-finished", "peerfinished", "peer_finished"] {
        assert_eq!(run(&["states", name]).stdout, text);
    }
    let one: serde_json::Value = serde_json::from_str(&run(&["states", "Closed", "--json"]).stdout).expect("JSON");
    assert_eq!((one["state"].as_str(), one["transitions"].as_array().map(Vec::len)), (Some("Closed"), Some(0)));
    run(&["states", "CLOSE_WAIT"]).refused_with(
        2,
        "is a state of the kernel; a socket of finale is then in Open, Flushing, PeerFinished, LastFlush",
    );
    run(&["states", "nothing"]).refused_with(2, "\"nothing\" is not a state; the states are Created, Resolving");
    run(&["states", "open", "--format", "svg"]).refused_with(2, "text or json");
}

#[test]
fn a_walk_prints_the_states_and_events_of_a_path() {
    let walk = run(&["states", "--walk", "accepted, data, fin, EndCalled, fin-sent, acknowledged, close-due"]);
    let expected = "\
Created                            CLOSED
  Accepted       -> Open           ESTABLISHED               emits connection
  Data           -> Open           ESTABLISHED               emits data
  Fin            -> PeerFinished   CLOSE-WAIT                emits end
  EndCalled      -> LastFlush      CLOSE-WAIT
  FinSent        -> Closing        LAST-ACK
  Acknowledged   -> Confirmed      CLOSED
  CloseDue       -> Closed         CLOSED                    emits close
";
    assert_eq!((walk.code, walk.stdout.as_str()), (Some(0), expected));
    let walk = run(&["states", "--walk", "accepted, end-called, fin-sent, fin, acknowledged, close-due"]).stdout;
    for line in [
        "FinSent        -> LocalFinished  FIN-WAIT-1 or FIN-WAIT-2\n",
        "Fin            -> Closing        CLOSING or TIME-WAIT      emits end\n",
        "CloseDue       -> Closed         TIME-WAIT                 emits close\n",
    ] {
        assert!(walk.contains(line), "{line}: {walk}");
    }
    let walk = run(&["states", "--walk", "accepted, end-called, peer-ended, fin-sent"]).stdout;
    assert!(walk.contains("PeerEnded      -> Flushing       CLOSE-WAIT"), "its FIN has arrived: {walk}");
    assert!(walk.contains("FinSent        -> LocalFinished  LAST-ACK\n"), "ours is the second: {walk}");
    let walk = run(&["states", "--walk", "accepted, reset, close-due"]).stdout;
    assert!(walk.contains("-> ResetByPeer    CLOSED                    emits error\n"), "{walk}");
    let walk = run(&["states", "--walk", "local-finished fin"]).stdout;
    assert!(walk.starts_with("LocalFinished\n"), "it is one of five: {walk}");
    let walk = run(&["states", "--walk", "resolving end-called resolved established"]).stdout;
    assert!(
        walk.starts_with("Resolving                          CLOSED\n  EndCalled      is taken up later\n"),
        "{walk}"
    );
    assert!(run(&["states", "--walk", "closing idle"]).stdout.contains("is ignored"));
    let steps = run(&["states", "--walk", "open, fin", "--format", "json"]).stdout;
    let steps: serde_json::Value = serde_json::from_str(&steps).expect("JSON");
    assert_eq!((&steps[0]["next"], &steps[0]["emits"][0]), (&"PeerFinished".into(), &"end".into()));
    assert_eq!(steps[0]["kernel"], serde_json::json!(["CLOSE-WAIT"]));
}

#[test]
fn a_walk_that_leaves_the_table_says_where_and_what_is_possible_there() {
    run(&["states", "--walk", "accepted, established"])
        .refused_with(2, "step 2: Established can't happen in Open; possible there: Data, Drained");
    run(&["states", "--walk", "created, accept"])
        .refused_with(2, "step 1: \"accept\" is no input, in Created; possible there: Accepted, LookupStarted");
    run(&["states", "--walk", "closed, accepted"]).refused_with(2, "Accepted can't happen in Closed");
    run(&["states", "--walk", " , "]).refused_with(2, "no input; possible in Created: Accepted");
    run(&["states", "--walk", "open, fin", "--format", "svg"]).refused_with(2, "text or json");
    run(&["states", "--walk", "open, fin", "--view", "client"]).refused_with(2, "can't be used with");
}
