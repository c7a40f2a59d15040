//! The guided runs: `scenarios.toml`, and the rules that its tests check.

use serde::{Deserialize, Serialize};

use crate::errors::Error;

/// A guided run: a set-up, a question before it, what to look at, and why.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) ask: String,
    pub(crate) choices: Vec<String>,
    /// The right choice, from 0.
    pub(crate) answer: usize,
    pub(crate) explain: String,
    /// What ss(8) prints of it.
    #[serde(default)]
    pub(crate) ss: Vec<String>,
    pub(crate) source: String,
    /// One run, or two side by side.
    pub(crate) run: Vec<Guided>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guided {
    #[serde(default)]
    pub(crate) label: String,
    pub(crate) script: String,
    /// What the ladder must contain, in this order: a side, and a part of a row's text.
    #[serde(skip_serializing)]
    #[cfg_attr(not(test), expect(dead_code, reason = "only the tests read it"))]
    pub(crate) shows: Vec<String>,
    #[serde(default)]
    pub(crate) watch: Vec<Watch>,
}

/// What to look at from a step of the script on, counted from 1.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watch {
    pub(crate) step: usize,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
struct Scenarios {
    scenario: Vec<Scenario>,
}

/// All of them, in their order.
pub(crate) fn all() -> Result<Vec<Scenario>, Error> {
    let read: Result<Scenarios, _> = toml::from_str(include_str!("scenarios.toml"));
    read.map(|read| read.scenario).map_err(|error| Error::Lesson(error.into()))
}

/// All of them for the page.
pub(super) fn json() -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&all()?).map_err(|error| Error::Lesson(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{self, Script};

    /// The rows of a script's ladder: the side, and the text.
    fn rows(script: &str) -> Vec<String> {
        let script = Script::parse(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        let ladder = trace::simulated(&script).unwrap_or_else(|error| panic!("{script}: {error}"));
        ladder.rows.iter().map(|row| format!("{} {}", row.side.name(), row.line)).collect()
    }

    #[test]
    fn each_run_shows_what_its_scenario_claims_in_that_order() {
        for scenario in all().expect("it can be read") {
            for run in &scenario.run {
                let rows = rows(&run.script);
                let mut rest = rows.iter();
                for claim in &run.shows {
                    let (side, text) = claim.split_once(' ').expect("a side and a text");
                    let is_it =
                        |row: &&String| row.split_once(' ').is_some_and(|(of, row)| of == side && row.contains(text));
                    assert!(rest.any(|row| is_it(&row)), "{}: {claim} in:\n{}", scenario.name, rows.join("\n"));
                }
                assert!(!run.shows.is_empty(), "{} shows nothing", scenario.name);
            }
        }
    }

    #[test]
    fn each_scenario_has_a_question_with_one_answer_and_places_to_look_at() {
        let all = all().expect("it can be read");
        for number in 1..=24 {
            assert!(all.iter().any(|scenario| scenario.name == format!("q{number:02}")), "question {number}");
        }
        for scenario in &all {
            let name = &scenario.name;
            assert!(scenario.choices.len() >= 2 && scenario.answer < scenario.choices.len(), "{name}");
            assert!((1..=2).contains(&scenario.run.len()), "{name}");
            assert!(["question", "lesson", "crash", "ending"].contains(&scenario.group.as_str()), "{name}");
            assert!(!scenario.ask.is_empty() && !scenario.explain.is_empty() && !scenario.source.is_empty(), "{name}");
            assert_eq!(all.iter().filter(|other| other.name == *name).count(), 1, "{name} is there once");
            for run in &scenario.run {
                assert!(scenario.run.len() == 1 || !run.label.is_empty(), "{name}: two runs have labels");
                let steps = Script::parse(&run.script).expect("it is a script").0.len();
                assert!(!run.watch.is_empty(), "{name}: there is something to look at");
                assert!(run.watch.iter().all(|watch| (1..=steps).contains(&watch.step)), "{name}: steps 1 to {steps}");
            }
        }
    }
}
