//! The pages of the lessons: headings and paragraphs of 80 columns.

use crate::errors::Error;
use crate::output::{self, HEADING};

const COLUMNS: usize = 80;

/// A heading, with empty lines around it.
pub(super) fn heading(title: &str) -> Result<(), Error> {
    output::print(&format!("\n{HEADING}=== {title} ==={HEADING:#}\n\n"))
}

/// A paragraph.
pub(super) fn paragraph(text: &str) -> Result<(), Error> {
    output::print(&(textwrap::fill(text, COLUMNS) + "\n"))
}

/// What a lesson ends with: each sentence or two as an item of a list.
pub(super) fn learned(items: &[&str]) -> Result<(), Error> {
    heading("What you have learned")?;
    let options = textwrap::Options::new(COLUMNS).initial_indent("- ").subsequent_indent("  ");
    items.iter().try_for_each(|item| output::print(&(textwrap::fill(item, &options) + "\n")))
}

/// A line of a transcript. What does not fit continues on the next line, further to the right.
pub(super) fn line(prefix: &str, text: &str) -> Result<(), Error> {
    let indent = " ".repeat(prefix.len() + 2);
    let options = textwrap::Options::new(COLUMNS).initial_indent(prefix).subsequent_indent(&indent);
    output::print(&(textwrap::fill(text, options) + "\n"))
}
