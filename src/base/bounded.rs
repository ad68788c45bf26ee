//! Reading what may be longer than anybody wants: unpackers' output, files that others write.

use std::io::{self, Read};

/// Everything that there is to read; `None` if that is more than `most` bytes. No more than one byte beyond them is read.
///
/// # Errors
///
/// Those of the reader.
pub fn read_at_most(from: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        for (most, expected) in [(3, None), (4, Some("text")), (u64::MAX, Some("text"))] {
            let read = read_at_most(b"text".as_slice(), most).unwrap();
            assert_eq!(read.as_deref(), expected.map(str::as_bytes));
        }
        assert_eq!(read_at_most(io::empty(), 0).unwrap(), Some(Vec::new()));
        assert_eq!(read_at_most(io::repeat(b'x'), 1 << 16).unwrap(), None);
    }
}
