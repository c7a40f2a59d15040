//! Prose of the pages that are written.

/// Lines of at most 100 columns, and a newline after the last one.
pub(crate) fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        let fits = column + 1 + width <= 100;
        if column > 0 {
            lines.push(if fits { ' ' } else { '\n' });
        }
        column = if column > 0 && fits { column + 1 + width } else { width };
        lines.push_str(word);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_at_most_100_columns_and_no_word_is_lost() {
        let text = "word ".repeat(45);
        let wrapped = wrapped(&text);
        assert!(wrapped.lines().all(|line| line.len() <= 100) && wrapped.lines().count() == 3, "{wrapped}");
        assert!(wrapped.split_whitespace().eq(text.split_whitespace()));
    }
}
