//! The 32-bit xxHash: a fast hash whose results are the same on every node and in every version.
//!
//! Not for secrets and not against attackers; for spreading keys over endpoints. Source: the xxHash specification,
//! "XXH32 algorithm description".

const PRIME_1: u32 = 0x9E37_79B1;
const PRIME_2: u32 = 0x85EB_CA77;
const PRIME_3: u32 = 0xC2B2_AE3D;
const PRIME_4: u32 = 0x27D4_EB2F;
const PRIME_5: u32 = 0x1656_67B1;

/// Bytes read in one round of the four accumulators.
const STRIPE_BYTES: usize = 16;

/// The hash of `input` with seed 0.
pub fn xxhash32(input: &[u8]) -> u32 {
    let mut stripes = input.chunks_exact(STRIPE_BYTES);
    let mut hash = if input.len() >= STRIPE_BYTES {
        let mut lanes = [
            PRIME_1.wrapping_add(PRIME_2),
            PRIME_2,
            0,
            0u32.wrapping_sub(PRIME_1),
        ];
        for stripe in &mut stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane
                    .wrapping_add(little_endian(word).wrapping_mul(PRIME_2))
                    .rotate_left(13)
                    .wrapping_mul(PRIME_1);
            }
        }
        let [first, second, third, fourth] = lanes;
        first
            .rotate_left(1)
            .wrapping_add(second.rotate_left(7))
            .wrapping_add(third.rotate_left(12))
            .wrapping_add(fourth.rotate_left(18))
    } else {
        PRIME_5
    };
    // The specification takes the length modulo 2^32.
    hash = hash.wrapping_add(input.len() as u32);
    let mut words = stripes.remainder().chunks_exact(4);
    for word in &mut words {
        hash = hash
            .wrapping_add(little_endian(word).wrapping_mul(PRIME_3))
            .rotate_left(17)
            .wrapping_mul(PRIME_4);
    }
    for byte in words.remainder() {
        hash = hash
            .wrapping_add(u32::from(*byte).wrapping_mul(PRIME_5))
            .rotate_left(11)
            .wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 16)
}

fn little_endian(word: &[u8]) -> u32 {
    word.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_values() {
        let cases: [(&str, u32); 4] = [
            ("", 0x02CC_5D05),
            ("a", 0x550D_7456),
            ("abc", 0x32D1_53FF),
            ("Nobody inspects the spammish repetition", 0xE229_3B2F),
        ];
        for (text, hash) in cases {
            assert_eq!(xxhash32(text.as_bytes()), hash, "{text:?}");
        }
    }
}
