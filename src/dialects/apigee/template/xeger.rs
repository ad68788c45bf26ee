//! Random texts that match a regular expression.
//!
//! Owns `xeger`: classes, repeats and alternatives of the plain syntax; unbounded repeats are kept short. Refuses
//! look-around and back-references, for which no text can be made up.

use regex_syntax::hir::{Class, Hir, HirKind};

/// The longest text, in characters.
const LENGTH_MAX: usize = 4096;
/// How often an unbounded repeat repeats beyond its minimum.
const REPEAT_EXTRA_MAX: u32 = 10;

/// A text that matches the pattern, made with random numbers.
pub(super) fn generate(pattern: &str, random: &mut impl FnMut() -> u64) -> Result<String, String> {
    let hir = regex_syntax::ParserBuilder::new()
        .unicode(true)
        .nest_limit(100)
        .build()
        .parse(pattern)
        .map_err(|_| {
            format!("'{pattern}' is not a regular expression that texts can be made for")
        })?;
    let mut text = String::new();
    let mut length = 0;
    append(&hir, random, &mut text, &mut length)?;
    Ok(text)
}

/// The depth is bounded by the parser's nest limit.
fn append(
    hir: &Hir,
    random: &mut impl FnMut() -> u64,
    into: &mut String,
    length: &mut usize,
) -> Result<(), String> {
    // Counts rounds too, so that repeats of nothing end.
    *length += 1;
    if *length > LENGTH_MAX {
        return Err(format!(
            "the text would be longer than {LENGTH_MAX} characters"
        ));
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => into.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => into.extend(character_of(class, random)),
        HirKind::Repetition(repetition) => {
            let most = repetition
                .max
                .unwrap_or(repetition.min.saturating_add(REPEAT_EXTRA_MAX));
            let span = u64::from(most.saturating_sub(repetition.min)) + 1;
            let count = u64::from(repetition.min) + random() % span;
            for _ in 0..count {
                append(&repetition.sub, random, into, length)?;
            }
        }
        HirKind::Capture(capture) => append(&capture.sub, random, into, length)?,
        HirKind::Concat(parts) => {
            for part in parts {
                append(part, random, into, length)?;
            }
        }
        HirKind::Alternation(parts) => {
            let chosen = random() as usize % parts.len().max(1);
            if let Some(part) = parts.get(chosen) {
                append(part, random, into, length)?;
            }
        }
    }
    Ok(())
}

/// A character of the class: a printable one of ASCII when it has any.
fn character_of(class: &Class, random: &mut impl FnMut() -> u64) -> Option<char> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => class
            .ranges()
            .iter()
            .map(|range| (range.start() as u32, range.end() as u32))
            .collect(),
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .map(|range| (u32::from(range.start()), u32::from(range.end())))
            .collect(),
    };
    let printable: Vec<(u32, u32)> = ranges
        .iter()
        .map(|(start, end)| ((*start).max(0x20), (*end).min(0x7E)))
        .filter(|(start, end)| start <= end)
        .collect();
    let ranges = if printable.is_empty() {
        ranges
    } else {
        printable
    };
    let count: u64 = ranges
        .iter()
        .map(|(start, end)| u64::from(end - start) + 1)
        .sum();
    let mut chosen = random() % count.max(1);
    for (start, end) in ranges {
        let size = u64::from(end - start) + 1;
        if chosen < size {
            // Ranges of characters leave the surrogates out.
            return char::from_u32(start + chosen as u32);
        }
        chosen -= size;
    }
    None
}
