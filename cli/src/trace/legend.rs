//! What the lines of a picture are.

use std::fmt::Write as _;

use crate::html::escape;

/// The distance of two lines, and the height of the legend.
const LINE: i32 = 20;
pub(super) const HEIGHT: i32 = 2 * LINE + 12;
/// The width of an item, and of the arrow of a packet.
const ITEM: i32 = 318;
const ARROW: i32 = 56;

/// The style of an item, and its text.
const ITEMS: [(&str, &str); 8] = [
    ("action", "> what the program does"),
    ("step", "Input: state -> state, event"),
    ("call", "a system call of finale"),
    ("error", "a system call: its error"),
    ("kernel", "kernel: what it says, if it changed"),
    ("ending", "ended: the report of close"),
    ("packet", "a packet"),
    ("packet lost", "a packet that is lost"),
];

/// Adds the legend; `y` is the base of its first line.
pub(super) fn add(out: &mut String, y: i32) {
    out.push_str("<g class=\"legend\">\n");
    for (at, (style, text)) in (0..).zip(ITEMS) {
        let (x, y) = (8 + ITEM * (at % 4), y + LINE * (at / 4));
        let _ = write!(out, "<g class=\"key {style}\">");
        let mut begin = x;
        if style.starts_with("packet") {
            let (length, head) = if style == "packet" { (ARROW, "head") } else { (ARROW - 8, "lost") };
            begin += ARROW + 8;
            let _ = write!(
                out,
                "<path class=\"wire\" marker-end=\"url(#ladder-{head})\" d=\"M{x} {}H{}\"/>",
                y - 4,
                x + length
            );
        }
        let _ = writeln!(out, "<text x=\"{begin}\" y=\"{y}\">{}</text></g>", escape(text));
    }
    out.push_str("</g>\n");
}
