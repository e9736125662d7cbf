//! Colours of the text report.

/// Colours, or none.
pub(super) struct Paint {
    pub(super) colours: bool,
}

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn red(&self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn yellow(&self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.wrap("2", text)
    }
}
