//! "Did you mean": the known word nearest to a misspelt one (cli-and-config R-070).

/// The known word nearest to `word`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1) + 1;
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) that turn `a` into `b`, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kernel", "kernal", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn r070_the_nearest_word_wins_and_far_ones_are_not_offered() {
        let known = ["kernel", "initrd", "cmdline", "cmdline_file"];
        assert_eq!(nearest("kernal", known), Some("kernel"));
        assert_eq!(nearest("initramfs", known), Some("initrd"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(nearest("cmd_line", known), Some("cmdline"));
    }
}
