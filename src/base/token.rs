//! Names of fields and the like, compared whatever their case.

/// Is `written` this `name`, which is in lower case? Letters outside of ASCII have no case.
///
/// Eight bytes at a time: a request is asked for many names, and most of them have as many bytes as another one.
#[inline]
pub fn is_named(written: &[u8], name: &[u8]) -> bool {
    if written.len() != name.len() {
        return false;
    }
    // What is left over is looked at with the bytes in front of it, some of them for the second time.
    if let (Some(last), Some(last_of_name)) = (written.last_chunk(), name.last_chunk()) {
        let ((chunks, _), (names, _)) = (written.as_chunks(), name.as_chunks());
        let mut pairs = chunks.iter().zip(names);
        return is_alike(last, last_of_name) && pairs.all(|(one, other)| is_alike(one, other));
    }
    match (halves(written), halves(name)) {
        (Some(halves), Some(halves_of_name)) => is_alike(&halves, &halves_of_name),
        _ => written.eq_ignore_ascii_case(name),
    }
}

/// The first four bytes and the last four; where there are fewer than eight, some of them twice.
fn halves(bytes: &[u8]) -> Option<[u8; 8]> {
    let ([a, b, c, d], [e, f, g, h]) = (*bytes.first_chunk()?, *bytes.last_chunk()?);
    Some([a, b, c, d, e, f, g, h])
}

fn is_alike(written: &[u8; 8], name: &[u8; 8]) -> bool {
    in_lower_case(u64::from_ne_bytes(*written)) == u64::from_ne_bytes(*name)
}

/// Eight bytes with their capital letters made small.
fn in_lower_case(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * EACH;
    let low = bytes & !TOP;
    // The top bit of a byte says that it is `A` or more, and more than `Z`; no sum reaches the next byte.
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let beyond_z = low + (0x7f - b'Z' as u64) * EACH;
    let capital = (from_a ^ beyond_z) & !bytes & TOP;
    bytes | (capital >> 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_of_every_length() {
        for length in 0..40 {
            let name = vec![b'a'; length];
            assert!(is_named(&vec![b'A'; length], &name));
            assert!(!is_named(&vec![b'A'; length + 1], &name));
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut written = name.clone();
                    if let Some(place) = written.get_mut(at) {
                        *place = byte;
                    }
                    let expected = written.eq_ignore_ascii_case(&name);
                    assert_eq!(is_named(&written, &name), expected, "{written:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(written: Vec<u8>, other: Vec<u8>, capitals: u64) {
            let name = written.to_ascii_lowercase();
            prop_assert!(is_named(&written, &name));
            let mixed: Vec<u8> = name.iter().enumerate().map(|(at, byte)| {
                match capitals >> (at % 64) & 1 {
                    1 => byte.to_ascii_uppercase(),
                    _ => *byte,
                }
            }).collect();
            prop_assert!(is_named(&mixed, &name));
            let name = other.to_ascii_lowercase();
            prop_assert_eq!(is_named(&written, &name), written.eq_ignore_ascii_case(&name));
        }
    }
}
