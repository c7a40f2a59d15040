//! The book shows what the command prints.

use finale_test_support::book::{compare_blocks, compare_file};

use crate::common::{run, shell};

const HOW: &str = "FINALE_BOOK=write cargo test book";

#[test]
fn the_book_shows_what_the_command_prints() {
    let compared = compare_blocks(HOW, |block| {
        let command = block.command()?;
        let arguments = command.strip_prefix("finale ")?;
        let (arguments, file) = match arguments.rsplit_once(" > ") {
            Some((arguments, file)) => (arguments, Some(file)),
            None => (arguments, None),
        };
        let outcome = shell(&format!("\"$FINALE\" {arguments}"));
        // A refusal is shown, too. It is all that the command prints then.
        assert!(outcome.code == Some(0) || outcome.stdout.is_empty(), "{command}: {outcome:?}");
        let printed = outcome.stdout + &outcome.stderr;
        match file {
            Some(file) => compare_file(file, HOW, &printed),
            None => return Some(format!("$ {command}\n{}", printed.trim_end().to_owned() + "\n")),
        }
        None
    });
    assert!(compared > 5, "{compared} blocks");
}

#[test]
fn the_book_has_the_questions_of_the_lab() {
    compare_file("questions.md", HOW, &run(&["lab", "--questions"]).stdout);
}
