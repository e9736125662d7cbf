//! Where in a configuration file something stands, shown with a caret.

use std::fmt;

/// A place in a text: line and column from 1, and the text of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    text: String,
}

impl Place {
    /// The place of a byte offset; one behind the end is the end.
    pub(super) fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &text[start..];
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[start..].chars().count(),
            text: rest.lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// The line with a caret under the place, to be put behind a message.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands where the eye looks for it.
        let before = self.text.chars().take(self.column - 1);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("\n  {number} | {}\n  {margin} | {indent}^", self.text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r070_a_caret_points_at_the_place() {
        let text = "[provium]\n\troots = 3\n";
        let place = Place::of(text, text.find('3').unwrap());
        assert_eq!(place.to_string(), "line 2, column 10");
        assert_eq!(place.excerpt(), "\n  2 | \troots = 3\n    | \t        ^");
    }

    #[test]
    fn any_offset_has_a_place() {
        assert_eq!(Place::of("", 0).to_string(), "line 1, column 1");
        assert_eq!(Place::of("a\n", 2).to_string(), "line 2, column 1");
        assert_eq!(Place::of("ä", 1).to_string(), "line 1, column 2");
        assert_eq!(Place::of("a", 99).to_string(), "line 1, column 2");
    }
}
