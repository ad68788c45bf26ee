//! The nearest known word to a misspelt one.

/// The known name with the fewest edits to `written`, when they are few enough to be a slip.
///
/// Edits are insertions, deletions, replacements and swaps of neighbours. A third of the word may differ, two letters at
/// least.
pub fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not keys; comparing them would only cost time.
    const WRITTEN_LENGTH_MAX: usize = 128;
    if written.len() > WRITTEN_LENGTH_MAX {
        return None;
    }
    let written: Vec<char> = written.to_ascii_lowercase().chars().collect();
    let allowed = (written.len() / 3).max(2);
    known
        .map(|name| (distance(&written, &name.chars().collect::<Vec<_>>()), name))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &y) in b.iter().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&y) && b.get(j - 1) == Some(&x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_only() {
        let known = ["proxy_listen", "admin_listen", "prefix", "log_level"];
        for (written, near) in [
            ("proxy_lisen", Some("proxy_listen")),
            ("porxy_listen", Some("proxy_listen")),
            ("Prefix", Some("prefix")),
            ("loglevel", Some("log_level")),
            ("entirely_else", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known.into_iter()), near, "{written}");
        }
    }
}
